"""Arguments: what users give for files, labels and options, as plain Python values or refused."""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from numbers import Integral
from os import PathLike
from pathlib import Path

from nbfinetune.arguments import (
    as_list,
    as_share,
    as_whole_number,
    is_missing,
    plain,
    users_line,
)
from nbfinetune.rendering.names import first_few, printable, shortened, shown

# What a column or list may say of a picture, lower case; "1.0" is 1 after a merge of pandas tables.
_HELD_OUT = ("1", "true", "yes", "valid", "val", "validation", "t", "y", "1.0")
_TRAINED = ("0", "false", "no", "train", "training", "f", "n", "0.0")
# C:/ is none; Path("https://a/b") has one slash left.
_URL = re.compile("([a-z][a-z0-9+.-]+:/|data:image/)", re.IGNORECASE)
_LARGEST = 8192  # px: a batch of one picture is then 0.8 GB of floats


def say(notes: list[str], text: str) -> None:
    """Warn, in the user's line rather than in ours, and keep the text for `dls.warnings`."""
    notes.append(printable(text))
    warnings.warn(printable(text), stacklevel=users_line())


def as_labels(values: Iterable, files: Sequence[Path | str]) -> list[str]:
    """The class name of each file, or of other pictures with a name: its label as text.

    Whole numbers may come as floats, as they do from pandas columns that had gaps. Others are
    refused: as classes they would be told apart, but not be near each other. So are labels that
    are missing, and numbers beside texts of the same name: one class or two, nobody can tell.

    Raises
    ------
    ValueError
        Naming the files.
    """
    labels = as_list(values, "labels")
    if not len(files) == len(labels) > 0:
        raise ValueError(f"{len(files)} files but {len(labels)} labels; give one for each")
    pairs = list(zip(files, labels, strict=True))
    if missing := [f"{shown(label)} for {file}" for file, label in pairs if is_missing(label)]:
        raise ValueError(
            f"{len(missing)} of {len(labels)} pictures have no label: {first_few(missing)}; "
            "give them labels or leave them out"
        )
    if odd := [f"{shown(label)} for {file}" for file, label in pairs if not _is_label(label)]:
        raise ValueError(
            f"{len(odd)} labels are neither names nor whole numbers: {first_few(odd)}; "
            "give the name of a class as text, such as str(label)"
        )
    texts = {label for label in labels if isinstance(label, str)}
    names = [str(int(v)) if isinstance(v, float) else str(v) for v in labels]
    both = [n for n, v in zip(names, labels, strict=True) if not isinstance(v, str) and n in texts]
    if both:
        raise ValueError(
            f"labels that are numbers have the names of labels that are texts: "
            f"{first_few(sorted(set(both)))}; give all as text: [str(label) for label in labels]"
        )
    return names


def _is_label(value: object) -> bool:
    return isinstance(value, (str, int)) or (isinstance(value, float) and value.is_integer())


def as_marks(
    values: Iterable, n: int, name: Callable[[int], str] = "is_valid[{}]".format
) -> list[bool]:
    """Which of n pictures are held out, of truth values, 0 and 1 or the usual words.

    Without a word for "trained on" an empty text is one: a column in which only the pictures held
    out are marked. Beside such words it is a gap, and refused.
    """
    marks = as_list(values, "is_valid")
    if len(marks) != n:
        raise ValueError(f"{n} files but {len(marks)} values in is_valid")
    words = [str(mark).strip().lower() for mark in marks]
    trained = _TRAINED if any(word in _TRAINED for word in words) else (*_TRAINED, "")
    for i, word in enumerate(words):
        if word not in _HELD_OUT and word not in trained:
            raise ValueError(
                f"{name(i)} is {shown(marks[i])}, which is neither held out (True, 1, "
                f"{', '.join(_HELD_OUT[2:6])}) nor trained on (False, 0, "
                f"{', '.join(_TRAINED[2:5])}); write one of them, or leave the picture out"
            )
    return [word in _HELD_OUT for word in words]


def check_no_url(file: str | PathLike) -> None:
    """Refuse an address: what is to be predicted is on this machine."""
    if _URL.match(str(file)) and not os.path.exists(file):
        raise ValueError(
            f"{shortened(file)} is a URL, and nothing is downloaded; pass a file or a picture"
        )


class InvalidItem(ValueError):
    """An item of a data set that is no (picture, class index)."""


def as_item(item: object, i: int) -> tuple[object, int]:
    """Picture and class index of item i of a data set.

    Raises
    ------
    InvalidItem
        For items of another form, and labels that are no whole numbers: texts, one-hot vectors,
        fractions. They are refused whatever `on_bad` is, as no picture is at fault.
    """
    wanted = "items must be (picture, class index)"
    if isinstance(item, Mapping):
        keys = first_few(list(item))
        raise InvalidItem(f"item {i} is a {type(item).__name__} with the keys {keys}; {wanted}")
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise InvalidItem(f"item {i} is a {type(item).__name__}{size}; {wanted}")
    picture, label = item[0], plain(item[1])
    if getattr(label, "shape", None) == (1,):  # as MedMNIST has them
        label = label.item()
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, Integral) or label < 0:
        shape = getattr(label, "shape", None)
        what = f"of shape {tuple(shape)}" if shape is not None else shown(label)
        raise InvalidItem(
            f"item {i} has the label {what}, which is no class index; {wanted}, such as "
            "(picture, 3), with the names in vocab="
        )
    return picture, int(label)


def as_vocab(values: Iterable) -> list[str]:
    """The class names, which must be told apart."""
    if isinstance(values, (str, bytes, Mapping, Set)):
        what = type(values).__name__
        raise ValueError(f"vocab is a {what}; give a list, in the order of the class indices")
    names = as_list(values, "vocab")
    if missing := [i for i, name in enumerate(names) if is_missing(name)]:
        raise ValueError(f"vocab[{missing[0]}] is {shown(names[missing[0]])}; give it a name")
    names = [str(name) for name in names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"vocab has twice: {first_few(twice)}; each class needs a name of its own")
    return names


def check_one_split(options: Mapping, split: Mapping) -> None:
    """Refuse `is_valid` where folders or a column say what is held out."""
    if split and "is_valid" in options:
        raise ValueError("is_valid is given, but the data has a split of its own; leave it out")


def as_split(is_split: bool, valid_pct: float | None, seed: int | None) -> tuple[float, int] | None:
    """Share and seed of what is held out; None where the data is split already."""
    for name, value in (("valid_pct", valid_pct), ("seed", seed)):
        if is_split and value is not None:
            raise ValueError(f"{name} is given, but so is valid, which is held out; leave one out")
    if is_split:
        return None
    share = as_share("valid_pct", 0.2 if valid_pct is None else valid_pct)
    return share, as_whole_number("seed", 42 if seed is None else seed)


def as_sizes(size: int, bs: int, num_workers: int | None) -> tuple[int, int, int | None]:
    """The three as whole numbers that are possible."""
    workers = None if num_workers is None else as_whole_number("num_workers", num_workers, 0)
    if as_whole_number("size", size, 1) > _LARGEST:
        raise ValueError(f"size is {size}; it must be at most {_LARGEST}, and is usually 224")
    return as_whole_number("size", size, 1), as_whole_number("bs", bs, 1), workers


def check_choices(aug: object, on_bad: str) -> None:
    """Refuse unknown values of `aug` and `on_bad`."""
    if not isinstance(on_bad, str) or on_bad not in ("error", "skip"):
        raise ValueError(f'on_bad is {shown(on_bad)}; it must be "error" or "skip"')
    if not isinstance(aug, bool) and not callable(aug):
        raise ValueError(f"aug is {shown(aug)}; it must be True, False or a function of a picture")
