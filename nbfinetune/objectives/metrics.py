"""Metrics: functions (preds, targets) -> float over all validation predictions of an epoch.

Computed once over everything, not as a mean of batches: a last batch that is smaller counts no more
than its pictures do.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from numbers import Real

import torch
from torch import Tensor

from nbfinetune.objectives.losses import (
    Activation,
    Loss,
    activation_of,
    check_loss,
    copy_for_trial,
    takes_indices,
)
from nbfinetune.rendering.names import shown
from nbfinetune.runtime.rng import seeded_rng

Metric = Callable[[Tensor, Tensor], float]

COLUMNS = ("epoch", "train_loss", "valid_loss", "time")  # of the epoch table
_MOST_TRIED = 1000  # classes of which a trial has a picture each: 4 MB
FORM = "a metric is a function (preds, targets) -> float"
# What known metrics are called, in small letters and without signs between the words.
_RISING = (
    "accuracy topkaccuracy top1accuracy top5accuracy balancedaccuracy accuracymulti acc "
    "f1 f1score f1scoremulti fbeta fbetascore macrof1 microf1 precision precisionscore recall "
    "recallscore sensitivity specificity auc auroc rocauc rocaucscore averageprecision "
    "averageprecisionscore map dice dicescore jaccard jaccardscore iou meaniou miou "
    "matthewscorrcoef mcc cohenkappa cohenkappascore kappa r2 r2score loglikelihood "
    "accuracyscore balancedaccuracyscore topkaccuracyscore"
)
_FALLING = (
    "errorrate error top1error top5error err loss logloss crossentropy crossentropyloss nll "
    "nllloss perplexity mse meansquarederror rmse rootmeansquarederror mae meanabsoluteerror "
    "brier brierscore brierscoreloss hammingloss zerooneloss hingeloss ece calibrationerror "
    "expectedcalibrationerror falsepositiverate falsenegativerate"
)
# Those of them that count pictures.
_COUNTING = (
    "accuracy topkaccuracy top1accuracy top5accuracy acc accuracyscore topkaccuracyscore "
    "errorrate error top1error top5error err zerooneloss"
)
_RISE, _FALL, _SHARES = (frozenset(names.split()) for names in (_RISING, _FALLING, _COUNTING))


def accuracy(preds: Tensor, targets: Tensor) -> float:
    """Share of pictures whose most probable class is the target.

    Parameters
    ----------
    preds : probabilities or logits, shape [n, c]
    targets : class indices, shape [n]

    Raises
    ------
    ValueError
        If targets are no class indices.

    Examples
    --------
    >>> from torch import tensor
    >>> accuracy(tensor([[0.9, 0.1], [0.2, 0.8]]), tensor([0, 0]))
    0.5
    """
    _check_indices("accuracy", preds, targets)
    return (preds.argmax(1) == targets).float().mean().item()


def error_rate(preds: Tensor, targets: Tensor) -> float:
    """1 - `accuracy`; arguments as there."""
    _check_indices("error_rate", preds, targets)
    return 1 - accuracy(preds, targets)


def top_k_accuracy(preds: Tensor, targets: Tensor, *, k: int = 5) -> float:
    """Share of pictures whose target is among the `k` most probable classes.

    Parameters
    ----------
    preds : probabilities or logits, shape [n, c]
    targets : class indices, shape [n]
    k : how many classes count; clamped to c (fastai's default, 5)
    """
    _check_indices("top_k_accuracy", preds, targets)
    top = preds.topk(min(k, preds.shape[1]), dim=1).indices
    return (top == targets[:, None]).any(1).float().mean().item()


def balanced_accuracy(preds: Tensor, targets: Tensor) -> float:
    """Mean over the classes of the share of their pictures that is right (scikit-learn's).

    A class counts the same whether it has many pictures or few; classes that no target has do not
    count.

    Parameters
    ----------
    preds : probabilities or logits, shape [n, c]
    targets : class indices, shape [n]

    Examples
    --------
    >>> from torch import tensor
    >>> preds = tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    >>> balanced_accuracy(preds, tensor([0, 0, 0, 1]))
    0.5
    """
    _check_indices("balanced_accuracy", preds, targets)
    classes, members = targets.unique(return_inverse=True)
    right = (preds.argmax(1) == targets).double()
    rights = members.bincount(right, minlength=len(classes))
    return (rights / members.bincount(minlength=len(classes))).mean().item()


def _check_indices(name: str, preds: Tensor, targets: Tensor) -> None:
    """Other shapes would be broadcast: right or wrong, of other pictures."""
    if preds.ndim != 2 or targets.shape != preds.shape[:1]:
        raise ValueError(
            f"{name} compares preds [n, c] with class indices [n], and got {list(preds.shape)} "
            f"and {list(targets.shape)}; of several labels there are "
            "'accuracy_multi', 'f1_macro', 'roc_auc' and others"
        )
    if len(targets) and targets.max() >= preds.shape[1]:
        raise ValueError(
            f"{name} got class indices up to {targets.max():g}, but the probabilities of "
            f"{preds.shape[1]} classes; the model needs an output for each class"
        )


def metric_name(metric: Metric) -> str:
    """The column title of a metric: its name, and for a partial the arguments: top_k_accuracy_3."""
    if isinstance(metric, partial):
        values = [*metric.args, *metric.keywords.values()]
        return "_".join([metric_name(metric.func), *map(str, values)])
    return str(getattr(metric, "__name__", type(metric).__name__))


def metric_value(
    metric: Metric, preds: Tensor, targets: Tensor, outputs: Tensor | None = None
) -> float:
    """What a metric gives, as a float.

    Parameters
    ----------
    outputs : what the model gave, for the metrics that take that in place of probabilities

    Raises
    ------
    ValueError
        If it raises, or gives anything but one number.
    """
    name = metric_name(metric)
    try:
        takes_outputs = outputs is not None and getattr(metric, "of_outputs", False)
        value = metric(outputs if takes_outputs else preds, targets)
    except Exception as error:
        text = (str(error).strip() or "no text").splitlines()[0]
        raise ValueError(
            f"metric {name} fails on preds {list(preds.shape)} and targets {list(targets.shape)}: "
            f"{type(error).__name__}: {text}; {FORM}{_hint(metric, text)}"
        ) from error
    shape = getattr(value, "shape", None)
    if shape is not None and all(side == 1 for side in shape):
        value = value.item()
    if not isinstance(value, Real):
        what = shown(value) if shape is None else f"values of the shape {list(shape)}"
        raise ValueError(f"metric {name} gives {what}, not one number; {FORM}")
    return float(value)


def _hint(metric: Metric, text: str) -> str:
    if "average='binary'" in text:  # scikit-learn's, of several classes
        name = metric_name(metric).removesuffix("_score")
        return f'; of several classes type "{name}_macro", "{name}_micro" or "{name}_weighted"'
    if "multi_class must be in" in text:
        return '; of several classes type "roc_auc"'
    home = type(metric).__module__
    if home.startswith("sklearn.metrics"):  # a scorer (estimator, X, y)
        return '; give the name of a metric, such as "f1_macro"'
    return ""


def try_out(
    loss_func: Loss, metrics: Iterable[Metric], c: int, device: torch.device, *, pictures: bool
) -> None:
    """Compute the loss and each metric, of copies, on a few made-up predictions of c classes.

    Parameters
    ----------
    pictures : whether the targets will be class indices [n]; else what the loss takes is found out

    Raises
    ------
    ValueError
        If one cannot be computed, or changes the predictions.
    """
    if pictures:
        check_loss(loss_func, c, device)
    indices = pictures or takes_indices(loss_func, c, device)
    activation = activation_of(loss_func, c, device)
    for metric in metrics:
        problems = []
        for outputs, preds, targets in _trials(c, activation, indices):
            try:
                _try(metric, preds, targets, outputs)
                break
            except ValueError as error:
                problems.append(error)
        else:
            raise problems[0]


def _trials(
    c: int, activation: Activation, indices: bool | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    # All classes, as some metrics refuse to miss one; not [c, c], where [n] is broadcast as [c] is.
    n = c + 1 if c <= _MOST_TRIED else 2
    outputs = torch.arange(n * c, dtype=torch.float32).sin().view(n, c)
    preds = activation(outputs)
    if not bool(((preds >= 0) & (preds <= 1)).all()):  # of a model that gives probabilities
        preds = outputs.softmax(1)
    kinds = [torch.arange(n) % c, (outputs > 0).float()]
    if activation is torch.sigmoid:
        kinds.reverse()
    for targets in kinds:
        if indices is None or indices == (targets.ndim == 1):
            yield outputs, preds, targets


def _try(metric: Metric, preds: Tensor, targets: Tensor, outputs: Tensor) -> None:
    given = preds.clone(), targets.clone(), outputs.clone()
    with seeded_rng(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric_value(copy_for_trial(metric), *given)
    if not torch.equal(given[0], preds) or not torch.equal(given[1], targets):
        raise ValueError(
            f"metric {metric_name(metric)} changes the predictions or targets that it is given; "
            "let it work on a copy, such as preds.clone()"
        )


def higher_is_better(metric: Metric) -> bool | None:
    """Whether a metric should rise; None if that is not known.

    It is the attribute `higher_is_better` where there is one (torchmetrics' rule), else what is
    known of metrics of this name. Names are compared whole.
    """
    stated = getattr(metric, "higher_is_better", None)
    if isinstance(metric, partial) and stated is None:
        return higher_is_better(metric.func)
    if isinstance(stated, bool):
        return stated
    name = _plain_name(metric)
    return True if name in _RISE else False if name in _FALL else None


def is_share_of_pictures(metric: Metric) -> bool:
    """Whether a metric is known, by its whole name, to be the share of pictures that are right.

    Or of those that are wrong.
    """
    if isinstance(metric, partial):
        return is_share_of_pictures(metric.func)
    if getattr(metric, "counts_pictures", False):
        return True
    return _plain_name(metric) in _SHARES


def _plain_name(metric: Metric) -> str:
    return metric_name(metric).casefold().replace("_", "").replace(" ", "").replace("-", "")
