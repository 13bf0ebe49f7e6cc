"""Metrics of scikit-learn, which take (targets, classes) or (targets, scores) as NumPy arrays."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import isfunction, signature

import numpy as np
import torch
from torch import Tensor

from nbfinetune.objectives.losses import ROUNDING

_HALF = 0.5  # a label whose probability is above this is predicted (fastai's and torchmetrics')
# What scikit-learn calls the second parameter of functions that take classes.
_CLASSES = ("y_pred", "labels_pred", "y2")
_PROBABILITIES = ("log_loss",)  # calls them y_pred too


def sklearn_module() -> object:
    """scikit-learn's metrics, imported when they are first needed.

    Raises
    ------
    ValueError
        If it is not installed.
    """
    if not has_sklearn():
        raise ValueError("it is scikit-learn's, which is not installed: pip install scikit-learn")
    return import_module("sklearn.metrics")


def has_sklearn() -> bool:
    """Whether scikit-learn is installed; it is not imported."""
    return find_spec("sklearn") is not None


def is_sklearn(metric: object) -> bool:
    """Whether this is one of scikit-learn's functions, or a partial of one."""
    inner = getattr(metric, "func", metric)
    home = str(getattr(inner, "__module__", ""))
    return home.startswith("sklearn.metrics") and isfunction(inner)


@dataclass(frozen=True)
class SklearnMetric:
    """A function of scikit-learn as one of (preds, targets).

    Parameters
    ----------
    function : it, a partial of it, or its name
    options : its further arguments
    """

    function: Callable | str
    options: dict = field(default_factory=dict)

    def __call__(self, preds: Tensor, targets: Tensor) -> float:
        function = self.function
        if isinstance(function, str):
            function = getattr(sklearn_module(), function)
        if not takes_scores(function):
            return function(*classes(preds, targets), **self.options)
        options = self.options
        if is_exclusive(preds, targets) and _lacks_labels(function):
            # Of pictures none of which has some class.
            options = {"labels": list(range(preds.shape[1]))} | options
        return function(*scores(preds, targets), **options)


def takes_scores(function: Callable) -> bool:
    """Whether a function of scikit-learn takes probabilities, as its parameters are called."""
    inner = function.func if isinstance(function, partial) else function
    second = [*signature(inner).parameters][1:2]
    return inner.__name__ in _PROBABILITIES or second[0] not in _CLASSES


def _lacks_labels(function: Callable) -> bool:
    """Whether a function of scikit-learn can be told the classes there are, and is not."""
    known = function.keywords if isinstance(function, partial) else {}
    return "labels" in signature(function).parameters and "labels" not in known


def is_exclusive(preds: Tensor, targets: Tensor) -> bool:
    """Whether each picture has one class: its index, or a row whose probabilities sum to 1."""
    if targets.ndim == 1:
        return True
    sums = preds.double().sum(1) - 1
    return preds.shape[1] > 1 and bool((sums.abs() <= ROUNDING).all())


def classes(preds: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What is right and what is predicted: class indices [n], or labels 0 and 1, [n, c]."""
    if is_exclusive(preds, targets):
        indices = targets if targets.ndim == 1 else targets.argmax(1)
        return indices.numpy(), preds.argmax(1).numpy()
    actual, predicted = (_column((t > _HALF).long()) for t in (targets, preds))
    return actual.numpy(), predicted.numpy()


def scores(preds: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What is right, as in `classes`, and probabilities: [n, c], of two classes the second's."""
    actual, _ = classes(preds, targets)
    probs = preds.double()
    if is_exclusive(preds, targets):
        probs = probs / probs.sum(1, keepdim=True)  # scikit-learn warns of float32's rounding
        return actual, (probs[:, 1] if probs.shape[1] == 2 else probs).numpy()
    return actual, _column(probs).numpy()


def _column(values: Tensor) -> Tensor:
    return values[:, 0] if values.shape[1] == 1 else values


def _one_against_rest(preds: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0 and 1 [n, k] and their probabilities, of the classes that some pictures have and
    some have not: of the others no curve is defined."""
    actual = targets > _HALF if targets.ndim > 1 else targets[:, None]
    if targets.ndim == 1:
        actual = actual == torch.arange(preds.shape[1])
    mixed = actual.any(0) & ~actual.all(0)
    return actual[:, mixed].long().numpy(), preds[:, mixed].double().numpy()


def roc_auc(preds: Tensor, targets: Tensor, *, average: str = "macro") -> float:
    """The area under the ROC curve of each class against the rest, averaged; NaN if none has one.

    It is scikit-learn's roc_auc_score(multi_class="ovr"), and of two classes the binary one.
    """
    actual, probs = _one_against_rest(preds, targets)
    function = sklearn_module().roc_auc_score
    return float(function(actual, probs, average=average)) if actual.shape[1] else float("nan")


def average_precision(preds: Tensor, targets: Tensor, *, average: str = "macro") -> float:
    """The area under the precision-recall curve, averaged over classes or labels (mAP).

    Of two classes it is that of the second, as scikit-learn's.
    """
    actual, probs = _one_against_rest(preds, targets)
    if targets.ndim == 1 and preds.shape[1] == 2:
        actual, probs = actual[:, -1:], probs[:, -1:]
    if not actual.shape[1]:
        return float("nan")
    return float(sklearn_module().average_precision_score(actual, probs, average=average))


def log_loss(preds: Tensor, targets: Tensor) -> float:
    """The mean of -log p of the right class."""
    if not is_exclusive(preds, targets):
        raise ValueError("log_loss is of classes that exclude each other; here are several labels")
    actual, _ = classes(preds, targets)
    probs = preds.double() / preds.double().sum(1, keepdim=True)
    every = list(range(preds.shape[1]))
    return float(sklearn_module().log_loss(actual, probs.numpy(), labels=every))
