"""Arguments: what public functions are given, as plain Python values or refused in one form.

Each refusal says what was found, what is allowed and, where it helps, what to type.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, signature
from math import inf, isnan
from numbers import Integral, Real
from os import PathLike, fsdecode
from pathlib import Path

from nbfinetune.rendering.names import shown

_MOST_INCHES = 60  # of a figure: 6,000 px
_COLUMNS = 5  # of pictures in a row
# What other libraries call an option, where the spelling does not show which is meant.
_OPTIONS_ELSEWHERE = {
    "batch_size": "bs",
    "img_size": "size",
    "image_size": "size",
    "item_tfms": "size",  # fastai's Resize(224)
    "batch_tfms": "aug",  # fastai's aug_transforms()
    "splitter": "valid_pct",
}


def as_list(values: Iterable, name: str) -> list:
    """The values once, by position, scalars of numpy and torch as Python's.

    A pandas index is of no account: it is often what a filter or a shuffle has left.

    Raises
    ------
    ValueError
        For what has no order (sets), no single dimension, or is no sequence at all. A dictionary
        is refused too: whether its keys or its values are meant is not known.
    """
    if isinstance(values, (str, bytes, PathLike, set, frozenset, Mapping)):
        raise ValueError(f"{name} is a {type(values).__name__}; give a list, in the files' order")
    if getattr(values, "ndim", 1) != 1:
        raise ValueError(f"{name} has the shape {tuple(values.shape)}; it must have one dimension")
    if hasattr(values, "tolist"):
        return [plain(value) for value in values.tolist()]
    try:
        return [plain(value) for value in values]
    except TypeError:
        kind = type(values).__name__
        raise ValueError(f"{name} is a {kind}; give a list, one for each picture") from None


def plain(value: object) -> object:
    """A scalar of numpy or torch as Python's."""
    scalar = getattr(value, "ndim", None) == 0 and hasattr(value, "item")
    return value.item() if scalar else value


def is_missing(value: object) -> bool:
    """Whether a value says that there is none: None, NaN, NA, NaT, or text of blanks alone."""
    if isinstance(value, str):
        return not value.strip()
    # pandas is no dependency, and its NA cannot be compared.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and value != value


def as_files(values: Iterable, name: str) -> list[Path]:
    """File names as paths; see `as_list`."""
    files = as_list(values, name)
    for i, value in enumerate(files):
        if is_missing(value) or not isinstance(value, (str, bytes, PathLike)):
            raise ValueError(f"{name}[{i}] is {shown(value)}; it must be the name of a file")
    return [Path(fsdecode(value)) for value in files]


def as_path(value: str | PathLike, name: str) -> Path:
    """An absolute path."""
    if is_missing(value) or not isinstance(value, (str, PathLike)) or "\0" in str(value):
        raise ValueError(f"{name} is {shown(value)}; it must be a path, such as 'photos'")
    try:
        return Path(value).expanduser().absolute()
    except (RuntimeError, TypeError) as error:  # an unknown ~user; a path of bytes
        raise ValueError(f"{name} is {shown(value)}: {error}; give it in full") from None


def check_text(**texts: str | PathLike) -> None:
    """Refuse options that are no text and no path."""
    for name, value in texts.items():
        if not isinstance(value, (str, PathLike)):
            raise ValueError(f"{name} is {shown(value)}; it must be text")


def as_share(name: str, value: float) -> float:
    """A share of a whole."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < 1:
        raise ValueError(f"{name} is {shown(value)}; it must lie between 0 and 1, such as 0.2")
    return float(value)


def as_whole_number(name: str, value: int, least: float = -inf, most: float = inf) -> int:
    """A whole number, of numpy or torch too, but no truth value and no text."""
    value = plain(value)
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        span = "" if least == -inf else f" from {least} {'up' if most == inf else f'to {most}'}"
        raise ValueError(f"{name} is {shown(value)}; it must be a whole number{span}")
    return int(value)


def known_options(*more: str) -> Callable[[Callable], Callable]:
    """Decorate a function so that it refuses options it has not, naming the nearest it has.

    Parameters
    ----------
    *more : the options that it takes beside its named parameters
    """

    def decorate(function: Callable) -> Callable:
        named = [p.name for p in signature(function).parameters.values()
                 if p.kind is not Parameter.VAR_KEYWORD]  # fmt: skip
        known = [*named[1:], *more]

        @wraps(function)
        def checked(*args: object, **options: object) -> object:
            for name in options:
                if name not in known:
                    near = [_OPTIONS_ELSEWHERE.get(name), *get_close_matches(name, known, 1)]
                    meant = [other for other in near if other in known]
                    hint = f"did you mean {meant[0]}? " if meant else ""
                    raise TypeError(
                        f"{function.__name__} has no option {name!r}; {hint}"
                        f"it has {', '.join(known)}"
                    )
            return function(*args, **options)

        return checked

    return decorate


def is_number(value: object) -> bool:
    """Whether a value is a real number, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_number(what: str, value: object, low: float, high: float, *, such_as: object) -> None:
    """Raise ValueError unless low <= value < high."""
    if not is_number(value) or isnan(value) or not low <= value < high:
        span = f"from {low:g} up" if high == inf else f"from {low:g} to below {high:g}"
        raise ValueError(f"{what} is {shown(value)}; it must be a number {span}, such as {such_as}")


def as_figsize(figsize: object) -> tuple[float, float] | None:
    """Width and height in inches; None is left as it is."""
    if figsize is None:
        return None
    sides = list(figsize) if isinstance(figsize, (list, tuple)) else []
    if len(sides) != 2:
        raise ValueError(f"figsize is {shown(figsize)}; give width and height, such as (8, 8)")
    for name, side in zip(("width", "height"), sides, strict=True):
        check_number(f"the {name} in figsize", side, 1, _MOST_INCHES + 1, such_as=8)
    return float(sides[0]), float(sides[1])


def as_columns(n: int, nrows: int | None, ncols: int | None) -> int:
    """Columns for n pictures; rows alone give as many as they need, and none of both up to 5."""
    rows, columns = (
        None if value is None else as_whole_number(name, value, 1)
        for name, value in (("nrows", nrows), ("ncols", ncols))
    )
    if columns is not None:
        return min(columns, max(n, 1))
    return max(min(n, _COLUMNS) if rows is None else -(-n // rows), 1)


def check_bool(**values: bool) -> None:
    """Refuse options that are no truth value."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {shown(value)}; it must be True or False")


def users_line() -> int:
    """The `stacklevel` of a warning in the function that calls this, for the user's line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("nbfinetune."):
        frame, level = frame.f_back, level + 1
    return level
