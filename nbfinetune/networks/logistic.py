"""Logistic regression: the linear layer that fits features best, the penalty cross-validated."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nbfinetune.runtime.interrupts import act_on_interrupt

_FOLDS = 3
_PENALTIES = tuple(5.0**-k for k in range(6))  # 1 to 3e-4, of the mean loss
_STEPS = 200  # at most
_ENOUGH = 1e-5  # what the next step lowers the objective by, about, when it is the last one
_SAFE = 1.1  # the bound leaves out that the features of a fold have a mean
_RANK = 1e-6  # directions of less variance than this share of the largest carry rounding errors


@dataclass(frozen=True)
class LogisticFit:
    """A linear layer and how it was chosen.

    Parameters
    ----------
    weight, bias : shapes [c, d] and [c]
    penalty : of half the squared weights, on features that are centred and have a mean variance
        of 1
    loss : mean cross entropy on the folds left out, of the items that are not the only one of
        their class; NaN if all are
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    loss: float


def fit_logistic(x: Tensor, y: Tensor, weights: Tensor | None = None) -> LogisticFit:
    """Multinomial logistic regression with the penalty that cross-validation finds best.

    Penalties go down from 1 by factors of five as long as the loss of the folds left out falls.
    Each problem is solved in the principal axes of the features, where the bound of its curvature
    is diagonal (Boehning 1992, Annals of the Institute of Statistical Mathematics 44), by steps of
    that bound with Nesterov's momentum.

    Parameters
    ----------
    x : features, shape [n, d]
    y : target probabilities, shape [n, c], rows sum to 1
    weights : of the items in the mean loss, shape [n]; None = all 1
    """
    x, y = x.detach().float().cpu(), y.detach().float().cpu()
    n, c = y.shape
    weights = torch.ones(n) if weights is None else weights.detach().float().cpu()
    targets = y.argmax(1)
    folds = _even_folds(targets)
    judged = weights * (targets.bincount()[targets] > 1)  # nobody can know a class left out
    mean = x.mean(0)
    centred = x - mean
    scale = centred.square().mean().sqrt().clamp_min(1e-12)
    z, axes = _principal(centred / scale)
    best, losses = 0, []
    starts = [torch.zeros(z.shape[1] + 1, c)] * _FOLDS
    for penalty in _PENALTIES:
        total = 0.0
        for k, start in enumerate(starts):
            kept = folds != k
            starts[k] = _solve(z[kept], y[kept], weights[kept], penalty, start)
            left = ~kept
            total += float(_loss(_logits(z[left], starts[k]), y[left], judged[left]).sum())
        losses.append(total / float(judged.sum()) if judged.any() else math.nan)
        if len(losses) > 1 and not losses[-1] < losses[best]:
            break
        best = len(losses) - 1
    penalty = _PENALTIES[best]
    fitted = _solve(z, y, weights, penalty, sum(starts) / len(starts))
    weight = (axes @ fitted[:-1]).T / scale
    return LogisticFit(weight, fitted[-1] - weight @ mean, penalty, losses[best])


def fit_penalised(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with a given penalty.

    Parameters
    ----------
    x, y : see `fit_logistic`
    penalty : of half the squared weights, on the features as they are

    Returns
    -------
    weight, bias : shapes [c, d] and [c]
    """
    mean = x.mean(0)
    z, axes = _principal(x - mean)
    fitted = _solve(z, y, torch.ones(len(y)), penalty, torch.zeros(z.shape[1] + 1, y.shape[1]))
    weight = (axes @ fitted[:-1]).T
    return weight, fitted[-1] - weight @ mean


def _even_folds(targets: Tensor) -> Tensor:
    """A fold for each item, in turn within each class and from class to class; targets: [n]."""
    out = torch.empty_like(targets)
    out[targets.argsort(stable=True)] = torch.arange(len(targets)) % _FOLDS
    return out


def _principal(x: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates [n, r] in the principal axes, and the axes [d, r]."""
    n, d = x.shape
    values, vectors = torch.linalg.eigh(x @ x.T if n < d else x.T @ x)
    kept = values > _RANK * values[-1].clamp_min(1e-30)
    lengths = values[kept].sqrt()
    if n < d:
        z = vectors[:, kept] * lengths
        return z, x.T @ (vectors[:, kept] / lengths)
    return x @ vectors[:, kept], vectors[:, kept]


def _logits(z: Tensor, w: Tensor) -> Tensor:
    return torch.addmm(w[-1], z, w[:-1])


def _loss(logits: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    return -(logits.log_softmax(1) * y).sum(1) * weights


def _solve(z: Tensor, y: Tensor, weights: Tensor, penalty: float, start: Tensor) -> Tensor:
    """The minimum of mean loss + penalty / 2 |w|^2, shape [r + 1, c]; the bias has no penalty."""
    share = weights / weights.sum()
    curvature = _bound(z, share, penalty)
    old = new = start
    ahead, momentum = start, 1.0
    for _ in range(_STEPS):
        act_on_interrupt()
        errors = (_logits(z, ahead).softmax(1) - y) * share[:, None]
        gradient = torch.cat([z.T @ errors + penalty * ahead[:-1], errors.sum(0, keepdim=True)])
        step = gradient / curvature
        old, new = new, ahead - step
        if float((gradient * step).sum()) < _ENOUGH:
            break
        if float((gradient * (new - old)).sum()) > 0:  # it overshot (O'Donoghue and Candes 2015)
            momentum = 1.0
        grown = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead, momentum = new + (momentum - 1) / grown * (new - old), grown
    return new


def _bound(z: Tensor, share: Tensor, penalty: float) -> Tensor:
    """An upper bound of the curvature along each axis and of the bias, shape [r + 1, 1].

    That of softmax is at most 1/2; the items of a fold have at most the second moments of all.
    """
    moments = z.square().sum(0) * share.max()
    return _SAFE * torch.cat([0.5 * moments + penalty, torch.tensor([0.5])])[:, None]
