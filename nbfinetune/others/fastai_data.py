"""fastai's data: its loaders as they are, with plain tensors, and the pictures of their items."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nbfinetune.data.datasets import UNLABELLED, PictureItems, even_loader
from nbfinetune.data.sources.prediction_sets import as_pictures
from nbfinetune.images.decoding import as_image
from nbfinetune.rendering.names import first_few, shortened, shown
from nbfinetune.runtime.rng import seeded_rng

_VALID = 1  # fastai's number of the validation transforms


class FastaiItems(PictureItems):
    """The pictures of a data set of fastai: its items' files, else what it gives as input.

    Attributes
    ----------
    labelled : whether items have labels, which those of fastai's `test_dl` may not
    """

    def __init__(self, dataset: object) -> None:
        lists = getattr(dataset, "tls", None)  # of inputs and of targets
        self.data, self.labelled = dataset, lists is None or len(lists) > 1

    def __len__(self) -> int:
        return len(self.data)

    def path(self, i: int) -> Path | None:
        """The file of item i: the first path that its transforms come by, None if there is none."""
        try:
            first = self.data.tls[0]
            items = first.items
            item = items.iloc[i] if hasattr(items, "iloc") else items[i]
            for step in [None, *first.tfms.fs]:
                item = item if step is None else step(item)
                if isinstance(item, (str, PathLike)):
                    return Path(item)
                if isinstance(item, (Image.Image, Tensor)):
                    return None
        except Exception:  # the code of a user's own transforms
            return None
        return None

    def image(self, i: int) -> Image.Image:
        """The whole picture of item i: RGB, upright."""
        file = self.path(i)
        if file is not None and file.is_file():
            return as_image(file)
        item = self.data[i]
        return as_image(_plain(item[0] if isinstance(item, (tuple, list)) else item))

    def cached_image(self, i: int) -> None:
        """None: fastai decodes a picture whenever it is asked for."""
        return None


class FastaiLoader:
    """A loader of fastai, all of whose transforms are kept; batches are plain tensors.

    Parameters
    ----------
    dl : it
    items : the pictures of its items
    as_validated : whether transforms of training are left out

    Attributes
    ----------
    in_order : whether item i of it is item i of its data set

    Targets of items without labels are -1.
    """

    def __init__(self, dl: object, items: FastaiItems, *, as_validated: bool = False) -> None:
        self.dl, self.dataset, self._as_validated = dl, items, as_validated
        self.in_order = not getattr(dl, "shuffle", True) and not getattr(dl, "drop_last", False)
        self.batch_size = getattr(dl, "bs", None)

    def __len__(self) -> int:
        return len(self.dl)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        split = getattr(self.dl.dataset, "set_split_idx", None) if self._as_validated else None
        with split(_VALID) if callable(split) else nullcontext():
            for batch in self.dl:
                if self.dataset.labelled:
                    yield pair(batch)
                else:
                    x = _plain(batch[0])
                    yield x, torch.full((len(x),), UNLABELLED)

    def as_validation(self) -> "FastaiLoader":
        """All items in their order, as validation sees them."""
        if not hasattr(self.dl, "new"):  # one of torch
            size, collate = self.dl.batch_size or len(self.dl.dataset), self.dl.collate_fn
            plain = even_loader(self.dl.dataset, size, shuffle=False, collate_fn=collate)
            return FastaiLoader(plain, self.dataset)
        with seeded_rng(0):  # fastai draws a number for each loader
            plain = self.dl.new(shuffle=False, drop_last=False)
        return FastaiLoader(plain, self.dataset, as_validated=True)


def pair(batch: object) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a batch of fastai, as plain tensors.

    Raises
    ------
    ValueError
        For another number of parts.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        n = len(batch) if isinstance(batch, (tuple, list, Mapping)) else 1
        raise ValueError(f"a batch of fastai's loader has {n} parts; it must be (inputs, targets)")
    x, y = map(_plain, batch)
    return x, y


def _plain(value: object) -> object:
    return value.as_subclass(Tensor) if isinstance(value, Tensor) else value


class _Shared:
    """What copies of a learner share: nothing of fastai's data can be copied or pickled."""

    def __deepcopy__(self, memo: dict) -> "_Shared":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a learner with fastai's loaders cannot be pickled; use learn.save or learn.export"
        )


@dataclass(frozen=True)
class FastaiLoaders(_Shared):
    """Both loaders, with the class names."""

    train: FastaiLoader
    valid: FastaiLoader
    vocab: list[str]
    bs: int | None
    dls: object

    @classmethod
    def of(cls, dls: object, vocab: list[str]) -> "FastaiLoaders":
        train, valid = (FastaiLoader(dl, FastaiItems(dl.dataset)) for dl in (dls.train, dls.valid))
        return cls(train, valid, vocab, train.batch_size, dls)

    def taken(self, loader: object) -> object:
        """A loader, also one of fastai, such as its `test_dl` gives."""
        own = type(loader).__module__.startswith("fastai.")
        return FastaiLoader(loader, FastaiItems(loader.dataset)) if own else loader

    def test_dl(self, items: object, *, path: str | PathLike = ".") -> FastaiLoader:
        """Pictures to predict, without labels: files, a folder and others as for `test_dl`."""
        return prediction_loader(self.dls, as_pictures(items, path), self.bs)


def _check_blocks(dls: object) -> None:
    """Refuse loaders of data sets that are not fastai's: how they transform is in these."""
    if not hasattr(dls.valid.dataset, "tls"):
        kind = type(dls.valid.dataset).__name__
        raise ValueError(
            f"the data of fastai's loaders is a {kind}, whose transforms are not known; give a "
            "loader: learn.get_preds(dl=loader)"
        )


def prediction_loader(
    dls: object, listed: Sequence[Path | tuple[object, int]], bs: int | None
) -> FastaiLoader:
    """Pictures without labels, as validation sees them; `listed` is what `as_pictures` gives.

    Raises
    ------
    ValueError
        For files that are not there, and loaders whose transforms fastai does not know.
    """
    _check_blocks(dls)
    files = all(isinstance(item, Path) for item in listed)
    missing = [shortened(item) for item in listed if isinstance(item, Path) and not item.is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(listed)} files are not there: {first_few(missing)}"
        )
    if not files:  # fastai goes by the type of the first
        pictures = (item if isinstance(item, Path) else item[0] for item in listed)
        listed = [np.array(as_image(picture)) for picture in pictures]
    with seeded_rng(0):
        dl = dls.test_dl(listed, bs=bs or len(listed), num_workers=0)
    return FastaiLoader(dl, FastaiItems(dl.dataset))


@dataclass(frozen=True)
class FastaiTransforms(_Shared):
    """fastai's loaders have transformed and normalised their batches; one picture goes as these do.

    Parameters
    ----------
    dls : fastai's
    mean, std : of its normalisation, None without
    """

    dls: object
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def train(self, x: Tensor) -> Tensor:
        """As it is; raises ValueError for pictures of loaders that do not transform them."""
        if x.dtype is torch.uint8:
            raise ValueError(
                "these loaders give pictures as bytes, but this learner was taken over with "
                "fastai's, which normalise; make a new one: vision_learner(dls, learn.model)"
            )
        return x

    def valid(self, x: Tensor) -> Tensor:
        """As `train`."""
        return self.train(x)

    def loader_of(self, listed: Sequence[Path | tuple[object, int]], bs: int) -> FastaiLoader:
        """See `prediction_loader`."""
        return prediction_loader(self.dls, listed, bs)

    def batch_of_picture(self, item: str | PathLike | Image.Image | np.ndarray | Tensor) -> Tensor:
        """A picture as validation sees it, [1, 3, h, w].

        Raises
        ------
        ValueError
            If a file is not there, or fastai cannot read it.
        """
        if isinstance(item, (str, PathLike)):
            item = Path(item).expanduser()
            if not item.is_file():
                raise ValueError(f"{shortened(item)}: no such file; pass a picture file")
        elif not isinstance(item, Image.Image):
            item = np.array(as_image(item))
        _check_blocks(self.dls)
        try:
            with torch.no_grad(), seeded_rng(0):
                return _plain(next(iter(self.dls.test_dl([item], bs=1, num_workers=0)))[0])
        except Exception as error:
            text = (str(error).strip() or "no text").splitlines()[0]
            what = shortened(item) if isinstance(item, Path) else shown(type(item).__name__)
            raise ValueError(f"{what}: fastai's loaders do not take it: {text}") from None


def normalisation(dls: object) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """Mean and std of the channels, where the batches of fastai's loaders are normalised."""
    for step in getattr(getattr(dls.valid, "after_batch", None), "fs", ()):
        mean, std = getattr(step, "mean", None), getattr(step, "std", None)
        if type(step).__name__ == "Normalize" and isinstance(mean, Tensor):
            return tuple(mean.flatten().tolist()), tuple(std.flatten().tolist())
    return None, None
