"""Numbers for each class or channel, as lists, arrays, tensors or tables by name, checked."""

from collections.abc import Mapping, Sequence
from math import isfinite

import torch
from torch import Tensor

from nbfinetune.rendering.names import shown

Triple = tuple[float, float, float]


def class_counts(targets: Sequence[int], n: int) -> list[int]:
    """How many of the targets, which are class indices, are of each of n classes."""
    return torch.bincount(torch.as_tensor(targets, dtype=torch.int64), minlength=n).tolist()


def class_weights_of(
    weights: object, vocab: Sequence[str], targets: Sequence[int]
) -> Tensor | None:
    """The weight of each class for the loss, float32 [c]; None for None.

    Parameters
    ----------
    weights : "balanced", one number for each class in the order of `vocab`, or a dict or pandas
        Series of them by name or number of the class
    targets : of the training pictures, which "balanced" counts

    Raises
    ------
    ValueError
        For other numbers than one from 0 up for each class.
    """
    n = len(vocab)
    if weights is None:
        return None
    if isinstance(weights, str) and weights == "balanced":
        counts = torch.tensor(class_counts(targets, n))
        return counts.sum() / (n * counts.clamp(min=1).float())
    usage = f'class_weights must be "balanced" or {n} numbers from 0 up, one a class'
    if isinstance(weights, Mapping) or hasattr(weights, "items"):
        weights = _by_class(dict(weights.items()), list(vocab), usage)
    values = numbers(weights)
    if values is None or len(values) != n:
        found = f"{len(values)} numbers" if values else f"{type(weights).__name__} {shown(weights)}"
        raise ValueError(f"{usage}; got {' '.join(found.split())}")
    for name, value in zip(vocab, values, strict=True):
        if not (isfinite(value) and value >= 0):
            raise ValueError(f"{usage}; that of {name!r} is {value}")
    tensor = torch.tensor(values, dtype=torch.float32)  # in which the smallest become 0
    if not tensor.any():
        raise ValueError(f"{usage}; all of them are 0, so no picture would count")
    return tensor


def _by_class(weights: dict, vocab: list[str], usage: str) -> list[float]:
    """The values in the order of the classes, whose names or numbers are the keys."""
    for keys in (vocab, list(range(len(vocab)))):
        if set(weights) == set(keys):
            return [weights[key] for key in keys]
    odd = [key for key in weights if key not in vocab] or [c for c in vocab if c not in weights]
    raise ValueError(f"{usage}; by name they need all classes and no others, but see {odd[0]!r}")


def numbers(values: object) -> list[float] | None:
    """A flat sequence, array or tensor of numbers as Python's floats; None if it is none."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, (list, tuple)):
        return None
    try:
        return [float(v.item() if hasattr(v, "item") else v) for v in values]
    except (TypeError, ValueError, RuntimeError):
        return None


def checked_channels(normalize: object) -> tuple[Triple, Triple]:
    """Mean and standard deviation of the three channels as tuples.

    Raises
    ------
    ValueError
        If they are not two times three numbers for values in [0, 1].
    """
    usage = "normalize must be (mean, std), three numbers each, for values in [0, 1]"
    parts = list(normalize) if isinstance(normalize, (tuple, list)) else []
    both = [numbers(part) for part in parts]
    if len(both) != 2 or not all(values and len(values) == 3 for values in both):
        raise ValueError(f"{usage}; got {shown(normalize)}")
    mean, std = both
    if not all(0 <= m <= 1 for m in mean):
        raise ValueError(f"{usage}; the mean is {mean}; divide by 255 what is of bytes")
    if not all(isfinite(s) and s > 0 for s in std):
        raise ValueError(f"{usage}; the std is {std}, but must be above 0")
    return tuple(mean), tuple(std)
