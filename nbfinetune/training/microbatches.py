"""Microbatches: pieces of a batch whose losses add up to its own, to use less memory.

Also what pictures count in a loss: batches make one step, or one validation, as a large one would.
"""

from collections.abc import Iterator
from functools import partial
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from nbfinetune.objectives.losses import Loss
from nbfinetune.training.state import LearnerState

# Pictures in one; efficientnet_lite0, 224 px, ms a picture in batches of 16, 52, 64: 75, 115, 139,
# of which 11, 49 and 72 go into pages that the system clears.
_PICTURES = 16


def microbatch_size(learn: LearnerState) -> int | None:
    """Pictures that a training step takes at once on a CPU; None = its whole batch.

    Only where that changes no gradient: the pictures of a batch share nothing but the loss, which
    is the mean of cross entropy.
    """
    if learn.device.type != "cpu" or learn.transforms is None:
        return None
    shared = any(isinstance(m, _BatchNorm) and m.training for m in learn.model.modules())
    loss = learn.loss_func
    is_mean = type(loss) is nn.CrossEntropyLoss and loss.reduction == "mean"
    return _PICTURES if is_mean and not shared else None


def microbatches(
    y: Tensor, size: int | None, loss_func: nn.CrossEntropyLoss
) -> Iterator[tuple[slice, float | Tensor]]:
    """The pieces of a batch with targets y [n], and the share of each in its loss.

    Parameters
    ----------
    size : targets in a piece at most; all are of even size. None = one piece
    """
    if size is None or len(y) <= size or y.is_floating_point():
        yield slice(None), 1.0
        return
    counts = target_weights(loss_func, y)
    n, whole = ceil(len(y) / size), counts.sum()
    for k in range(n):
        piece = slice(k * len(y) // n, (k + 1) * len(y) // n)
        if share := counts[piece].sum() / whole:
            yield piece, share


def _option(loss_func: Loss, name: str) -> object:
    if isinstance(loss_func, partial):
        return loss_func.keywords.get(name, -100 if name == "ignore_index" else None)
    return getattr(loss_func, name, None)


def is_sum(loss_func: Loss) -> bool:
    """Whether the losses of pictures are added up."""
    return _option(loss_func, "reduction") == "sum"


def is_mean_of_pictures(loss_func: Loss, targets: Tensor | None = None) -> bool:
    """Whether the loss is surely a mean in which each picture counts the same.

    Parameters
    ----------
    targets : those that it is the loss of, if they are known already
    """
    if type(loss_func) is not nn.CrossEntropyLoss or loss_func.reduction != "mean":
        return False
    if targets is not None and bool((targets == loss_func.ignore_index).any()):
        return targets.is_floating_point()  # they hold no class indices
    return loss_func.weight is None


def target_weights(loss_func: Loss, targets: Tensor) -> Tensor:
    """What each target [n] counts in a mean: its class weight, 0 where it is ignored."""
    inner = getattr(loss_func, "func", loss_func)
    means = isinstance(inner, (nn.CrossEntropyLoss, nn.NLLLoss))
    if targets.is_floating_point() or not (means or inner in (F.cross_entropy, F.nll_loss)):
        return torch.ones(len(targets), device=targets.device)
    counts = targets != _option(loss_func, "ignore_index")
    weight = _option(loss_func, "weight")
    if weight is None:
        return counts.float()
    return counts * weight[torch.where(counts, targets, 0)]  # an ignored index may be none at all
