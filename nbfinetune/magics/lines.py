"""Magic lines: the learner and the options that they name, and how they are completed."""

import re
import sys
from collections.abc import Callable
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
    from nbfinetune.learner import Learner

LR_HELP = (
    "3e-3, 1e-6:1e-4 or slice(1e-6,1e-4) (first group to head), a variable, or @, @/10, @valley "
    "(what %lr_find found last)"
)


def option(name: str, **kwargs) -> Callable:
    """An option that may be written with hyphens or underscores."""
    both = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
    return argument(*both, **kwargs)


static_arg = option("no-widgets", action="store_true", help="tables and pictures, no widgets")
learner_arg = argument("-l", "--learner", metavar="NAME", help="the learner's variable")


def parse_line(magic: Callable, line: str, user_ns: dict) -> "tuple[Learner, dict, bool]":
    """The learner, the options that were given, and whether a semicolon asks for silence."""
    args, quiet = parse_options(magic, line)
    return find_learner(user_ns, args.pop("learner", None)), args, quiet


def parse_options(magic: Callable, line: str) -> tuple[dict, bool]:
    """The options that were given, and whether a semicolon asks for silence."""
    line = re.sub(r"(^|\s)#.*$", "", line).strip()
    quiet = line.endswith(";")
    line = re.sub(r"\([^)]*\)", lambda m: m[0].replace(" ", ""), line.rstrip("; "))
    args = vars(parse_argstring(magic, line))
    return {k: v for k, v in args.items() if v is not None}, quiet


def find_learner(user_ns: dict, name: str | None) -> "Learner":
    """The learner called `name`; without one `learn`, else the only one there is.

    Raises
    ------
    UsageError
        If there is none or no single one; the message lists those there are.
    """
    learners = learner_names(user_ns)
    there = f"learners here: {', '.join(learners)}" if learners else "there is no learner here"
    if name is not None:
        if name not in user_ns:
            raise UsageError(f"no variable {name!r}; {there}")
        if not _is_learner(user_ns[name]):
            kind = type(user_ns[name]).__name__
            raise UsageError(f"{name!r} is a {kind}, not a Learner; {there}")
        return user_ns[name]
    if _is_learner(user_ns.get("learn")):
        return user_ns["learn"]
    distinct = {id(user_ns[n]): user_ns[n] for n in learners}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not learners:
        raise UsageError(f"{there}; make one: learn = vision_learner(dls, 'resnet34')")
    raise UsageError(f"{there}; say which: -l {learners[0]}")


def learner_names(user_ns: dict) -> list[str]:
    """The variables that hold a learner; IPython's `_` and `_1` are left out."""
    return [k for k, v in user_ns.items() if _is_learner(v) and not k.startswith("_")]


def _is_learner(value: object) -> bool:
    # Where nothing imported the class there is none of it: no line imports torch to look for one.
    learner = sys.modules.get("nbfinetune.learner")
    return isinstance(value, getattr(learner, "Learner", ()))


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
            parser = magics[match[1]].parser
            words = [o for a in parser._actions for o in a.option_strings[:1] if o != "-h"]
            words += ["--learner"]
        else:
            return {"completions": []}
        found = [SimpleCompletion(w, type="option") for w in words if w.startswith(context.token)]
        return {"completions": found, "suppress": bool(found)}

    return nbfinetune_matcher
