"""Feature cache: what a frozen body gives of each picture, computed once and kept for all runs."""

from collections.abc import Sequence
from warnings import warn

import torch
from torch import Tensor, nn

from nbfinetune.data.datasets import ImageDataset
from nbfinetune.networks.weights_digest import weights_digest
from nbfinetune.rendering.names import shown
from nbfinetune.runtime.memmap import allocate


class CachedFeatures:
    """Features of one data set: of each view its values [n, ...], and which of them are known.

    Where there is no room for them, a warning says so and none is known.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self.known: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.fits = True

    def put(self, view: int, numbers: Tensor, features: Tensor) -> None:
        if view not in self.values and self.fits:
            try:
                shape = (len(self.dataset), *features.shape[1:])
                self.values[view] = allocate(shape, features.dtype)
            except OSError as error:
                self.fits = False
                warn(f"the frozen body runs in each epoch: its features are {error}", stacklevel=2)
        if view in self.values:
            self.values[view][numbers] = features.cpu()
            self.known_of(view)[numbers] = True  # last: an interrupt leaves nothing that is wrong

    def known_of(self, view: int) -> Tensor:
        """Of which pictures this view is known, bool [n]."""
        return self.known.setdefault(view, torch.zeros(len(self.dataset), dtype=torch.bool))

    def n_known(self, view: int) -> int:
        """Of how many pictures this view is known."""
        return int(self.known_of(view).sum())


class FeatureCache:
    """The features of a learner's pictures, as long as these are what they depend on.

    Parameters
    ----------
    wanted : "auto" = keep them where that is possible; True = always; False = never. A number =
        that many views of each training picture, the first as validation sees it, the others
        augmented; epochs take turns. "auto" and True are 1, or 4 if `aug` is the user's function:
        more do not help a linear head on pets photos (error over 10 seeds with 1, 4 and 8 views:
        0.223, 0.226 and 0.226 at 128 px, 0.122, 0.118 and 0.124 at 224 px), and each costs a pass
        of the body
    seed : of the augmentation

    Attributes
    ----------
    computing : while the batch at hand needs features that are computed first: of how many pictures
        they are known, and how many there are; else None
    """

    def __init__(self, wanted: bool | int | str, seed: int) -> None:
        if wanted != "auto" and not (isinstance(wanted, int) and wanted >= 0):
            raise ValueError(
                f'cache_features is {shown(wanted)}; it must be "auto", True, False or a number '
                "of views"
            )
        self.wanted, self.seed = wanted, seed
        self._cached: list[CachedFeatures] = []
        self._depend_on: tuple | None = None
        self._versions: list[tuple[int, int]] = []
        self._digest = b""
        self.computing: tuple[int, int] | None = None

    def of(self, dataset: ImageDataset, own: Sequence[object], depend_on: tuple) -> CachedFeatures:
        """The features of a data set, new ones if there are none.

        Those that depend on something else than `depend_on` are dropped, and those of data sets
        that are not among the learner's `own`.
        """
        if depend_on != self._depend_on:
            self._depend_on, self._cached = depend_on, []
        self._cached = [c for c in self._cached if any(c.dataset is part for part in own)]
        for cached in self._cached:
            if cached.dataset is dataset:
                return cached
        self._cached.append(CachedFeatures(dataset))
        return self._cached[-1]

    def kept(self, dls: object) -> dict[str, CachedFeatures]:
        """Those that there are of the data of "train" and "valid" of some loaders."""
        sides = {side: getattr(getattr(dls, side), "dataset", None) for side in ("train", "valid")}
        return {side: c for side, data in sides.items() for c in self._cached if c.dataset is data}

    def drop(self) -> None:
        """Forget all features."""
        self._cached = []

    def fits(self, dataset: object) -> bool:
        """Whether the features of a data set have not failed to find room."""
        return all(c.fits for c in self._cached if c.dataset is dataset)

    def digest(self, body: nn.Module, *, compare_bytes: bool) -> bytes:
        """A digest of the body's weights and buffers.

        Parameters
        ----------
        compare_bytes : False trusts the changes that torch counts, as within a run
        """
        versions = [_version(t) for t in (*body.parameters(), *body.buffers())]
        if compare_bytes or versions != self._versions:
            self._versions, self._digest = versions, weights_digest(body)
        return self._digest


def _version(tensor: Tensor) -> tuple[int, int]:
    """Which tensor it is, and how often torch has changed it."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version
