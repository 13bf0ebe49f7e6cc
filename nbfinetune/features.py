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

from nbfinetune.datasets import ImageDataset
from nbfinetune.heads import ConcatPool
from nbfinetune.layer_groups import LayerGroup
from nbfinetune.rng import seeded_rng
from nbfinetune.room import room_for
from nbfinetune.weights import Same, weights_digest

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

_VIEWS = 4  # of a picture that the user's own function augments
_CHANGE = (
    1.5  # times the change of features that augmentation made to another picture. A search of a
)
# head over 259 photos sees each 20 times; unchanged they are learned by heart at any rate. With it
# the suggestion is within 0.25 decades of the best rate (5 seeds each at 128 and 224 px), without
# it 1.1 decades above, with 8 real views up to 0.8 above
_POOLS = (ConcatPool, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Identity)


def body_and_head(
    model: nn.Module, groups: list[LayerGroup]
) -> tuple[nn.Sequential, nn.Sequential] | None:
    """The model in two, None if its last layer group is not what it ends with.

    Pooling layers at the beginning of the head count as body: what they give is smaller.
    """
    layers, head = list(model) if isinstance(model, nn.Sequential) else [], groups[-1]
    n = len(layers) - len(head)
    if n < 1 or any(a is not b for a, b in zip(layers[n:], head, strict=True)):
        return None
    if len(head) == 1 and type(head[0]) is nn.Sequential:
        head = list(head[0])
    pools = 0
    while pools < len(head) - 1 and isinstance(head[pools], _POOLS):
        pools += 1
    return nn.Sequential(*layers[:n], *head[:pools]), nn.Sequential(*head[pools:])


class _Kept:
    """Features of one data set: of each view its values [n, ...], and which of them are known.

    Where there is no room for them, a warning says so and none is ever known.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset, self.targets = dataset, torch.tensor(dataset.targets)
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
        a linear head on pets photos gains little by more (error over 5 seeds with 1 and 4 views:
        0.21 and 0.21 at 128 px, 0.13 and 0.12 at 224 px), and each costs a pass of the body
    """

    def __init__(self, wanted: bool | int | str) -> None:
        if wanted != "auto" and not (isinstance(wanted, int) and wanted >= 0):
            raise ValueError(
                f'cache_features is {wanted!r}; it must be "auto", True, False or a number of views'
            )
        self.wanted = wanted
        self._depend_on: tuple | None = None
        self._kept: list[_Kept] = []

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
        self, learn: "Learner", loader: DataLoader, *, training: bool, varied: bool
    ) -> "FeatureBatches | None":
        """The batches of a loader as features; None if they have to go through the whole network.

        Features of other weights or transforms are dropped.

        Parameters
        ----------
        varied : whether pictures that come again are changed, as by augmentation
        """
        if not self.usable(learn, loader):
            return None
        depend_on = self._dependence(learn)
        if depend_on != self._depend_on:
            self._depend_on, self._kept = depend_on, []
        kept = [kept for kept in self._kept if kept.dataset is loader.dataset]
        if not kept:
            kept = [_Kept(loader.dataset)]
            self._kept += kept
        return FeatureBatches(learn, loader, kept[0], self._views(learn), training, varied)

    def usable(self, learn: "Learner", loader: DataLoader) -> bool:
        """Whether the features of a loader's pictures can be kept now."""
        if not self.wanted or not learn.body_is_fixed or learn.transforms is None:
            return False
        own = [getattr(part, "dataset", None) for part in (learn.dls.train, learn.dls.valid)]
        dataset = getattr(loader, "dataset", None)
        if not isinstance(dataset, ImageDataset) or loader.batch_sampler is None:
            return False
        return any(dataset is part for part in own)

    def _views(self, learn: "Learner") -> int:
        if self.wanted in ("auto", True):
            return _VIEWS if callable(learn.transforms.aug) else 1
        return self.wanted

    def _dependence(self, learn: "Learner") -> tuple:
        """All that the features depend on; weights by their bytes, as any code may write them."""
        aug = Same(learn.transforms.aug)
        how = learn.transforms, aug, learn.amp_inference, learn.seed
        return weights_digest(learn.body_and_head[0]), *how


class FeatureBatches:
    """Batches of the pictures' numbers, which go to logits by their features and the head."""

    def __init__(
        self,
        learn: "Learner",
        loader: DataLoader,
        kept: _Kept,
        views: int,
        training: bool,
        varied: bool,
    ) -> None:
        self._learn, self._kept, self._training = learn, kept, training
        self._views = views if training else 1
        self._varied = varied and learn.transforms.aug is not False
        # The loader itself, but of numbers: the same order, and the same random numbers drawn.
        self._numbers = DataLoader(
            range(len(kept.dataset)),
            batch_sampler=loader.batch_sampler,
            collate_fn=torch.tensor,
            generator=loader.generator,
        )

    @property
    def body_epochs(self) -> int:
        """Epochs that will run the body, each for the features of one view."""
        views = 2 if self._varied else self._views
        return sum(not self._kept.known_of(view).all() for view in range(views))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for numbers in self._numbers:
            yield numbers, self._kept.targets[numbers]

    def logits(self, numbers: Tensor) -> Tensor:
        """numbers: of pictures in the data set, shape [n]; returns [n, c]."""
        learn = self._learn
        if not self._varied:
            view = learn.epoch % self._views if self._training else 0
            return learn.head_logits(self._features(numbers, view))
        features = self._features(numbers, 0)
        if learn.epoch:
            others = numbers[torch.randperm(len(numbers))]
            change = self._features(others, 1).float() - self._features(others, 0).float()
            features = features.float() + _CHANGE * change
        return learn.head_logits(features)

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
            return learn.features_of(learn.prepare(x, training=False))
        views = []
        for i, one in zip(numbers.tolist(), x.split(1), strict=True):
            # Random numbers of its own: neither the batch nor earlier runs matter.
            with seeded_rng(learn.seed + view * len(self._kept.dataset) + i):
                views.append(learn.prepare(one, training=True))
        return learn.features_of(torch.cat(views))
