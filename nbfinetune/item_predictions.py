"""Item predictions: what is kept of each item of a pass over labelled data, O(n k) in all."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from nbfinetune import loop
from nbfinetune.callbacks import Callback, CancelFit
from nbfinetune.control import steered
from nbfinetune.datasets import EvenBatches, PictureItems
from nbfinetune.prediction import item_losses
from nbfinetune.rng import seeded_rng

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

TOP_K = 5  # classes kept of each item (as in top-5 accuracy)
TINY = 1e-12  # a probability of 0 has a finite loss


@dataclass(frozen=True)
class ItemPredictions:
    """What is kept of some items; see `ClassificationInterpretation`."""

    targets: Tensor
    predicted: Tensor
    losses: Tensor
    target_probs: Tensor
    predicted_probs: Tensor
    top: Tensor
    top_probs: Tensor

    @classmethod
    def of(cls, probs: Tensor, targets: Tensor, losses: Tensor | None = None) -> "ItemPredictions":
        """Of probabilities [n, c]; without losses those of cross entropy."""
        # float32: half precision ties, and its logarithm is coarse.
        probs = probs.float()
        top_probs, top = probs.topk(min(TOP_K, probs.shape[1]), dim=1)
        of_target = probs.gather(1, targets[:, None])[:, 0]
        losses = -of_target.clamp_min(TINY).log() if losses is None else losses.float()
        parts = (targets, top[:, 0], losses, of_target, top_probs[:, 0], top, top_probs)
        return cls(*(part.cpu() for part in parts))

    @classmethod
    def cat(cls, parts: Sequence["ItemPredictions"], c: int) -> "ItemPredictions":
        """All of them, in their order."""
        none = cls.of(torch.zeros(0, max(c, 1)), torch.zeros(0, dtype=torch.int64))
        return cls(*map(torch.cat, zip(*(p.tensors() for p in (parts or [none])), strict=True)))

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(vars(self).values())


def shuffles(loader: object) -> bool:
    """Whether item i of the loader is another than item i of its data set."""
    samplers = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    random = isinstance(samplers[0], RandomSampler)
    return random or (isinstance(samplers[1], EvenBatches) and samplers[1].shuffle)


def _in_order(loader: object) -> bool:
    """Whether item i of the loader is surely item i of its data set."""
    if not isinstance(loader, DataLoader):
        return False
    if isinstance(loader.batch_sampler, EvenBatches):
        return not loader.batch_sampler.shuffle
    own = type(loader.batch_sampler) is BatchSampler and loader.batch_sampler.sampler
    return isinstance(own, SequentialSampler)


def depends_on(learn: "Learner", loader: DataLoader) -> tuple:
    """All that the predictions depend on; weights by their bytes, as any code may write them."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in learn.model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    data = getattr(loader, "dataset", loader)
    targets = tuple(getattr(data, "targets", ()))
    how = (learn.transforms, learn.amp, learn.loss_func)
    # The data set itself is kept, as another may come to have its id.
    return digest.digest(), _Same(data), len(data), targets, tuple(learn.vocab), *how


@dataclass(frozen=True, eq=False)
class _Same:
    """Equal to one that holds the very same thing."""

    thing: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing


@steered(steers=False)
def predict_items(
    learn: "Learner", loader: DataLoader, cbs: Sequence[Callback]
) -> tuple[ItemPredictions, bool]:
    """What is kept of each batch as it comes; and whether all were predicted, none was stopped."""
    parts, each, complete = [], item_losses(learn), False
    with seeded_rng(learn.seed), suppress(CancelFit):
        for out, targets in loop.predictions(learn, loader, [learn.control, *cbs]):
            logits = out.float()
            if logits.shape[1:] != (len(learn.vocab),):
                raise ValueError(
                    f"the model gives {list(logits.shape)} for a batch, but the vocab has "
                    f"{len(learn.vocab)} classes"
                )
            parts.append(ItemPredictions.of(logits.softmax(1), targets, each(logits, targets)))
        complete = True
    return ItemPredictions.cat(parts, len(learn.vocab)), complete


def pictures_of(loader: DataLoader) -> PictureItems | None:
    """The data set of a loader, if its item i is surely item i of the loader."""
    dataset = getattr(loader, "dataset", None)
    return dataset if _in_order(loader) and isinstance(dataset, PictureItems) else None
