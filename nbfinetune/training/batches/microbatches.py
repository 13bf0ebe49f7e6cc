"""Microbatches: pieces of a batch whose losses add up to its own, to use less memory.

Between them a run can be paused and stopped.

Also what pictures count in a loss: batches make one step, or one validation, as a large one would.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from nbfinetune.objectives.logit_adjustment import LogitAdjustedLoss
from nbfinetune.objectives.losses import Loss
from nbfinetune.runtime.rng import RngState, get_rng_state, set_rng_state
from nbfinetune.training.batches.part_sizes import sizes
from nbfinetune.training.batches.smaller_parts import smaller_parts
from nbfinetune.training.state import LearnerState

# Pictures in one; efficientnet_lite0, 224 px, ms a picture in batches of 16, 52, 64: 75, 115, 139,
# of which 11, 49 and 72 go into pages that the system clears.
PICTURES = 16
_CROSS_ENTROPIES = (nn.CrossEntropyLoss, LogitAdjustedLoss)


def microbatch_size(learn: LearnerState) -> int | None:
    """Pictures that a training step takes at once on a CPU; None = its whole batch.

    Only where that changes no gradient: the pictures of a batch share nothing but the loss, which
    is the mean of cross entropy.
    """
    if learn.device.type != "cpu" or learn.transforms is None:
        return None
    shared = any(isinstance(m, _BatchNorm) and m.training for m in learn.model.modules())
    return PICTURES if is_mean_cross_entropy(learn.loss_func) and not shared else None


def picture_parts(learn: LearnerState, n: int) -> list[slice]:
    """The pieces of n pictures that go through a network which does not train."""
    in_parts = learn.device.type == "cpu" and learn.transforms is not None
    most = min(n, PICTURES) if in_parts else n
    return sizes(n, min(most, learn.memory.passes or n) or None)


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
    whole = counts.sum()
    for piece in sizes(len(y), size):
        if share := counts[piece].sum() / whole:
            yield piece, share


def training_parts(
    learn: LearnerState, batches: "PictureBatches", x: Tensor, y: Tensor, size: int | None
) -> Iterator[tuple[Tensor, Tensor, float | Tensor]]:
    """Inputs, targets and the share in the loss of what is trained on at once.

    What memory has no room for is made smaller after its augmentation, which stays the same.
    """
    weights = None if is_sum(learn.loss_func) else partial(target_weights, learn.loss_func)
    if learn.world is not None:  # what augmentation draws is drawn for all shares at once
        yield from smaller_parts(learn, batches.inputs(x), y, weights, size)
        return
    for piece, share in microbatches(y, size, learn.loss_func):
        inputs = batches.inputs(x[piece])
        for part, targets, of_piece in smaller_parts(learn, inputs, y[piece], weights):
            yield part, targets, share * of_piece


class PictureBatches:
    """Batches of a loader, which go to logits through the whole network."""

    def __init__(self, learn: LearnerState, loader: DataLoader, *, training: bool) -> None:
        self._learn, self._loader, self._training = learn, loader, training
        self._split = learn.precision_split(training=training)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        world = self._learn.world
        return iter(self._loader) if world is None else world.shares(self._loader)

    def parts(self, n: int) -> list[slice]:
        """Those that n pictures are predicted in."""
        return picture_parts(self._learn, n)

    def inputs(self, x: Tensor) -> Tensor:
        """The inputs of a batch, or of a piece of one, as the model takes them."""
        world = self._learn.world
        of = world.part() if self._training and world is not None else None
        return self._learn.prepare(x, training=self._training, of=of)

    def logits(self, inputs: Tensor, on_part: Callable[[], None]) -> Tensor:
        """Inputs to logits [n, c]."""
        return self._learn.logits(inputs, self._split)


class BatchOrNothing:
    """Gives back what a batch has changed that is dropped; no gradient is used by then.

    That is the statistics that move in training, and the random numbers of one in parts.

    Parameters
    ----------
    model : in the modes in which it trains
    size : pictures in a part, None = one part
    """

    def __init__(self, model: nn.Module, size: int | None) -> None:
        self._in_parts = size is not None
        self._moving = [b for m in model.modules() if m.training for b in m.buffers(recurse=False)]
        self._before = [b.detach().clone() for b in self._moving]
        self._rng: RngState | None = None

    def __enter__(self) -> None:
        if self._moving:
            _copy(self._moving, self._before)
        self._rng = get_rng_state() if self._in_parts else None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if self._moving:
            _copy(self._before, self._moving)
        if self._rng is not None:
            set_rng_state(self._rng)


@torch.no_grad()
def _copy(values: list[Tensor], places: list[Tensor]) -> None:
    torch._foreach_copy_(places, values)


def _option(loss_func: Loss, name: str) -> object:
    if isinstance(loss_func, partial):
        return loss_func.keywords.get(name, -100 if name == "ignore_index" else None)
    return getattr(loss_func, name, None)


def is_mean_cross_entropy(loss_func: Loss) -> bool:
    """Whether a loss is surely a mean of cross entropies; other subclasses may do anything."""
    return type(loss_func) in _CROSS_ENTROPIES and loss_func.reduction == "mean"


def is_sum(loss_func: Loss) -> bool:
    """Whether the losses of pictures are added up."""
    return _option(loss_func, "reduction") == "sum"


def is_mean_of_pictures(loss_func: Loss, targets: Tensor | None = None) -> bool:
    """Whether the loss is surely a mean in which each picture counts the same.

    Parameters
    ----------
    targets : those that it is the loss of, if they are known already
    """
    if not is_mean_cross_entropy(loss_func):
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
