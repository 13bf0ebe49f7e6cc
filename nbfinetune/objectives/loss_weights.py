"""Losses: with their weights where and as the logits are, as many as there are classes."""

from functools import partial

import torch
from torch import Tensor, nn

from nbfinetune.objectives.losses import Loss, check_form

_BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)  # a weight and an output a class


def usable_loss(loss_func: Loss | None, device: torch.device) -> Loss:
    """The loss with its weights in float32 on the device, as the logits are.

    Raises
    ------
    ValueError
        If it is none, or has weights that are negative, not finite or all 0.
    """
    if loss_func is None:
        return nn.CrossEntropyLoss()
    check_form(loss_func)
    if isinstance(loss_func, nn.Module):
        weight = loss_weight(loss_func)
        if weight is not None and not bool((weight.isfinite() & (weight >= 0)).all()):
            raise ValueError(f"loss_func has the weights {weight.tolist()}; all must be from 0 up")
        if weight is not None and not weight.float().any():
            raise ValueError("all weights of loss_func are 0, so each loss would be NaN")
        smoothing = getattr(loss_func, "label_smoothing", 0.0)
        if isinstance(loss_func, nn.CrossEntropyLoss) and not 0 <= smoothing <= 1:
            raise ValueError(f"loss_func has the label_smoothing {smoothing}; it must be in [0, 1]")
        return loss_func.to(device, torch.float32)
    if type(loss_func) is partial:
        moved = {
            key: value.to(device, torch.float32 if value.is_floating_point() else None)
            for key, value in loss_func.keywords.items()
            if isinstance(value, Tensor)
        }
        return partial(loss_func, **moved) if moved else loss_func
    return loss_func


def loss_weight(loss_func: Loss) -> Tensor | None:
    """The weight of each class in a loss over classes, None for others."""
    return loss_func.weight if isinstance(loss_func, _BY_CLASS) else None


def check_loss_weight(loss_func: Loss, vocab: list[str] | None) -> None:
    """Raise ValueError unless a loss over classes has as many weights as there are classes."""
    weight = loss_weight(loss_func)
    if weight is not None and vocab and len(weight) != len(vocab):
        raise ValueError(
            f"loss_func has {len(weight)} weights, but the data {len(vocab)} classes; give one each"
        )


def check_outputs(n_out: int, vocab: list[str] | None, loss_func: Loss) -> None:
    """Raise ValueError unless a loss over classes has as many weights and classes as outputs."""
    weight = loss_weight(loss_func)
    if weight is not None and len(weight) != n_out:
        raise ValueError(f"loss_func has {len(weight)} weights, but the model {n_out} outputs")
    if vocab and isinstance(loss_func, _BY_CLASS) and n_out != len(vocab):
        raise ValueError(
            f"the data has {len(vocab)} classes, but the model {n_out} outputs; "
            f"give its last layer {len(vocab)}"
        )
