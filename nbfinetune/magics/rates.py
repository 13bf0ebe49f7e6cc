"""Magic rates: what a learning rate written in a magic line stands for."""

import math
import re
from collections.abc import Mapping

from IPython.core.error import UsageError

from nbfinetune.lr_finder.results import LRFindComparison, LRFindResult
from nbfinetune.lr_finder.suggestions import NAMES
from nbfinetune.magics.lines import LR_HELP
from nbfinetune.networks.layer_groups import lr_text

_ONE_EACH = "%lr_find --groups found a rate for each group: write @ or @/10"


def parse_lr(
    text: str, scope: Mapping[str, object], found: LRFindResult | LRFindComparison | None = None
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
    usage = f"learning rate {text!r}: give {LR_HELP}".replace("%%", "%")
    if text.isidentifier():
        if text not in scope:
            raise UsageError(f"no variable {text!r}; {usage}")
        return scope[text]
    ends = text.split(":") if ":" in text else None
    if match := re.fullmatch(r"slice\((.*)\)", text):
        ends = match[1].split(",")
    if ends is None:
        ends = [text]
    try:
        values = [_one_rate(end, scope, found) for end in ends]
    except (ValueError, ZeroDivisionError):
        raise UsageError(usage) from None
    if ends == [text]:
        return values[0]
    if len(values) > 2:
        raise UsageError(usage)
    if any(isinstance(value, slice) for value in values):
        raise UsageError(f"{text!r}: %lr_find found {lr_text(found.lr)}: write @ or @/10")
    return slice(*values)


def _one_rate(
    text: str, scope: Mapping[str, object], found: LRFindResult | None
) -> float | slice | None:
    if text == "None":
        return None
    if text in scope:
        return scope[text]
    if not text.startswith("@"):
        return float(text)
    name, _, divisor = text[1:].partition("/")
    if found is None:
        raise UsageError(f"{text!r} is what %lr_find found, but it was not run for this learner")
    if isinstance(found, LRFindComparison):
        raise UsageError(f"{text!r}: {_ONE_EACH}")
    if found.lr is None and not name and found.advised is not None:
        return found.advised / float(divisor or 1)
    if found.lr is None:
        raise UsageError(f"{text!r}: %lr_find found no rate: {found.verdict}")
    known = [*(["verified"] if found.verified else []), *NAMES]
    if name and name not in known:
        raise UsageError(f"{text!r}: %lr_find suggests {', '.join(known)}")
    rate = found.rate(name) if name else found.lr
    if isinstance(rate, slice):
        return slice(rate.start / float(divisor or 1), rate.stop / float(divisor or 1))
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
