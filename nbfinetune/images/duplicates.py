"""Duplicates: files with the same bytes, and what they do to labels and split.

Only files of equal size are read, and more than a block of each only where the blocks are equal.
"""

import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from torch.utils.data import ConcatDataset, Subset

from nbfinetune.rendering.names import first_few

_BLOCK = 4096  # bytes from the middle of a file: its beginning is often that of its camera or tool


def origin(items: Sequence, i: int) -> tuple[Sequence, int]:
    """The data set, and the number in it, that item i of parts and rows of data sets comes from."""
    while True:
        if isinstance(items, Subset):
            items, i = items.dataset, int(items.indices[i])
        elif isinstance(items, ConcatDataset):
            part = bisect_right(items.cumulative_sizes, i)
            i -= items.cumulative_sizes[part - 1] if part else 0
            items = items.datasets[part]
        else:
            return items, i


def same_items(digests: Sequence[Hashable], files: Sequence[Path | None]) -> list[list[int]]:
    """As `same_files`, of items of data sets: by files where all have one, else by digests."""
    if None not in files:
        return same_files(files)
    places: dict[Hashable, list[int]] = defaultdict(list)
    for k, digest in enumerate(digests):
        places[digest].append(k)
    return [same for same in places.values() if len(same) > 1]


def same_files(files: Sequence[Path]) -> list[list[int]]:
    """The numbers of files that hold the same bytes, in groups of two or more.

    A file that is named twice, or by a link, is one of the same bytes. Files that cannot be read,
    or are empty, are in no group.
    """
    places: dict[tuple, list[int]] = defaultdict(list)
    for i, file in enumerate(files):
        try:
            found = os.stat(file)
        except (OSError, ValueError):
            continue
        if found.st_size:
            places[found.st_size, found.st_dev, found.st_ino].append(i)
    groups = _grouped(list(places.values()), list(places), lambda place: place[0])
    for read in (_middle, _digest):
        groups = [
            part
            for group in groups
            for part in _grouped(group, [files[same[0]] for same in group], read)
        ]
    merged = [sorted(i for same in group for i in same) for group in groups]
    grouped = {i for group in merged for i in group}
    merged += [same for same in places.values() if len(same) > 1 and same[0] not in grouped]
    return sorted(merged)


def _grouped(
    items: Sequence[list[int]], of: Iterable, key: Callable[..., Hashable | None]
) -> list[list[list[int]]]:
    """The items whose keys, each of one of `of`, are equal, where these are two or more."""
    groups: dict[Hashable, list[list[int]]] = defaultdict(list)
    for item, thing in zip(items, of, strict=True):
        if (value := key(thing)) is not None:
            groups[value].append(item)
    return [group for group in groups.values() if len(group) > 1]


def _middle(file: Path) -> bytes | None:
    try:
        with open(file, "rb") as content:
            content.seek(max(0, os.fstat(content.fileno()).st_size - _BLOCK) // 2)
            return content.read(_BLOCK)
    except OSError:
        return None


def _digest(file: Path) -> bytes | None:
    try:
        with open(file, "rb") as content:
            digest = blake2b()
            while block := content.read(2**20):
                digest.update(block)
            return digest.digest()
    except OSError:
        return None


def duplicate_notes(
    groups: Sequence[Sequence[int]],
    names: Callable[[int], str],
    labels: Sequence[str],
    held_out: Sequence[bool],
) -> list[str]:
    """What is wrong with pictures that are the same, one text for each kind of wrong.

    None is refused, and none left out: a class may be given more weight by naming its pictures
    twice, and which of two labels is right is the user's to say.

    Parameters
    ----------
    groups : the numbers of pictures that are the same
    names : the name of a picture by its number
    labels, held_out : of each picture
    """
    leaks, conflicts, repeats = [], [], []
    for group in groups:
        kinds, sides = sorted({labels[i] for i in group}), {held_out[i] for i in group}
        if len(sides) > 1:
            pair = [next(i for i in group if held_out[i] == side) for side in (False, True)]
            leaks.append(" = ".join(dict.fromkeys(map(names, pair))))
        if len(kinds) > 1:
            conflicts.append(f"{names(group[0])}: {' and '.join(kinds)}")
        if len(sides) == len(kinds) == 1:
            repeats.append(" = ".join(dict.fromkeys(names(i) for i in group[:2])))
    notes = []
    if leaks:
        notes.append(
            f"{len(leaks)} pictures are the same in train and in valid ({first_few(leaks)}): "
            "what is learned by heart counts as right; leave one side out"
        )
    if conflicts:
        notes.append(
            f"{len(conflicts)} pictures have several labels, twice there or under two names "
            f"({first_few(conflicts)}); leave the wrong ones out"
        )
    if repeats:
        notes.append(
            f"{len(repeats)} pictures are there twice or more in one class on one side "
            f"({first_few(repeats)}), and count as often; leave the others out if not meant"
        )
    return notes
