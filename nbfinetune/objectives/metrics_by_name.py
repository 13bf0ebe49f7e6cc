"""Metrics by name: the usual ones, as text."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from torch import Tensor

from nbfinetune.objectives.metrics import (
    accuracy,
    balanced_accuracy,
    error_rate,
    top_k_accuracy,
)
from nbfinetune.objectives.named_metric import NamedMetric
from nbfinetune.objectives.sklearn_metrics import (
    SklearnMetric,
    average_precision,
    has_sklearn,
    is_exclusive,
    log_loss,
    roc_auc,
    sklearn_module,
    takes_scores,
)
from nbfinetune.rendering.names import shown

_HALF = 0.5
_AVERAGES = ("macro", "micro", "weighted")


def accuracy_multi(preds: Tensor, targets: Tensor) -> float:
    """Share of labels that are right at a probability of 0.5 (fastai's).

    Parameters
    ----------
    preds : probabilities, shape [n, c]
    targets : labels 0 and 1, shape [n, c]
    """
    _check_labels("accuracy_multi", preds, targets)
    return ((preds > _HALF) == (targets > _HALF)).float().mean().item()


def exact_match(preds: Tensor, targets: Tensor) -> float:
    """Share of pictures all of whose labels are right at 0.5; arguments as `accuracy_multi`."""
    _check_labels("exact_match", preds, targets)
    return ((preds > _HALF) == (targets > _HALF)).all(1).float().mean().item()


def _check_labels(name: str, preds: Tensor, targets: Tensor) -> None:
    if targets.shape != preds.shape or is_exclusive(preds, targets):
        raise ValueError(f'{name} is of several labels a picture; of classes there is "accuracy"')


_OURS: dict[str, Callable] = {
    "accuracy": accuracy,
    "error_rate": error_rate,
    "balanced_accuracy": balanced_accuracy,
    "top_k_accuracy": top_k_accuracy,
    "accuracy_multi": accuracy_multi,
    "exact_match": exact_match,
}
_COUNTING = ("exact_match",)  # pictures, which is not known by its name
_FALL = ("error_rate", "hamming_loss", "log_loss")
_SKLEARNS: dict[str, Callable] = {
    "cohen_kappa": SklearnMetric("cohen_kappa_score"),
    "matthews_corrcoef": SklearnMetric("matthews_corrcoef"),
    "hamming_loss": SklearnMetric("hamming_loss"),
    "log_loss": log_loss,
    "roc_auc": roc_auc,
    "average_precision": average_precision,
}
for _average in _AVERAGES:
    _SKLEARNS[f"roc_auc_{_average}"] = partial(roc_auc, average=_average)
    _SKLEARNS[f"average_precision_{_average}"] = partial(average_precision, average=_average)
for _name in ("f1", "precision", "recall", "jaccard"):
    _SKLEARNS[_name] = SklearnMetric(f"{_name}_score", {"zero_division": 0})
    for _average in (*_AVERAGES, "samples"):
        _options = {"average": _average, "zero_division": 0}
        _SKLEARNS[f"{_name}_{_average}"] = SklearnMetric(f"{_name}_score", _options)
NAMES = [*_OURS, "top_3_accuracy", *_SKLEARNS]
# What others call them.
_ELSEWHERE = {
    "acc": "accuracy",
    "err": "error_rate",
    "error": "error_rate",
    "top1": "accuracy",
    "top5": "top_5_accuracy",
    "top5_accuracy": "top_5_accuracy",
    "top_5": "top_5_accuracy",
    "auc": "roc_auc",
    "auroc": "roc_auc",
    "roc_auc_ovr": "roc_auc",
    "map": "average_precision",
    "mcc": "matthews_corrcoef",
    "kappa": "cohen_kappa",
    "iou": "jaccard_macro",
    "macro_f1": "f1_macro",
    "micro_f1": "f1_micro",
    "weighted_f1": "f1_weighted",
    "neg_log_loss": "log_loss",
    "cross_entropy": "log_loss",
    "mean_per_class_accuracy": "balanced_accuracy",
}


def metric_of_name(name: str) -> Callable:
    """The metric that is called so.

    It is one of `NAMES`, top_K_accuracy for any K, or a function of scikit-learn's, such as
    "f1_score".

    Raises
    ------
    ValueError
        If there is none; it names the nearest.
    """
    if name in _OURS:
        rises = name not in _FALL
        ours = _OURS[name]
        return NamedMetric(name, ours, rises, True) if name in _COUNTING else ours
    if top := re.fullmatch(r"top_([1-9]\d*)_accuracy", name):
        return NamedMetric(name, partial(top_k_accuracy, k=int(top[1])), True, True)
    if name in _SKLEARNS:
        if not has_sklearn():
            raise ValueError(
                f"the metric {name} is scikit-learn's, which is not installed: "
                "pip install scikit-learn"
            )
        return NamedMetric(name, _SKLEARNS[name], name not in _FALL)
    if _is_function_of_sklearn(name):
        return NamedMetric(name, SklearnMetric(name), None)
    return _refuse(name)


def _is_function_of_sklearn(name: str) -> bool:
    if not (name.endswith(("_score", "_loss", "_error")) and has_sklearn()):
        return False
    function = getattr(sklearn_module(), name, None)
    if function is None or name.startswith("_"):
        return False
    takes_scores(function)
    return True


def _refuse(name: str) -> Callable:
    plain = name.strip().casefold().replace("-", "_").replace(" ", "_")
    meant = _ELSEWHERE.get(plain)
    near = [meant] if meant else get_close_matches(plain, NAMES, 3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"no metric is called {shown(name)}; {hint}There are {', '.join(NAMES)}")
