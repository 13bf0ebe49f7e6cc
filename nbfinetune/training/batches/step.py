"""Step: the loss and the gradients of a batch, and what an optimizer step makes of them.

Gradients of several batches, and of the shares of several processes, are added up as those of one
large batch.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from nbfinetune.objectives.losses import batch_loss, check_batch
from nbfinetune.runtime.interrupts import whole
from nbfinetune.training.batches.feature_batches import FeatureBatches
from nbfinetune.training.batches.microbatches import (
    PictureBatches,
    is_sum,
    target_weights,
    training_parts,
)
from nbfinetune.training.batches.smaller_parts import optimizer_step
from nbfinetune.training.spmd.world import World
from nbfinetune.training.state import LearnerState


def backward(
    learn: LearnerState,
    batches: PictureBatches | FeatureBatches,
    x: Tensor,
    y: Tensor,
    size: int | None,
    counted: list[tuple[int, Tensor]],
    on_part: Callable[[], None],
) -> list[Tensor]:
    """Forward and backward; returns the losses of the parts, each with its share.

    Parameters
    ----------
    size : pictures in a part, None = one part
    counted : of the batches since the last step, the pictures and what these count in a mean
    on_part : called between the parts; where it raises an error nothing of this batch is left
    """
    weight = _weight(learn, y, counted)
    losses = []
    for inputs, targets, share in training_parts(learn, batches, x, y, size):
        if losses:
            on_part()
        logits = batches.logits(inputs, on_part)
        if learn.iter == 0:
            check_batch(logits, targets, learn.activation)
        if learn.world is not None and isinstance(weight, Tensor):
            logits.register_hook(partial(_of_what_counts, weight))
        with learn.autocast():
            loss = batch_loss(learn.loss_func, logits, targets)
        loss = loss if share == 1 else loss * share
        losses.append(loss.detach())
        learn.scaler.scale(loss if weight is None else loss * weight).backward()
    return losses


def _weight(
    learn: LearnerState, y: Tensor, counted: list[tuple[int, Tensor]]
) -> float | Tensor | None:
    """Times the loss of a batch, where its gradient is added to others; None = alone."""
    world = learn.world
    counts = world is None or world.at.counts
    if is_sum(learn.loss_func):
        return None if counts else 0.0
    if learn.accumulate == 1 and world is None:
        return None
    n = len(y) if world is None else world.at.n
    counted.append((n, target_weights(learn.loss_func, y).sum() * counts))
    return counted[-1][1] / counted[0][0]  # about 1: fp16 must not overflow


def _of_what_counts(weight: Tensor, grad: Tensor) -> Tensor:
    """A gradient, none where nothing of a share counts: the mean of nothing is not finite."""
    return grad.where(weight > 0, 0.0)


@whole
def make_step(learn: LearnerState, losses: list[Tensor], counted: list[tuple[int, Tensor]]) -> bool:
    """The loss of a batch, and after each `accumulate` batches an optimizer step; whether one."""
    loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
    learn.loss = loss if learn.world is None else _loss_of_all(learn.world, loss, counted)
    learn.unrecorded = True
    last = min(learn.iter - learn.iter % learn.accumulate + learn.accumulate, learn.n_iter) - 1
    if learn.iter < last:
        return False
    if counted or learn.world is not None:
        _divide_gradients(learn, counted)
    if learn.clip_grad is not None:
        learn.scaler.unscale_(learn.opt)
        clip_grad_norm_(learn.model.parameters(), learn.clip_grad)
    optimizer_step(partial(learn.scaler.step, learn.opt))
    learn.scaler.update()
    learn.opt.zero_grad()
    return True


def _divide_gradients(learn: LearnerState, counted: list[tuple[int, Tensor]]) -> None:
    """Make the mean of the sum, of all processes too, and begin to count anew."""
    whole = sum(weight for _, weight in counted) / counted[0][0] if counted else 1.0
    if learn.world is not None:
        whole = learn.world.sum_gradients(learn.model, whole)
    if counted:
        for p in learn.model.parameters():
            if p.grad is not None:
                p.grad /= whole
    counted.clear()


def _loss_of_all(world: World, loss: Tensor, counted: list[tuple[int, Tensor]]) -> Tensor:
    """The loss of a batch of which this process has a share."""
    return world.mean(loss, counted[-1][1]) if counted else world.total(loss * world.at.counts)
