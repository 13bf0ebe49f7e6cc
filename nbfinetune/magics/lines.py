"""Magic lines: the learner and the options that they name, and how they are completed."""

import re
import sys
import warnings
from collections import ChainMap
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic_arguments import argument, parse_argstring

if TYPE_CHECKING:
    from nbfinetune.data.loaders import ImageDataLoaders
    from nbfinetune.learner import Learner
    from nbfinetune.live.background import RunControl

LR_HELP = (
    "3e-3, 1e-6:1e-4 or slice(1e-6,1e-4) (first group to head), a variable, or @, @/10, @valley "
    "(what %%lr_find found last)"
)


def option(name: str, **kwargs) -> Callable:
    """An option that may be written with hyphens or underscores."""
    both = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
    return argument(*both, **kwargs)


static_arg = option("no-widgets", action="store_true", help="tables and pictures, no widgets")
workers_arg = option(
    "workers", type=int, metavar="N", help="processes that share the work; default: this one"
)
cluster_arg = option(
    "cluster", metavar="PROFILE", help="those of a profile of ipyparallel, on other machines too"
)
learner_arg = argument("-l", "--learner", metavar="NAME", help="the learner's variable")


def scope_of(shell: InteractiveShell, local_ns: dict | None) -> ChainMap:
    """The variables that a line can name: those of its function, of functions around, of the shell.

    IPython gives the first and the last. A function around another that does not use its variables
    is known to Python by its frame alone, as is that around a comprehension.

    Parameters
    ----------
    local_ns : what IPython gives as the scope of the line
    """
    frame = sys._getframe()
    while frame and frame.f_code.co_name != "run_line_magic":
        frame = frame.f_back
    frame = frame and frame.f_back
    around, inner = [], frame and frame.f_code
    while frame := frame and frame.f_back:
        if inner in frame.f_code.co_consts:
            around.append(frame.f_locals)
            inner = frame.f_code
    return ChainMap(local_ns or {}, *around, shell.user_ns)


def workers_of(args: dict) -> dict[str, object]:
    """Take out of the options who is to do it, as arguments of a method."""
    return {name: args.pop(name) for name in ("workers", "cluster") if name in args}


def parse_line(
    magic: Callable, line: str, scope: "ChainMap[str, object]"
) -> "tuple[Learner, dict, bool]":
    """The learner, the options that were given, and whether a semicolon asks for silence."""
    args, quiet = parse_options(magic, _filled_in(line, scope))
    return find_learner(scope, args.pop("learner", None)), args, quiet


def parse_data_line(
    magic: Callable, line: str, scope: "ChainMap[str, object]"
) -> "tuple[ImageDataLoaders, str, dict, bool]":
    """The data of a line, how the user calls it, the other options, and whether to be silent."""
    args, quiet = parse_options(magic, _filled_in(line, scope))
    return *find_loaders(scope, args.pop("dls", None)), args, quiet


def control_of_line(magic: Callable, line: str, scope: "ChainMap[str, object]") -> "RunControl":
    """The control of the run that a line means; one whose learner has no variable has it too.

    Without a name that is the run of the learner a line would mean, else the newest without a
    variable, else the only one that is on.

    Raises
    ------
    UsageError
        If there is none or no single one.
    """
    args, _ = parse_options(magic, _filled_in(line, scope))
    name, idle = args.get("learner"), f"%{magic.__name__}: this learner is not training"
    try:
        control = find_learner(scope, name).control
        if control.running:
            return control
    except UsageError as error:
        idle = str(error)
    if name is not None or "nbfinetune.learner" not in sys.modules:  # of which there is none
        raise UsageError(idle)
    from nbfinetune.live.background import calls_that_are_on  # brings torch

    there = {n: known_learner(scope[n]) for n in learner_names(scope)}
    named = {learn.control: n for n, learn in there.items() if learn is not None}
    on = calls_that_are_on()
    if lost := [control for control in on if control not in named]:
        return lost[-1]
    if len(on) > 1:
        names = [named[control] for control in on]
        raise UsageError(f"{', '.join(names)} are training; say which: -l {names[0]}")
    if not on:
        raise UsageError(idle)
    return on[0]


def _filled_in(line: str, scope: ChainMap) -> str:
    """The line with the variables of functions around, $x or {x}; IPython put in all others."""
    around = ChainMap({}, *scope.maps[1:-1])
    return re.sub(
        r"\$(\w+)|\{(\w+)\}",
        lambda m: str(around.get(m[1] or m[2], m[0])),
        line,
    )


def parse_options(magic: Callable, line: str) -> tuple[dict, bool]:
    """The options that were given, and whether a semicolon asks for silence."""
    # What is quoted stays as it is; an apostrophe within a word or a comment opens nothing.
    quoted = r"""(?<!\S)("[^"]*"|'[^']*')"""
    bare = re.sub(rf"{quoted}|(?:^|\s)#.*$", lambda m: m[1] or "", line).strip()
    quiet = bare.endswith(";")
    bare = re.sub(
        rf"{quoted}|\([^)]*\)", lambda m: m[1] or m[0].replace(" ", ""), bare.rstrip("; ")
    )
    try:
        args = vars(parse_argstring(magic, bare))
    except UsageError as error:
        raise UsageError(_with_options(magic, str(error))) from None
    except ValueError:  # of the words; argparse raises UsageError
        raise UsageError(
            f"a quotation mark is not closed in: {bare}; close it, and put a name that has one "
            'into the other kind, such as "bob\'s.csv"'
        ) from None
    return {k: v for k, v in args.items() if v is not None}, quiet


def _with_options(magic: Callable, text: str) -> str:
    """What argparse says of a line; of an option that there is not, with the nearest and all."""
    unknown = re.search(r"unrecognized arguments: (--?[^\s=]+)", text)
    if not unknown:
        return text
    options = options_of(magic)
    near = get_close_matches(unknown[1], options, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"%{magic.__name__} has no option {unknown[1]}; {hint}it has {', '.join(options)}"


def options_of(magic: Callable) -> list[str]:
    """The options of a magic, as one writes them."""
    strings = [a.option_strings[0] for a in magic.parser._actions if a.option_strings]
    of_learner = ["--learner"] if "-l" in strings else []
    return [*(s for s in strings if s not in ("-h", "-l")), *of_learner]


def find_learner(scope: "ChainMap[str, object]", name: str | None) -> "Learner":
    """The learner called `name`; without one `learn`, else the only one there is.

    The innermost scope that has a learner decides: a function's own goes before a global `learn`.

    Raises
    ------
    UsageError
        If there is none or no single one; the message lists those there are.
    """
    learners = learner_names(scope)
    there = f"learners here: {', '.join(learners)}" if learners else "there is no learner here"
    if name is not None:
        if name not in scope:
            raise UsageError(f"no variable {name!r}; {there}")
        if not _is_learner(scope[name]):
            kind = type(scope[name]).__name__
            raise UsageError(f"{name!r} is a {kind}, not a Learner; {there}")
        return _ours(scope[name], name)
    for names in scope.maps:
        if _is_learner(names.get("learn")):
            return _ours(names["learn"], "learn")
        own = learner_names(names)
        if len({id(known_learner(names[n]) or names[n]) for n in own}) == 1:
            return _ours(names[own[0]], own[0])
        if own:
            raise UsageError(f"learners here: {', '.join(own)}; say which: -l {own[0]}")
    raise UsageError(f"{there}; make one: learn = vision_learner(dls, 'resnet34')")


def learner_names(names: Mapping[str, object]) -> list[str]:
    """The variables that hold a learner; IPython's `_` and `_1` are left out."""
    return [k for k, v in names.items() if _is_learner(v) and not k.startswith("_")]


def _is_learner(value: object) -> bool:
    # Where nothing imported the class there is none of it: no line imports torch to look for one.
    homes = map(sys.modules.get, ("nbfinetune.learner", "fastai.learner"))
    return isinstance(value, tuple(home.Learner for home in homes if hasattr(home, "Learner")))


def known_learner(value: object) -> "Learner | None":
    """A learner of ours: the value itself, or what was made of one of fastai's, if anything was."""
    learner = sys.modules.get("nbfinetune.learner")
    if learner is None or isinstance(value, learner.Learner):
        return value if learner else None
    return learner.taken_over(value)


def _ours(value: object, name: str) -> "Learner":
    """A learner of ours; one of fastai's is taken over once, which a line says."""
    if (known := known_learner(value)) is not None:
        return known
    from nbfinetune.learner import Learner  # torch is there, with fastai

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            taken = Learner.from_fastai(value)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{name} cannot be taken over from fastai: {error}") from None
    said = [str(warning.message) for warning in caught]
    print(". ".join([f"{name}: taken over from fastai, with the same weights and data", *said]))
    return taken


def find_loaders(
    scope: "ChainMap[str, object]", name: str | None
) -> "tuple[ImageDataLoaders, str]":
    """The data called `name`, and that name; without one `dls`, else the only one there is.

    Where no variable holds data, that of the only learner.

    Raises
    ------
    UsageError
        If there is none or no single one; the message lists those there are.
    """
    there = [n for n, value in scope.items() if _is_data(value) and not n.startswith("_")]
    listed = f"data here: {', '.join(there)}" if there else "there is no data here"
    if name is None and not there:
        learners = learner_names(scope)
        if len(learners) == 1 and _is_data(scope[learners[0]].dls):
            return scope[learners[0]].dls, f"{learners[0]}.dls"
        raise UsageError(f"{listed}; make some: dls = ImageDataLoaders.from_folder('photos')")
    if name is None:
        if "dls" not in there and len({id(scope[n]) for n in there}) > 1:
            raise UsageError(f"{listed}; say which: --dls {there[0]}")
        name = "dls" if "dls" in there else there[0]
    elif name not in there:
        what = f"{name!r} is a {type(scope[name]).__name__}" if name in scope else f"no {name!r}"
        raise UsageError(f"{what}, not ImageDataLoaders; {listed}")
    return scope[name], name


def _is_data(value: object) -> bool:
    loaders = sys.modules.get("nbfinetune.data.loaders")  # as for `_is_learner`
    return isinstance(value, getattr(loaders, "ImageDataLoaders", ()))


def whole_numbers(option: str, text: str, such_as: str) -> list[int]:
    """Whole numbers, as written after an option: 160,224 or (160,224)."""
    try:
        return [int(part) for part in text.strip("()[]").split(",") if part]
    except ValueError:
        raise UsageError(f"--{option} {text}: give whole numbers, such as {such_as}") from None


def three_numbers(text: str) -> tuple[float, ...]:
    """Momentum at start, middle and end, as written after --moms."""
    try:
        values = tuple(float(part) for part in text.strip("()").split(","))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(0 <= value < 1 for value in values):
        raise UsageError(f"moms {text!r}: give three numbers in [0, 1), such as 0.95,0.85,0.95")
    return values


def option_matcher(shell: InteractiveShell, magics: dict[str, Callable]) -> Callable:
    """Completes our magics' options, and learners after -l; IPython by itself does neither."""

    @context_matcher()
    def nbfinetune_matcher(context: CompletionContext) -> SimpleMatcherResult:
        typed = context.line_with_cursor[: context.cursor_position]
        match = re.match(r"\s*(?:\w+\s*=\s*)?%(\w+)\s", typed)
        if not match or match[1] not in magics:
            return {"completions": []}
        if re.search(r"(-l|--learner)(\s+|=)\w*$", typed):
            words = learner_names(shell.user_ns)
        elif context.token.startswith("-"):
            words = ["-l", *options_of(magics[match[1]])]
        else:
            return {"completions": []}
        found = [SimpleCompletion(w, type="option") for w in words if w.startswith(context.token)]
        return {"completions": found, "suppress": bool(found)}

    return nbfinetune_matcher
