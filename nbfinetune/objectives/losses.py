"""Losses: what a loss function gives, what it counts, and what outputs mean to it.

What turns a model's outputs into probabilities is decided here alone, by the loss it trains with.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from warnings import warn

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from nbfinetune.rendering.names import shown
from nbfinetune.runtime.rng import seeded_rng

Loss = Callable[[Tensor, Tensor], Tensor]
Activation = Callable[[Tensor], Tensor]

_LOOKED_AT = 100  # rows whose sums are looked at: a model gives probabilities of all or of none
# Probabilities in bfloat16, or written with two decimals, sum up to 1 within this.
ROUNDING = 0.02


def softmax(outputs: Tensor) -> Tensor:
    """Probabilities of classes that exclude each other, of logits [n, c]."""
    return outputs.softmax(1)


def _as_they_are(outputs: Tensor) -> Tensor:
    return outputs


# What the outputs are to the losses of torch: logits of classes, logits of labels, logarithms of
# probabilities, or probabilities.
_ACTIVATIONS: dict[object, Activation] = {
    **dict.fromkeys((nn.CrossEntropyLoss, F.cross_entropy), softmax),
    **dict.fromkeys((nn.MultiMarginLoss, F.multi_margin_loss), softmax),
    **dict.fromkeys((nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits), torch.sigmoid),
    **dict.fromkeys((nn.MultiLabelSoftMarginLoss, F.multilabel_soft_margin_loss), torch.sigmoid),
    sigmoid_focal_loss: torch.sigmoid,
    **dict.fromkeys((nn.NLLLoss, F.nll_loss, nn.KLDivLoss, F.kl_div), torch.exp),
    **dict.fromkeys((nn.BCELoss, F.binary_cross_entropy), _as_they_are),
}
_OF_TORCH = ("torch.nn.modules.loss", "torch.nn.functional")
_SAY = (
    "say how its outputs become probabilities: loss_func.activation = torch.sigmoid for labels "
    "that do not exclude each other, lambda x: x.softmax(1) for classes that do, torch.exp for "
    "logarithms, lambda x: x for probabilities"
)


def loss_name(loss_func: Loss) -> str:
    """What messages call a loss."""
    loss_func = getattr(loss_func, "func", loss_func)  # of a partial
    return str(getattr(loss_func, "__name__", type(loss_func).__name__))


def check_form(loss_func: object) -> None:
    """Raise ValueError for what is no loss function."""
    if isinstance(loss_func, type):
        raise ValueError(f"loss_func is the class {loss_func.__name__}; pass an instance of it")
    if not callable(loss_func):
        raise ValueError(
            f"loss_func is {shown(loss_func)}; it must be a function (outputs, targets) -> loss, "
            "such as nn.CrossEntropyLoss()"
        )


def activation_of(loss_func: Loss, c: int, device: torch.device | str = "cpu") -> Activation:
    """What turns outputs [n, c] into probabilities.

    It is `loss_func.activation` where there is one (fastai's rule), else what the losses of torch
    need. A loss of the user's own is taken for one of softmax if it does not change when all
    outputs of a picture grow alike, as is so of softmax alone.

    Raises
    ------
    ValueError
        If that is not known.
    """
    inner = getattr(loss_func, "func", loss_func)
    stated = getattr(loss_func, "activation", getattr(inner, "activation", None))
    if stated is not None:
        if isinstance(stated, type) or not callable(stated):
            raise ValueError(
                f"loss_func.activation is {shown(stated)}; give a function: torch.sigmoid"
            )
        return stated
    parts = list(inner.modules()) if isinstance(inner, nn.Module) else [inner]
    found = {
        known: None
        for part in parts
        for kind, known in _ACTIVATIONS.items()
        if part is kind or (isinstance(kind, type) and isinstance(part, kind))
    }
    if len(found) == 1:
        return next(iter(found))
    own = type(inner) if isinstance(inner, nn.Module) else inner
    if found or getattr(own, "__module__", "") in _OF_TORCH:
        raise ValueError(f"what loss_func {loss_name(loss_func)} takes is not known; {_SAY}")
    if not _is_of_softmax(loss_func, c, device):
        raise ValueError(
            f"loss_func {loss_name(loss_func)} is no loss of softmax: it changes when all outputs "
            f"of a picture grow alike; {_SAY}"
        )
    return softmax


def _is_of_softmax(loss_func: Loss, c: int, device: torch.device | str) -> bool:
    """Whether equal shifts of a picture's outputs leave the loss; True if it cannot be tried."""
    for outputs, targets in _trials(c, device):
        with seeded_rng(0), torch.no_grad():
            try:
                tried = copy_for_trial(loss_func)
                losses = [tried(x, targets) for x in (outputs, outputs + 1)]
            except Exception:  # it takes targets of another kind
                continue
        if all(isinstance(loss, Tensor) for loss in losses):
            return torch.allclose(*losses, rtol=1e-3, atol=1e-4, equal_nan=True)
    return True


def copy_for_trial(function: Loss) -> Loss:
    """A copy, so that a trial leaves no trace in what counts or remembers, if there can be one."""
    try:
        return deepcopy(function)
    except Exception:  # locks and files cannot be copied
        return function


def _trials(c: int, device: torch.device | str) -> Iterator[tuple[Tensor, Tensor]]:
    """Some outputs [n, c] with targets, first class indices [n], then labels [n, c]."""
    n = 3 if c == 2 else 2  # not c: targets [n] would fit the outputs
    outputs = torch.arange(n * c, dtype=torch.float32, device=device).sin().view(n, c)
    yield outputs, torch.arange(n, device=device) % c
    yield outputs, (outputs > 0).float()


def takes_indices(loss_func: Loss, c: int, device: torch.device | str = "cpu") -> bool | None:
    """Whether its targets are class indices [n], else labels [n, c]; None = both, or neither."""
    taken = []
    for outputs, targets in _trials(c, device):
        try:
            with seeded_rng(0), torch.no_grad():
                batch_loss(copy_for_trial(loss_func), outputs, targets)
            taken.append(True)
        except Exception:  # of whatever kind
            taken.append(False)
    return taken[0] if taken[0] != taken[1] else None


def check_loss(loss_func: Loss, c: int, device: torch.device | str = "cpu") -> None:
    """Raise ValueError unless it gives a loss of class indices [n], with gradients."""
    outputs, targets = next(_trials(c, device))
    with seeded_rng(0), torch.enable_grad():
        loss = batch_loss(copy_for_trial(loss_func), outputs.requires_grad_(), targets)
    if not loss.requires_grad:
        raise ValueError(
            f"loss_func {loss_name(loss_func)} gives a loss without gradients; compute it from "
            "the outputs with torch, without detach, item or NumPy"
        )


def batch_loss(loss_func: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of a batch, a scalar; the mean of a loss that is one for each picture or label.

    Raises
    ------
    ValueError
        If the loss does not take these, or gives no tensor.
    """
    try:
        loss = loss_func(outputs, targets)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        hint = ""
        if targets.ndim == 1 and targets.is_floating_point():
            hint = "; class indices are whole numbers: targets.long()"
        elif targets.ndim == 1 and not isinstance(loss_func, nn.CrossEntropyLoss):
            hint = "; for class indices use nn.CrossEntropyLoss()"
        raise ValueError(
            f"loss_func {loss_name(loss_func)} does not take outputs {list(outputs.shape)} with "
            f"targets {list(targets.shape)} of {targets.dtype}: {_first_line(error)}{hint}"
        ) from error
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        raise ValueError(
            f"loss_func {loss_name(loss_func)} gives a {type(loss).__name__}; it has to give one "
            "tensor of floats, the loss of the batch or of each picture"
        )
    return loss if loss.ndim == 0 else loss.mean()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def probabilities(outputs: Tensor, activation: Activation) -> Tensor:
    """What outputs [n, c] of a model mean, [n, c].

    Raises
    ------
    ValueError
        If they are not what the loss takes, as far as that can be seen.
    """
    preds = activation(outputs)
    if preds.shape != outputs.shape:
        raise ValueError(
            f"loss_func.activation gives {list(preds.shape)} of outputs {list(outputs.shape)}; "
            "it has to give a probability for each"
        )
    rows = preds[:_LOOKED_AT].detach().float()
    rows = rows[rows.isfinite().all(1)]
    if activation is torch.exp and not _sum_to_one(rows):
        raise ValueError(
            "the loss takes logarithms of probabilities, and the model gives none: their "
            "exponentials do not sum to 1; end the model with nn.LogSoftmax(1), or use "
            "loss_func=nn.CrossEntropyLoss()"
        )
    if activation is _as_they_are and not bool(((rows >= 0) & (rows <= 1)).all()):
        raise ValueError(
            "the loss takes probabilities, and the model gives numbers outside [0, 1]; end it "
            "with nn.Sigmoid(), or use loss_func=nn.BCEWithLogitsLoss()"
        )
    return preds


def _sum_to_one(rows: Tensor) -> bool:
    return bool(((rows.sum(1) - 1).abs() <= ROUNDING).all())


def check_batch(outputs: Tensor, targets: Tensor, activation: Activation) -> None:
    """Raise ValueError if outputs or targets are surely not what the loss takes.

    Of logits with class indices, the usual case, it looks at no value: that would wait for the
    device.
    """
    if activation in (torch.exp, _as_they_are):
        probabilities(outputs, activation)
    if activation is softmax and targets.is_floating_point() and targets.ndim > 1:
        sums = targets.flatten(1).sum(1)
        if not _sum_to_one(targets.flatten(1)):
            row = int((sums - 1).abs().argmax())
            raise ValueError(
                f"the loss is of classes that exclude each other, but the targets of row {row} "
                f"sum to {sums[row]:.3g}; for several labels use loss_func=nn.BCEWithLogitsLoss()"
            )


def warn_of_probabilities(outputs: Tensor, activation: Activation) -> None:
    """Warn if outputs, on the CPU, that are to be logits are probabilities already."""
    rows = outputs[:_LOOKED_AT]
    if activation is softmax and len(rows) and bool((rows >= 0).all()) and _sum_to_one(rows):
        warn(_TWICE.format("gives probabilities"), stacklevel=7)


def warn_of_last_layer(model: nn.Module, activation: Activation) -> None:
    """Warn if the model ends with what its loss does once more."""
    *_, last = model.modules()
    ends = isinstance(last, (nn.Softmax, nn.Sigmoid))
    if ends and activation in (softmax, torch.sigmoid):
        warn(_TWICE.format(f"ends with {type(last).__name__}"), stacklevel=3)


_TWICE = (
    "the model {}, but its loss takes logits: softmax or sigmoid would be taken twice and it "
    "would learn badly; leave that layer out"
)
