"""Loaders of a plain loop: checked by their first batch before a learner is made of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nbfinetune.data.datasets import even_loader
from nbfinetune.data.sources.data_sets import check_renamed, class_names
from nbfinetune.rendering.names import first_few, shown
from nbfinetune.runtime.rng import seeded_rng

# What batches that are dicts call inputs and targets, as those of Hugging Face do.
_INPUTS = ("pixel_values", "image", "images", "img", "x", "inputs")
_TARGETS = ("labels", "label", "y", "target", "targets")
_BS = 64  # of loaders that do not say theirs


@dataclass
class LoaderPair:
    """A training and a validation loader, with the class names."""

    train: object
    valid: object
    vocab: list[str]


class PairsOf:
    """A loader whose batches are dicts, as one of (inputs, targets)."""

    def __init__(self, loader: object, inputs: str, targets: str) -> None:
        self._loader, self._keys = loader, (inputs, targets)
        if hasattr(loader, "dataset"):
            self.dataset = loader.dataset

    def __len__(self) -> int:
        return len(self._loader)

    def as_validation(self) -> "PairsOf":
        """All items in their order."""
        bs, collate = (getattr(self._loader, name, None) for name in ("batch_size", "collate_fn"))
        plain = even_loader(self.dataset, bs or _BS, shuffle=False, collate_fn=collate)
        return PairsOf(plain, *self._keys)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            yield tuple(batch[key] for key in self._keys)


def loader_pair(train: object, valid: object, vocab: Sequence[str] | None) -> LoaderPair:
    """Both loaders and the class names, where their first batches are right.

    Parameters
    ----------
    vocab : None = the attribute `classes` of the training data

    Raises
    ------
    ValueError
        If one is no loader with a length, gives other than (inputs, targets), or has targets that
        are no class of the vocab.
    """
    data = [getattr(loader, "dataset", None) for loader in (train, valid)]
    there = class_names([part for part in data if part is not None])
    names = there if vocab is None else vocab
    if names is None:
        raise ValueError(
            "the data of train_loader has no class names (dataset.classes); pass them as "
            'vocab=["cat", "dog"]'
        )
    if isinstance(names, (str, bytes, Mapping)) or not hasattr(names, "__iter__"):
        raise ValueError(f"vocab is {shown(names)}; give the class names as a list")
    names = [str(name) for name in names]
    check_renamed(names, there)
    if not names:
        raise ValueError("vocab is empty; give the class names as a list")
    pair = [
        _checked(what, loader, len(names))
        for what, loader in (("train_loader", train), ("valid_loader", valid))
    ]
    return LoaderPair(*pair, names)


def _checked(what: str, loader: object, c: int) -> object:
    if isinstance(loader, Dataset):
        raise ValueError(
            f"{what} is a data set, a {type(loader).__name__}; pass DataLoader(data, batch_size=64)"
        )
    try:
        n = len(loader)
    except TypeError:
        raise ValueError(
            f"{what} is a {type(loader).__name__} without a length; pass a DataLoader of a data "
            "set that has one, or a list of batches"
        ) from None
    if isinstance(loader, (str, bytes, Mapping)) or not hasattr(loader, "__iter__"):
        raise ValueError(f"{what} is a {type(loader).__name__}; pass a DataLoader")
    if not n:
        raise ValueError(f"{what} has no batches")
    with seeded_rng(0):  # a loader that shuffles draws numbers
        batch = loader[0] if isinstance(loader, (list, tuple)) else next(iter(loader))
    if isinstance(batch, Mapping):
        loader, batch = _of_dicts(what, loader, batch)
    _check_batch(what, batch, c)
    return loader


def _of_dicts(what: str, loader: object, batch: Mapping) -> tuple[PairsOf, tuple]:
    keys = [next((k for k in known if k in batch), None) for known in (_INPUTS, _TARGETS)]
    if None in keys:
        there = first_few(list(map(str, batch)))
        raise ValueError(
            f"batches of {what} are dicts of {there}; which are inputs and targets is not known: "
            "give (inputs, targets), as by a collate_fn"
        )
    return PairsOf(loader, *keys), tuple(batch[key] for key in keys)


def _check_batch(what: str, batch: object, c: int) -> None:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        n = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise ValueError(f"a batch of {what} is {n}; it must be (inputs, targets)")
    x, y = batch
    for name, part in (("inputs", x), ("targets", y)):
        if not isinstance(part, Tensor):
            kind = "a NumPy array" if isinstance(part, np.ndarray) else f"a {type(part).__name__}"
            raise ValueError(f"{name} of {what} are {kind}; they must be tensors")
    if len(x) != len(y):
        raise ValueError(f"a batch of {what} has {len(x)} inputs and {len(y)} targets")
    if y.is_floating_point():
        if y.shape[1:] != (c,):
            raise ValueError(
                f"targets of {what} are {y.dtype} of shape {list(y.shape)}; they must be class "
                f"indices, whole numbers [n], or labels [n, {c}]"
            )
        return
    if y.ndim != 1 or y.dtype != torch.int64:
        hint = ".squeeze(1)" if y.ndim == 2 and y.shape[1] == 1 else ".long()"
        raise ValueError(
            f"targets of {what} are {y.dtype} of shape {list(y.shape)}; they must be int64 [n]: "
            f"targets{hint}"
        )
    if len(y) and (int(y.min()) < 0 or int(y.max()) >= c):
        raise ValueError(
            f"targets of {what} go from {int(y.min())} to {int(y.max())}, but vocab has {c} "
            f"classes, 0 to {c - 1}"
        )
