"""Microbatches: pieces of a batch whose losses add up to its own, to use less memory."""

from collections.abc import Iterator
from math import ceil

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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
    counts = (y != loss_func.ignore_index).float()
    if loss_func.weight is not None:
        counts = counts * loss_func.weight[y.clamp(min=0)]
    n, whole = ceil(len(y) / size), counts.sum()
    for k in range(n):
        piece = slice(k * len(y) // n, (k + 1) * len(y) // n)
        if share := counts[piece].sum() / whole:
            yield piece, share
