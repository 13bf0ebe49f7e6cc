"""Features: what a frozen body gives of each picture, computed once and kept for all runs.

While the body is frozen and its statistics are fixed, they depend on the picture alone. The first
run that needs them computes them batch by batch; from then on the head alone is run.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from warnings import warn

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nbfinetune.data.datasets import ImageDataset, gives_pictures
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.networks.weights_digest import Same, weights_digest
from nbfinetune.runtime.memmap import room_for
from nbfinetune.runtime.rng import seeded_rng

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

_VIEWS = 4  # of a picture that the user's own function augments
# Times the change of features that augmentation made to another picture. A search sees each of
# 259 photos 20 times; unchanged they are learned by heart at any rate. So changed they give a
# suggestion within 0.25 decades of the best rate (5 seeds each at 128 and 224 px); unchanged ones
# up to 1.1 decades above it, 8 augmented views of each up to 0.8 above.
_CHANGE = 1.5


class _Kept:
    """Features of one data set: of each view its values [n, ...], and which of them are known.

    Where there is no room for them, a warning says so and none is known.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self.known: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.has_room = True

    def put(self, view: int, numbers: Tensor, features: Tensor) -> None:
        if view not in self.values and self.has_room:
            try:
                shape = (len(self.dataset), *features.shape[1:])
                self.values[view] = room_for(shape, features.dtype)
            except OSError as error:
                self.has_room = False
                warn(f"the frozen body runs in each epoch: its features are {error}", stacklevel=2)
        if view in self.values:
            self.values[view][numbers] = features.cpu()
            self.known_of(view)[numbers] = True  # last: an interrupt leaves nothing that is wrong

    def known_of(self, view: int) -> Tensor:
        """Of which pictures this view is known, bool [n]."""
        return self.known.setdefault(view, torch.zeros(len(self.dataset), dtype=torch.bool))


class Features:
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
    """

    def __init__(self, wanted: bool | int | str, seed: int) -> None:
        if wanted != "auto" and not (isinstance(wanted, int) and wanted >= 0):
            raise ValueError(
                f'cache_features is {wanted!r}; it must be "auto", True, False or a number of views'
            )
        self.wanted, self.seed = wanted, seed
        self._kept: list[_Kept] = []
        self._depend_on: tuple | None = None
        self._versions: list[tuple[int, int]] = []
        self._digest = b""

    def check(self, learn: "Learner") -> None:
        """Raise ValueError if features are asked for that this learner's body cannot keep."""
        if self.wanted in ("auto", False):
            return
        needs = f"cache_features={self.wanted!r} needs"
        if not learn.body_and_head:
            raise ValueError(f"{needs} a model in a row that ends with its last layer group")
        if learn.train_bn:
            raise ValueError(f"{needs} train_bn=False: statistics of the frozen body would move")
        if learn.transforms is None:
            raise ValueError(f"{needs} pictures, from ImageDataLoaders")

    def batches(
        self,
        learn: "Learner",
        loader: DataLoader,
        *,
        training: bool,
        varied: bool = False,
        look: bool = True,
    ) -> "FeatureBatches | None":
        """The batches of a loader as features; None if they have to go through the whole network.

        Features of other weights, transforms or data are dropped.

        Parameters
        ----------
        varied : whether pictures that come again are changed, as by augmentation
        look : whether weights are compared by their bytes; False trusts the changes that torch
            counts, as within a run
        """
        if not self.usable(learn, loader):
            if training and not learn.body_is_fixed:
                self._kept = []  # of a body that will be another one
            return None
        body, head = learn.body_and_head
        depend_on = self._dependence(learn, body, look)
        if depend_on != self._depend_on:
            self._depend_on, self._kept = depend_on, []
        own = _datasets(learn)
        self._kept = [kept for kept in self._kept if any(kept.dataset is part for part in own)]
        kept = [kept for kept in self._kept if kept.dataset is loader.dataset]
        if not kept:
            kept = [_Kept(loader.dataset)]
            self._kept += kept
        views = self._views(learn) if training else 1
        varied = varied and learn.transforms.aug is not False
        return FeatureBatches(learn, body, head, loader, kept[0], views, varied)

    def usable(self, learn: "Learner", loader: DataLoader) -> bool:
        """Whether the features of a loader's pictures can be kept now."""
        if not self.wanted or not isinstance(learn.transforms, ImageTransforms):
            return False
        if not gives_pictures(loader) or not learn.body_is_fixed:
            return False
        if any(m._forward_hooks or m._forward_pre_hooks for m in learn.body_and_head[0].modules()):
            return False  # somebody wants to see the body at work
        without_room = [kept.dataset for kept in self._kept if not kept.has_room]
        mine = any(loader.dataset is part for part in _datasets(learn))
        return mine and not any(loader.dataset is part for part in without_room)

    def _views(self, learn: "Learner") -> int:
        if self.wanted == "auto" or self.wanted is True:
            return _VIEWS if callable(learn.transforms.aug) else 1
        return self.wanted

    def _dependence(self, learn: "Learner", body: nn.Module, look: bool) -> tuple:
        """All that the features depend on."""
        versions = [_version(t) for t in (*body.parameters(), *body.buffers())]
        if look or versions != self._versions:
            self._versions, self._digest = versions, weights_digest(body)
        return self._digest, learn.transforms, Same(learn.transforms.aug), learn.amp_inference


def _version(tensor: Tensor) -> tuple[int, int]:
    """Which tensor it is, and how often torch has changed it."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version


def _datasets(learn: "Learner") -> list[object]:
    loaders = (learn.dls.train, learn.dls.valid) if learn.dls is not None else ()
    return [getattr(loader, "dataset", None) for loader in loaders]


class FeatureBatches:
    """Batches of the pictures' numbers, which go to logits by their features and the head.

    Parameters
    ----------
    views : of each picture; epochs take turns
    varied : whether pictures that come again get the change that augmentation made to another
    """

    def __init__(
        self,
        learn: "Learner",
        body: nn.Module,
        head: nn.Module,
        loader: DataLoader,
        kept: _Kept,
        views: int,
        varied: bool,
    ) -> None:
        self._learn, self._body, self._head = learn, body, head
        self._kept, self._views, self._varied = kept, views, varied
        self._targets = torch.tensor(kept.dataset.targets)  # read anew: they may be corrected
        # The loader itself, but of numbers: the same order, and the same random numbers drawn.
        self._numbers = DataLoader(
            range(len(kept.dataset)),
            batch_sampler=loader.batch_sampler,
            collate_fn=torch.tensor,
            generator=loader.generator,
        )

    def body_epochs(self, epochs: range) -> int:
        """How many of these epochs will run the body, each for the features of one view."""
        views = {min(e, 1) if self._varied else e % self._views for e in epochs}
        return sum(not self._kept.known_of(view).all() for view in views)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for numbers in self._numbers:
            yield numbers, self._targets[numbers]

    def logits(self, numbers: Tensor) -> Tensor:
        """numbers: of pictures in the data set, shape [n]; returns [n, c]."""
        learn = self._learn
        if not self._varied:
            view = learn.epoch % self._views if self._views > 1 else 0
            return learn.head_logits(self._head, self._features(numbers, view))
        features = self._features(numbers, 0)
        if learn.epoch:
            others = numbers[torch.randperm(len(numbers))]
            change = self._features(others, 1).float() - self._features(others, 0).float()
            features = features.float() + _CHANGE * change
        return learn.head_logits(self._head, features)

    def _features(self, numbers: Tensor, view: int) -> Tensor:
        kept = self._kept
        missing = numbers[~kept.known_of(view)[numbers]]
        if len(missing):
            features = self._compute(missing, view)
            kept.put(view, missing, features)
            if not kept.has_room:
                return features
        return kept.values[view][numbers].to(self._learn.device)

    def _compute(self, numbers: Tensor, view: int) -> Tensor:
        learn = self._learn
        x, _ = self._kept.dataset.batch(numbers.tolist())
        if not view:
            return learn.features_of(self._body, learn.prepare(x, training=False))
        views = []
        for i, one in zip(numbers.tolist(), x.split(1), strict=True):
            # Random numbers of its own: neither the batch nor earlier runs matter.
            with seeded_rng(learn.features.seed + view * len(self._kept.dataset) + i):
                views.append(learn.prepare(one, training=True))
        return learn.features_of(self._body, torch.cat(views))
