"""Sample predictions: what is kept of each item of a pass over labelled data, O(n k) in all."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nbfinetune.interpretation.given import (
    as_array,
    check_rows,
    given_indices,
    given_probabilities,
)
from nbfinetune.interpretation.prediction import item_losses
from nbfinetune.networks.weights_digest import IdentityKey, weights_digest
from nbfinetune.objectives.losses import probabilities
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training import loop
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.spmd.spread import spread
from nbfinetune.training.state import Callback, LearnerState, as_callbacks
from nbfinetune.training.steering import Steering, exclusive_run

TOP_K = 5  # classes kept of each item (as in top-5 accuracy)
_ROWS = 4096  # items whose probabilities are looked at together: 16 MB of 1,000 classes
_TINY = 1e-12  # a probability of 0 has a finite loss


@dataclass(frozen=True)
class SamplePredictions:
    """What is kept of some items; see `ClassificationInterpretation`."""

    targets: Tensor
    predicted: Tensor
    losses: Tensor
    target_probs: Tensor
    predicted_probs: Tensor
    top: Tensor
    top_probs: Tensor

    @classmethod
    def of(
        cls, probs: Tensor, targets: Tensor, losses: Tensor | None = None
    ) -> "SamplePredictions":
        """Of probabilities [n, c]; without losses those of cross entropy."""
        # float32: half precision ties, and its logarithm is coarse.
        probs = probs.float()
        top_probs, top = probs.topk(min(TOP_K, probs.shape[1]), dim=1)
        of_target = probs.gather(1, targets[:, None])[:, 0]
        losses = -of_target.clamp_min(_TINY).log() if losses is None else losses.float()
        parts = (targets, top[:, 0], losses, of_target, top_probs[:, 0], top, top_probs)
        return cls(*(part.cpu() for part in parts))

    @classmethod
    def given(cls, targets: object, preds: object, vocab: Sequence[str]) -> "SamplePredictions":
        """Of class indices or names [n] or probabilities [n, c] that any model predicted.

        Raises
        ------
        ValueError
            If shapes, indices or probabilities do not fit.
        """
        targets, preds = as_array(targets, vocab, "targets"), as_array(preds, vocab, "preds")
        if targets.ndim != 1 or preds.ndim not in (1, 2) or len(targets) != len(preds):
            raise ValueError(
                f"targets have the shape {list(targets.shape)} and preds {list(preds.shape)}; give "
                "class indices [n], and class indices [n] or probabilities [n, c]"
            )
        targets = given_indices(targets, vocab, "targets")
        if preds.ndim == 2:
            probs = check_rows(given_probabilities(preds, vocab, "preds"))
            chunks = zip(probs.split(_ROWS), targets.split(_ROWS), strict=True)
            return cls.cat([cls.of(p, t) for p, t in chunks], len(vocab))
        predicted = given_indices(preds, vocab, "preds")
        sure = torch.ones(len(predicted))  # sure of what was predicted
        right = (predicted == targets).float()
        losses = -right.clamp_min(_TINY).log()
        return cls(targets, predicted, losses, right, sure, predicted[:, None], sure[:, None])

    @classmethod
    def cat(cls, parts: Sequence["SamplePredictions"], c: int) -> "SamplePredictions":
        """All of them, in their order."""
        none = cls.of(torch.zeros(0, max(c, 1)), torch.zeros(0, dtype=torch.int64))
        return cls(*map(torch.cat, zip(*(p.tensors() for p in (parts or [none])), strict=True)))

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(vars(self).values())


def depends_on(learn: LearnerState, loader: DataLoader) -> tuple:
    """All that the predictions depend on; weights by their bytes, as any code may write them."""
    data = getattr(loader, "dataset", loader)
    targets = tuple(getattr(data, "targets", ()))
    how = (learn.transforms, learn.amp, learn.amp_inference, learn.loss_func, learn.activation)
    digest = weights_digest(learn.model)
    return digest, IdentityKey(data), len(data), targets, tuple(learn.vocab), *how


@exclusive_run(scales_rates=False)
@spread
def predict_samples(
    learn: LearnerState, loader: DataLoader, cbs: Sequence[Callback]
) -> tuple[SamplePredictions, bool]:
    """What is kept of each batch as it comes; and whether all were predicted, none was stopped."""
    parts, each, complete = [], item_losses(learn), False
    with seeded_rng(learn.seed), suppress(CancelFit):
        for out, targets in loop.predictions(learn, loader, [Steering(), *as_callbacks(cbs)]):
            outputs = out.float()
            _check_batch(outputs, targets, learn.vocab)
            probs = probabilities(outputs, learn.activation)
            parts.append(SamplePredictions.of(probs, targets, each(outputs, targets)))
        complete = True
    return SamplePredictions.cat(parts, len(learn.vocab)), complete


def _check_batch(outputs: Tensor, targets: Tensor, vocab: Sequence[str]) -> None:
    c = len(vocab)
    if outputs.shape[1:] != (c,):
        raise ValueError(
            f"the model gives {list(outputs.shape)} for a batch, but the vocab has {c} classes"
        )
    if targets.ndim != 1 or targets.is_floating_point():
        raise ValueError(
            f"the targets of a batch have the shape {list(targets.shape)} and are "
            f"{targets.dtype}, no class indices [n]; for several labels use "
            "MultiLabelInterpretation.from_predictions(targets, preds, vocab) of learn.get_preds()"
        )
    wrong = targets[(targets < 0) | (targets >= c)]
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} targets of a batch are no class index of a vocab of {c} classes: "
            f"{wrong[0]}; leave these pictures out"
        )
    if not outputs.isfinite().all():
        raise ValueError(
            "the model gives NaN or infinite numbers: it has diverged; train it anew at a lower "
            "rate, or load weights that are finite"
        )
