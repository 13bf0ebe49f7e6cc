"""Splits: which labelled items are held out, and whether enough are left to learn from."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

from nbfinetune.data.arguments import say
from nbfinetune.data.datasets import ImageDataset
from nbfinetune.data.sources.reading import read_files
from nbfinetune.images.duplicates import duplicate_notes, origin, same_items
from nbfinetune.images.files import subfolders
from nbfinetune.rendering.names import first_few, printable

WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+(\.0*)?")  # a float column of pandas has 1.0
_SIDES = (("train", "training"), ("valid", "val", "validation"))  # usual names of their folders
_SHOWN = 3  # parts of a path that name a picture: side, class and file
_UNEVEN = 3  # pictures of the largest class over those of a rare one; see benchmarks, Imbalance
TEST_FOLDERS = ("test", "testing")  # whose pictures are for later: neither side, and no class


def stratified(
    targets: Sequence[int], vocab: Sequence[str], valid_pct: float, seed: int
) -> set[int]:
    """The items held out: of every class the share `valid_pct`, but one at least, and never all.

    Raises
    ------
    ValueError
        If a class has one picture only: it cannot be on both sides.
    """
    members: dict[int, list[int]] = {t: [] for t in range(len(vocab))}
    for i, target in enumerate(targets):
        members[target].append(i)
    if lonely := [vocab[t] for t, items in members.items() if len(items) == 1]:
        raise ValueError(
            f"{len(lonely)} classes have a single picture ({first_few(lonely)}); a class needs "
            "two, one to train on and one held out: add pictures or leave the class out"
        )
    shuffled = random.Random(seed)
    held_out: set[int] = set()
    for items in members.values():
        shuffled.shuffle(items)
        n = int(len(items) * valid_pct + 0.5)
        held_out.update(items[: min(max(n, 1), len(items) - 1)])
    return held_out


def sorted_labels(labels: set[str]) -> list[str]:
    """In the order of the text; whole numbers, if all are, in that of their values."""
    if all(WHOLE_NUMBER.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (float(label), label))
    return sorted(labels)


def class_index(labels: set[str], of: set[str] = frozenset()) -> dict[str, int]:
    """The index of each class.

    Raises
    ------
    ValueError
        If one of the classes `of` is missing, as none of its pictures can be read: the network
        would not know it, and call its pictures something else.
    """
    if lost := sorted(of - labels):
        raise ValueError(
            f"no picture of {first_few(lost)} can be read, so the class would be missing; mend "
            "its pictures (check_images names them) or leave it out yourself"
        )
    return {name: t for t, name in enumerate(sorted_labels(labels))}


def split_labels(
    items: Sequence[int], labels: Sequence[str], valid_pct: float, seed: int
) -> list[bool]:
    """Whether each file is held out, of `items`, which are numbers of files."""
    index = class_index({labels[i] for i in items})
    targets = [index[labels[i]] for i in items]
    held_out = {items[k] for k in stratified(targets, list(index), valid_pct, seed)}
    return [i in held_out for i in range(len(labels))]


def read_parts(
    files: Sequence[Path],
    labels: Sequence[str],
    kept: Sequence[int],
    corrected: Sequence[str],
    split: Sequence[bool] | tuple[float, int],
    side: int,
    on_bad: str,
    notes: list[str],
) -> tuple[list[ImageDataset], list[str]]:
    """Training and validation pictures, decoded, and the class names.

    Parameters
    ----------
    files, labels : as they were given
    kept, corrected : the numbers of the files that stay, and the labels of all, by corrections
    split : for each file whether it is held out; or share and seed of a split of each class
    side, on_bad, notes : as in `read_files`
    """
    read, cache, _ = read_files([files[i] for i in kept], side, on_bad, notes)
    good = [kept[k] for k in read]
    index = class_index({corrected[i] for i in good}, of={corrected[i] for i in kept})
    if isinstance(split, tuple):
        # By the labels as they were: a correction moves no other picture to the other side.
        bad = set(kept).difference(good)
        split = split_labels([i for i in range(len(files)) if i not in bad], labels, *split)
    targets = [index[corrected[i]] for i in good]
    everything = ImageDataset([files[i] for i in good], targets, side, cache, read)
    places = [[k for k, i in enumerate(good) if split[i] == v] for v in (False, True)]
    return [everything.subset(part) for part in places], list(index)


def split_dataset(
    dataset: ImageDataset, vocab: Sequence[str], valid_pct: float, seed: int
) -> list[ImageDataset]:
    """Training and validation pictures of a data set; see `stratified`."""
    check_indices(dataset.targets, vocab)
    held_out = stratified(dataset.targets, vocab, valid_pct, seed)
    numbers = range(len(dataset))
    return [dataset.subset([i for i in numbers if (i in held_out) == side]) for side in (0, 1)]


def split_folders(root: Path, train: str, valid: str, notes: list[str]) -> tuple[Path, Path] | None:
    """The folders of a given split in `root`; None if it has none.

    Where they have not the names asked for, other usual ones are found: training, and val or
    validation, in any case.

    Raises
    ------
    ValueError
        If one of the two is there and the other is not.
    """
    try:
        folders = subfolders(root)
    except OSError:
        return None  # whoever lists the pictures says why
    found = [_called(folders, name, _SIDES[k]) for k, name in enumerate((train, valid))]
    if found[1] is None and found[0] != train:  # Training alone may be a class
        return None
    others = first_few([name for name in folders if name not in found]) or "nothing else"
    if found[0] is None:
        raise ValueError(
            f"{printable(root)} has a folder {found[1]!r} but none named {train!r} (it has: "
            f"{others}); pass train=NAME, or another valid=NAME if {found[1]!r} is a class"
        )
    if found[1] is None:
        raise ValueError(
            f"{printable(root)} has a folder {found[0]!r} but none named {valid!r} (it has: "
            f"{others}); pass valid=NAME, or, if {found[0]!r} is a class, another train=NAME, or "
            f"pass {str(root / found[0])!r} to split that"
        )
    unused = [name for name in folders if name not in found and name.lower() not in TEST_FOLDERS]
    if unused:
        say(notes, f"{first_few(unused)} beside {found[0]} and {found[1]} is not read")
    return root / found[0], root / found[1]


def _called(folders: Sequence[str], name: str, usual: Sequence[str]) -> str | None:
    """The folder of this name; or, if the name is a usual one, one of another usual name."""
    if name in folders:
        return name
    same = usual if name in usual else ()
    return next((f for other in same for f in folders if f.lower() == other), None)


def check_indices(targets: Sequence[int], vocab: Sequence[str]) -> None:
    """Refuse class indices that are none of the vocab."""
    if outside := sorted(t for t in set(targets) if not 0 <= t < len(vocab)):
        raise ValueError(f"class index {outside[0]} is outside the vocab of {len(vocab)} classes")


def check_split(train: ImageDataset, valid: ImageDataset, vocab: Sequence[str]) -> None:
    """Every class needs a picture to learn from, and both sides need pictures."""
    if not len(train) or not len(valid):
        raise ValueError(f"{len(train)} train and {len(valid)} valid pictures; both need some")
    check_indices((*train.targets, *valid.targets), vocab)
    found = {"train": set(train.targets), "valid": set(valid.targets)}
    if unseen := sorted(found["valid"] - found["train"]):
        raise ValueError(
            f"no train pictures of {first_few([vocab[t] for t in unseen])}, which the valid set has"
        )


def split_notes(train: ImageDataset, valid: ImageDataset, vocab: Sequence[str]) -> list[str]:
    """What is doubtful about a split: pictures that are there twice, classes without pictures.

    Classes that have none to train on may be right: a vocab that is shared with other data.
    """
    items = [origin(part.items, i)[1] for part in (train, valid) for i in range(len(part))]
    files = [part.path(i) for part in (train, valid) for i in range(len(part))]
    digests = [*(train.digests or items), *(valid.digests or items)]
    notes = duplicate_notes(
        same_items(digests, files),
        lambda k: f"item {items[k]}" if files[k] is None else "/".join(files[k].parts[-_SHOWN:]),
        [vocab[t] for t in (*train.targets, *valid.targets)],
        [False] * len(train) + [True] * len(valid),
    )
    sides = {
        "to train on: they are never predicted": set(train.targets),
        "held out: errors on them are not counted": set(valid.targets),
    }
    for what, seen in sides.items():
        if unseen := [name for t, name in enumerate(vocab) if t not in seen]:
            notes.append(f"{len(unseen)} classes have no pictures {what} ({first_few(unseen)})")
    return notes


def imbalance_text(counts: Sequence[int], vocab: Sequence[str]) -> str:
    """How uneven the classes are, and from three to one on what that means and what to type.

    Parameters
    ----------
    counts : training pictures of each class
    """
    largest, smallest = max(counts), max(min(counts), 1)
    text = f"largest class has {largest / smallest:.1f} x the smallest"
    if largest < _UNEVEN * smallest:
        return text
    rare = sorted((n, t) for t, n in enumerate(counts) if largest >= _UNEVEN * n)
    return (
        f"{text} ({first_few([f'{vocab[t]} {n}' for n, t in rare])}): the rare are predicted less "
        "often than they are there; where an error on them counts as much as on the others, use "
        "vision_learner(..., logit_adjustment=True, metrics=balanced_accuracy)"
    )
