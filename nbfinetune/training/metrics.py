"""Metrics: functions (preds, targets) -> float over all validation predictions of an epoch.

Computed once over everything, not as a mean of batches: a last batch that is smaller counts no more
than its pictures do.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

Metric = Callable[[Tensor, Tensor], float]


def accuracy(preds: Tensor, targets: Tensor) -> float:
    """Share of pictures whose most probable class is the target.

    Parameters
    ----------
    preds : probabilities or logits, shape [n, c]
    targets : class indices, shape [n]

    Examples
    --------
    >>> from torch import tensor
    >>> accuracy(tensor([[0.9, 0.1], [0.2, 0.8]]), tensor([0, 0]))
    0.5
    """
    return (preds.argmax(1) == targets).float().mean().item()


def error_rate(preds: Tensor, targets: Tensor) -> float:
    """1 - `accuracy`; arguments as there."""
    return 1 - accuracy(preds, targets)


def top_k_accuracy(preds: Tensor, targets: Tensor, *, k: int = 5) -> float:
    """Share of pictures whose target is among the `k` most probable classes.

    Parameters
    ----------
    preds : probabilities or logits, shape [n, c]
    targets : class indices, shape [n]
    k : how many classes count; clamped to c (fastai's default, 5)
    """
    top = preds.topk(min(k, preds.shape[1]), dim=1).indices
    return (top == targets[:, None]).any(1).float().mean().item()


def metric_name(metric: Metric) -> str:
    """The column title of a metric: its name, and for a partial the arguments: top_k_accuracy_3."""
    if isinstance(metric, partial):
        values = [*metric.args, *metric.keywords.values()]
        return "_".join([metric_name(metric.func), *map(str, values)])
    return getattr(metric, "__name__", type(metric).__name__)


def smaller_is_better(name: str) -> bool:
    """Whether a recorded value should fall: names with "loss" or "error" (fastai's rule)."""
    return "loss" in name or "error" in name


def has_known_direction(name: str) -> bool:
    """Whether the name tells if smaller or larger is better: it holds loss, error or accuracy."""
    return smaller_is_better(name) or "accuracy" in name
