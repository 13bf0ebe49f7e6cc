"""Splits: which labelled items are held out, and whether enough are left to learn from."""

import random
from collections.abc import Sequence

from nbfinetune.data.datasets import ImageDataset, first_few


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


def sorted_labels(labels: set[str | int]) -> list[str | int]:
    """Numbers before names."""
    return sorted(labels, key=lambda v: (isinstance(v, str), v))


def split_labels(
    items: Sequence[int], labels: Sequence[str | int], valid_pct: float, seed: int
) -> set[int]:
    """Those of `items`, which are numbers of files, that are held out."""
    names = sorted_labels({labels[i] for i in items})
    index = {name: t for t, name in enumerate(names)}
    targets = [index[labels[i]] for i in items]
    return {items[k] for k in stratified(targets, [str(n) for n in names], valid_pct, seed)}


def check_split(train: ImageDataset, valid: ImageDataset, vocab: Sequence[str]) -> None:
    """Every class needs a picture to learn from, and both sides need pictures."""
    if not len(train) or not len(valid):
        raise ValueError(f"{len(train)} train and {len(valid)} valid pictures; both need some")
    found = {"train": set(train.targets), "valid": set(valid.targets)}
    if outside := sorted(t for t in found["train"] | found["valid"] if not 0 <= t < len(vocab)):
        raise ValueError(f"class index {outside[0]} is outside the vocab of {len(vocab)} classes")
    if unseen := sorted(found["valid"] - found["train"]):
        raise ValueError(
            f"no train pictures of {first_few([vocab[t] for t in unseen])}, which the valid set has"
        )
