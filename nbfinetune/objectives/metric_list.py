"""Metric lists: what users give as metrics, as functions (preds, targets) -> float.

Others' are known by what they have, not by their class, so that nothing is imported for it:
torchmetrics' by update, compute and reset, fastai's by reset, accumulate and value.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from nbfinetune.objectives.metrics import (
    COLUMNS,
    FORM,
    Metric,
    higher_is_better,
    is_share_of_pictures,
    metric_name,
)
from nbfinetune.objectives.metrics_by_name import metric_of_name
from nbfinetune.objectives.named_metric import NamedMetric
from nbfinetune.objectives.sklearn_metrics import SklearnMetric, is_sklearn
from nbfinetune.rendering.names import shown

_OF_OUTPUTS = (
    *("CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss", "MultiLabelSoftMarginLoss"),
    *("cross_entropy", "nll_loss", "binary_cross_entropy_with_logits"),
    "multilabel_soft_margin_loss",
)
_ROWS = 4096  # predictions that a metric with a state gets at once


def metric_list(metrics: object) -> list[Metric]:
    """The metrics as a list of functions; None and an empty sequence are none.

    Parameters
    ----------
    metrics : a metric, several, or a dict of names with one each. A metric is a function (preds,
        targets) -> float, the name of one (`metrics_by_name`), a function of scikit-learn, or an
        object of torchmetrics or fastai

    Raises
    ------
    ValueError
        If one is none of these, or has the name of another column.
    """
    listed: list[Metric] = []
    for metric in _each(metrics):
        listed += as_metrics(metric)
    names = [metric_name(metric) for metric in listed]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two metrics have the same name: {', '.join(names)}; name them with a dict: "
            f'metrics={{"first": ..., "second": ...}}'
        )
    if taken := [name for name in names if name in COLUMNS]:
        raise ValueError(
            f"a metric is called {taken[0]}, as a column that each run has "
            f"({', '.join(COLUMNS)}); give it another name"
        )
    return listed


def _each(metrics: object) -> list:
    if metrics is None:
        return []
    if isinstance(metrics, Mapping):
        return [_renamed(name, metric) for name, metric in metrics.items()]
    one = callable(metrics) or isinstance(metrics, (str, bytes)) or _is_stateful(metrics)
    return [metrics] if one or not isinstance(metrics, Iterable) else list(metrics)


def _renamed(name: object, metric: object) -> NamedMetric:
    if not isinstance(name, str):
        raise ValueError(f"metrics has the key {shown(name)}; keys are names, such as 'top3'")
    found = as_metrics(metric)
    if len(found) != 1:
        raise ValueError(f"metrics has {len(found)} metrics under the name {shown(name)}; give one")
    function = found[0]
    return NamedMetric(
        name,
        function,
        higher_is_better(function),
        is_share_of_pictures(function),
        getattr(function, "of_outputs", False),
    )


def as_metrics(metric: object) -> list[Metric]:
    """One metric, or those of a collection."""
    if isinstance(metric, str):
        return [metric_of_name(metric)]
    if isinstance(metric, type):
        raise ValueError(f"metric {metric.__name__} is a class; pass an instance of it")
    if _is_stateful(metric):
        members = metric.items() if callable(getattr(metric, "items", None)) else None
        if members is not None:  # torchmetrics' MetricCollection
            return [_of_torchmetrics(each, name) for name, each in members]
        return [_of_torchmetrics(metric, type(metric).__name__)]
    if _is_fastais(metric):
        return [_of_fastai(metric)]
    if not callable(metric):
        raise ValueError(
            f"metrics holds {shown(metric)}, a {type(metric).__name__}; {FORM}, or the name of "
            'one, such as "accuracy" or "f1_macro"'
        )
    if _is_loss_of_outputs(metric):
        return [_of_outputs(metric)]
    if is_sklearn(metric):
        name = metric_name(metric)
        return [NamedMetric(name, SklearnMetric(metric), higher_is_better(metric))]
    return [metric]


def _is_loss_of_outputs(metric: object) -> bool:
    """Whether this is a loss of torch that takes logits, or logarithms, and no probabilities."""
    inner = metric.func if isinstance(metric, partial) else metric
    kind = type(inner) if isinstance(inner, nn.Module) else inner
    home = str(getattr(kind, "__module__", ""))
    return home.startswith("torch.nn.") and getattr(kind, "__name__", "") in _OF_OUTPUTS


def _of_outputs(metric: Metric) -> NamedMetric:
    return NamedMetric(metric_name(metric), metric, higher_is_better(metric), of_outputs=True)


def _is_stateful(metric: object) -> bool:
    return not isinstance(metric, type) and all(
        callable(getattr(metric, name, None)) for name in ("update", "compute", "reset")
    )


def _is_fastais(metric: object) -> bool:
    own = all(callable(getattr(metric, name, None)) for name in ("reset", "accumulate"))
    return own and hasattr(type(metric), "value")


def _of_torchmetrics(metric: object, name: str) -> NamedMetric:
    stated = getattr(metric, "higher_is_better", None)
    rises = stated if isinstance(stated, bool) else None
    kind = type(metric).__name__
    counts = kind == "BinaryAccuracy" or (
        kind == "MulticlassAccuracy" and getattr(metric, "average", None) == "micro"
    )
    return NamedMetric(name, WholePass(metric), rises, counts)


class WholePass:
    """A metric with a state, of all predictions at once: nothing is left in it before or after.

    An error, or an interrupt, leaves it empty too. Where it lies, there it computes: a metric that
    was moved to a GPU gets its predictions there.
    """

    def __init__(self, metric: object) -> None:
        self.metric = metric
        self._kind = type(metric).__name__
        home = type(metric).__module__
        self._of_classes = home.startswith(("torchmetrics", "torcheval")) and "class" in home

    def __call__(self, preds: Tensor, targets: Tensor) -> object:
        metric, device = self.metric, getattr(self.metric, "device", preds.device)
        # Binary metrics take the probability of the second class.
        if self._kind.startswith("Binary") and targets.ndim == 1 and preds.shape[1] == 2:
            preds = preds[:, 1]
        if self._kind.startswith("Multiclass") and targets.ndim > 1:  # it would count labels
            several = self._kind.replace("Multiclass", "Multilabel")
            raise ValueError(f"it is of one class a picture; of several labels there is {several}")
        if self._of_classes and torch.equal(targets, targets.round()):
            targets = targets.long()
        metric.reset()
        try:
            for x, y in zip(preds.split(_ROWS), targets.split(_ROWS), strict=True):
                metric.update(x.to(device), y.to(device))
            return metric.compute()
        finally:
            metric.reset()


def _of_fastai(metric: object) -> NamedMetric:
    function = FastaiMetric(metric)
    rises = higher_is_better(NamedMetric(metric.name, function))
    counts = is_share_of_pictures(NamedMetric(metric.name, function))
    return NamedMetric(metric.name, function, rises, counts, of_outputs=True)


class FastaiMetric:
    """A metric of fastai, of all outputs at once."""

    def __init__(self, metric: object) -> None:
        self.metric = metric

    def __call__(self, outputs: Tensor, targets: Tensor) -> object:
        learn = SimpleNamespace(
            pred=outputs,
            y=targets,
            yb=(targets,),
            to_detach=lambda x, *args, **kwargs: x.detach().cpu() if hasattr(x, "detach") else x,
        )
        self.metric.reset()
        try:
            self.metric.accumulate(learn)
            return self.metric.value
        finally:
            self.metric.reset()
