"""Loader views: what loaders hold, as pictures and as a table."""

from collections import Counter
from random import SystemRandom
from typing import Protocol

import torch
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from nbfinetune.arguments import as_columns, as_whole_number
from nbfinetune.data.splits import imbalance_text
from nbfinetune.data.transforms import Augment, ImageTransforms
from nbfinetune.rendering.tables import PictureSheet, Table
from nbfinetune.runtime.rng import seeded_rng


class Loaders(Protocol):
    """What is needed of `ImageDataLoaders`."""

    train: DataLoader
    valid: DataLoader
    vocab: list[str]
    size: int
    bs: int
    aug: Augment
    warnings: list[str]


def show_batch(
    dls: Loaders, max_n: int = 9, *, nrows: int | None = None, ncols: int | None = None
) -> PictureSheet:
    """Up to `max_n` training pictures as the network gets them, with their classes.

    Parameters
    ----------
    nrows, ncols : rows and columns of the sheet; default: as many columns as there is room for
    """
    max_n = as_whole_number("max_n", max_n, 0)
    columns = None if nrows is ncols is None else as_columns(max_n, nrows, ncols)
    if nrows is not None and ncols is not None:
        max_n = min(max_n, nrows * ncols)
    dataset = dls.train.dataset
    with seeded_rng(SystemRandom().getrandbits(32)):  # the user's random numbers stay
        chosen = torch.randperm(len(dataset))[:max_n].tolist()
        images, _ = dataset.batch(chosen)
        shown = ImageTransforms(dls.size, aug=dls.aug).augment(images)
    captions = [dls.vocab[dataset.targets[i]] for i in chosen]
    return PictureSheet([F.to_pil_image(picture) for picture in shown], captions, columns)


def summary(dls: Loaders) -> Table:
    """Pictures of each class on both sides of the split, their shape, imbalance, warnings."""
    counts = [Counter(loader.dataset.targets) for loader in (dls.train, dls.valid)]
    rows = [(name, str(counts[0][i]), str(counts[1][i])) for i, name in enumerate(dls.vocab)]
    totals = [str(len(loader.dataset)) for loader in (dls.train, dls.valid)]
    sizes = [counts[0][i] for i in range(len(dls.vocab))]
    shape = f"batches of up to {dls.bs} x 3 x {dls.size} x {dls.size}"
    return Table(
        f"{len(dls.vocab)} classes; {shape}",
        ("class", "train", "valid"),
        [*rows, ("all", *totals), *((f"warning: {text}",) for text in dls.warnings)],
        imbalance_text(sizes, dls.vocab),
    )
