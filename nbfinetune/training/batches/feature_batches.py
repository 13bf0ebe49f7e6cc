"""Feature batches: a run over the features of a frozen body, which runs the head alone.

While the body is frozen and its statistics are fixed, they depend on the picture alone. The first
run that needs them computes them batch by batch.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nbfinetune.data.datasets import gives_pictures
from nbfinetune.data.lost_files import those_there
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.networks.weights_digest import IdentityKey
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training.batches.feature_cache import CachedFeatures
from nbfinetune.training.batches.microbatches import picture_parts
from nbfinetune.training.batches.part_sizes import sizes
from nbfinetune.training.batches.smaller_parts import in_parts
from nbfinetune.training.state import LearnerState

_VIEWS = 4  # of a picture that the user's own function augments
# Times the change of features that augmentation made to another picture. A search sees each of
# 259 photos 20 times; unchanged they are learned by heart at any rate. So jittered they give a
# suggestion within 0.25 decades of the best rate (5 seeds each at 128 and 224 px); unchanged ones
# up to 1.1 decades above it, 8 augmented views of each up to 0.8 above.
_JITTER = 1.5


def feature_batches(
    learn: LearnerState,
    loader: DataLoader,
    *,
    training: bool,
    jitter: bool = False,
    compare_bytes: bool = True,
) -> "FeatureBatches | None":
    """The batches of a loader as features; None if they have to go through the whole network.

    Features of other weights, transforms or data are dropped.

    Parameters
    ----------
    jitter : whether pictures that come again are changed, as by augmentation
    compare_bytes : whether weights are compared by their bytes; see `FeatureCache.digest`
    """
    cache = learn.features
    if not features_usable(learn, loader):
        if training and not learn.body_is_fixed:
            cache.drop()  # of a body that will be another one
        return None
    body, head = learn.body_and_head
    digest = cache.digest(body, compare_bytes=compare_bytes)
    depend_on = digest, learn.transforms, IdentityKey(learn.transforms.aug), learn.amp_inference
    cached = cache.of(loader.dataset, _datasets(learn), depend_on)
    views = _views(learn) if training else 1
    jitter = jitter and learn.transforms.aug is not False
    return FeatureBatches(learn, body, head, loader, cached, views, jitter)


def features_usable(learn: LearnerState, loader: DataLoader) -> bool:
    """Whether the features of a loader's pictures can be kept now."""
    if not learn.features.wanted or not isinstance(learn.transforms, ImageTransforms):
        return False
    if not gives_pictures(loader) or not learn.body_is_fixed:
        return False
    if any(m._forward_hooks or m._forward_pre_hooks for m in learn.body_and_head[0].modules()):
        return False  # somebody wants to see the body at work
    if not any(loader.dataset is part for part in _datasets(learn)):
        return False
    fits = learn.features.fits(loader.dataset)
    return fits if learn.world is None else learn.world.all(fits)


def _views(learn: LearnerState) -> int:
    if learn.features.wanted == "auto" or learn.features.wanted is True:
        return _VIEWS if callable(learn.transforms.aug) else 1
    return learn.features.wanted


def _datasets(learn: LearnerState) -> list[object]:
    loaders = (learn.dls.train, learn.dls.valid) if learn.dls is not None else ()
    return [getattr(loader, "dataset", None) for loader in loaders]


class FeatureBatches:
    """Batches of the pictures' numbers, which go to logits by their features and the head.

    Parameters
    ----------
    views : of each picture; epochs take turns
    jitter : whether pictures that come again get the change that augmentation made to another
    """

    def __init__(
        self,
        learn: LearnerState,
        body: nn.Module,
        head: nn.Module,
        loader: DataLoader,
        cached: CachedFeatures,
        views: int,
        jitter: bool,
    ) -> None:
        self._learn, self._body, self._head = learn, body, head
        self.cached, self._views, self._jitter = cached, views, jitter
        self._known_by_all: dict[int, bool] = {}  # of a view, whether all processes have it whole
        self._targets = torch.tensor(cached.dataset.targets)  # read anew: they may be corrected
        # The loader itself, but of numbers: the same order, and the same random numbers drawn.
        self._numbers = DataLoader(
            range(len(cached.dataset)),
            batch_sampler=loader.batch_sampler,
            collate_fn=torch.tensor,
            generator=loader.generator,
        )

    def body_epochs(self, epochs: range) -> int:
        """How many of these epochs will run the body, each for the features of one view."""
        views = {min(e, 1) if self._jitter else e % self._views for e in epochs}
        return sum(not self.cached.known_of(view).all() for view in views)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        world = self._learn.world
        for every in self._numbers:
            numbers = self._batch = those_there(self.cached.dataset, every)
            if world is not None and len(numbers):
                numbers = numbers[world.share(len(numbers)).places]
            if len(numbers):
                yield numbers, self._targets[numbers]

    def parts(self, n: int) -> list[slice]:
        """Those that the features of n pictures are predicted in."""
        return sizes(n, self._learn.memory.passes)

    def inputs(self, numbers: Tensor) -> Tensor:
        """The numbers, of which `logits` makes features."""
        return numbers

    def logits(self, numbers: Tensor, on_part: Callable[[], None]) -> Tensor:
        """numbers: of pictures in the data set, shape [n]; returns [n, c].

        Between the parts in which missing features are computed `on_part` is called.
        """
        learn = self._learn
        learn.features.computing = None
        if not self._jitter:
            view = learn.epoch % self._views if self._views > 1 else 0
            return learn.head_logits(self._head, self._features(numbers, view, on_part))
        features = self._features(numbers, 0, on_part)
        if learn.epoch:
            others = self._others(numbers)
            one, other = (self._features(others, view, on_part) for view in (0, 1))
            features = features.float() + _JITTER * (other.float() - one.float())
        return learn.head_logits(self._head, features)

    def _others(self, numbers: Tensor) -> Tensor:
        """For each picture another one of its batch, drawn."""
        world = self._learn.world
        if world is None:
            return numbers[torch.randperm(len(numbers))]
        return self._batch[torch.randperm(len(self._batch))][world.at.places]

    def _features(self, numbers: Tensor, view: int, on_part: Callable[[], None]) -> Tensor:
        learn, cached = self._learn, self.cached
        if learn.world is not None:
            self._know(view, on_part)
        missing = numbers[~cached.known_of(view)[numbers]]

        def compute(part: slice) -> Tensor:
            features = self._compute(missing[part], view)
            self._put(view, missing[part], features)
            return features

        if len(missing):
            computed = in_parts(learn, picture_parts(learn, len(missing)), compute, on_part)
            if not cached.fits:
                learn.features.computing = None  # there will be none
                return computed
        return cached.values[view][numbers].to(learn.device)

    def _put(self, view: int, numbers: Tensor, features: Tensor) -> None:
        self.cached.put(view, numbers, features)
        known = self.cached.n_known(view), len(self.cached.dataset)
        self._learn.features.computing = known

    def _know(self, view: int, on_part: Callable[[], None]) -> None:
        """Have the features of the batch, of which each process computes a share.

        Epochs are shuffled: with those of its own shares alone each process would compute all.
        """
        learn, world = self._learn, self._learn.world
        known = self.cached.known_of(view)
        if view not in self._known_by_all:
            self._known_by_all[view] = world.all(bool(known.all()))
        if self._known_by_all[view]:
            return
        # A process that is new has none of those of earlier runs; another host may have no room.
        *known, fits = world.least([*known[self._batch].tolist(), self.cached.fits])
        missing = self._batch[~torch.tensor(known, dtype=torch.bool)]
        if not (fits and len(missing)):
            return
        of_batch = world.at
        share = world.share(len(missing))

        def compute(part: slice) -> Tensor:
            return self._compute(missing[share.places[part]], view)

        parts = picture_parts(learn, len(share.places))
        (features,) = world.gather(in_parts(learn, parts, compute, on_part))
        world.at = of_batch
        self._put(view, missing, features)

    def _compute(self, numbers: Tensor, view: int) -> Tensor:
        learn = self._learn
        x, _ = self.cached.dataset.batch(numbers.tolist())
        if not view:
            return learn.features_of(self._body, learn.prepare(x, training=False))
        views = []
        for i, one in zip(numbers.tolist(), x.split(1), strict=True):
            # Random numbers of its own: neither the batch nor earlier runs matter.
            with seeded_rng(learn.features.seed + view * len(self.cached.dataset) + i):
                views.append(learn.prepare(one, training=True))
        return learn.features_of(self._body, torch.cat(views))
