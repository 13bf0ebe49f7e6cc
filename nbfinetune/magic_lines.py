"""Magic lines: what their words mean (a learner, a learning rate), and how they are completed."""

import math
import re
from collections.abc import Callable

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic_arguments import argument, parse_argstring

from nbfinetune.learner import Learner
from nbfinetune.lr_results import LRFindComparison, LRFindResult
from nbfinetune.suggestions import NAMES

LR_HELP = (
    "3e-3, 1e-6:1e-4 or slice(1e-6,1e-4) (first group to head), a variable, or @, @/10, @valley "
    "(what %lr_find found last)"
)


_ONE_EACH = "%lr_find --groups found a rate for each group: write @ or @/10"


def option(name: str, **kwargs) -> Callable:
    """An option that may be written with hyphens or underscores."""
    both = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
    return argument(*both, **kwargs)


static_arg = option("no-widgets", action="store_true", help="tables and pictures, no widgets")
learner_arg = argument("-l", "--learner", metavar="NAME", help="the learner's variable")


def parse_line(magic: Callable, line: str, user_ns: dict) -> tuple[Learner, dict, bool]:
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


def find_learner(user_ns: dict, name: str | None) -> Learner:
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
        if not isinstance(user_ns[name], Learner):
            kind = type(user_ns[name]).__name__
            raise UsageError(f"{name!r} is a {kind}, not a Learner; {there}")
        return user_ns[name]
    if isinstance(user_ns.get("learn"), Learner):
        return user_ns["learn"]
    distinct = {id(user_ns[n]): user_ns[n] for n in learners}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not learners:
        raise UsageError(f"{there}; make one: learn = vision_learner(dls, 'resnet34')")
    raise UsageError(f"{there}; say which: -l {learners[0]}")


def learner_names(user_ns: dict) -> list[str]:
    """The variables that hold a learner; IPython's `_` and `_1` are left out."""
    return [k for k, v in user_ns.items() if isinstance(v, Learner) and not k.startswith("_")]


def parse_lr(
    text: str, user_ns: dict, found: LRFindResult | LRFindComparison | None = None
) -> float | slice | list | tuple:
    """A learning rate as written in a magic: a number, LO:HI, slice(LO,HI), slice(HI), a variable.

    In place of a number `@` is the rate that was found, `@valley` one suggestion, `@/10` a tenth.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if text.startswith("@") and isinstance(found, LRFindComparison):
        return _group_rates(text, found)
    usage = f"learning rate {text!r}: give {LR_HELP}"
    if text.isidentifier():
        if text not in user_ns:
            raise UsageError(f"no variable {text!r}; {usage}")
        return user_ns[text]
    ends = text.split(":") if ":" in text else None
    if match := re.fullmatch(r"slice\((.*)\)", text):
        ends = match[1].split(",")
    if ends is None:
        ends = [text]
    try:
        values = [_one_rate(end, user_ns, found) for end in ends]
    except (ValueError, ZeroDivisionError):
        raise UsageError(usage) from None
    if ends == [text]:
        return values[0]
    if len(values) > 2:
        raise UsageError(usage)
    return slice(*values)


def _one_rate(text: str, user_ns: dict, found: LRFindResult | None) -> float | None:
    if text == "None":
        return None
    if text in user_ns:
        return user_ns[text]
    if not text.startswith("@"):
        return float(text)
    name, _, divisor = text[1:].partition("/")
    if found is None:
        raise UsageError(f"{text!r} is what %lr_find found, but it was not run for this learner")
    if isinstance(found, LRFindComparison):
        raise UsageError(f"{text!r}: {_ONE_EACH}")
    if found.lr is None:
        raise UsageError(f"{text!r}: %lr_find found no rate: {found.verdict}")
    known = [*(["verified"] if found.verified else []), *NAMES]
    if name and name not in known:
        raise UsageError(f"{text!r}: %lr_find suggests {', '.join(known)}")
    rate = found.rate(name) if name else found.lr
    if math.isnan(rate):
        raise UsageError(f"{text!r}: the curve of %lr_find is too short for that")
    return rate / float(divisor or 1)


def _group_rates(text: str, found: LRFindComparison) -> list[float]:
    """The rates of all layer groups that `@` or `@/10` stands for."""
    name, _, divisor = text[1:].partition("/")
    if name:
        raise UsageError(f"{text!r}: {_ONE_EACH}")
    if found.lr is None:
        raise UsageError(f"{text!r}: %lr_find found no rate for some layer groups")
    try:
        return [lr / float(divisor or 1) for lr in found.lr]
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{text!r}: cannot divide by {divisor!r}") from None


def three_numbers(text: str) -> tuple[float, ...]:
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
