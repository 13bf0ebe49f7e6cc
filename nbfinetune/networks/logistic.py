"""Multinomial logistic regression with a penalty, given or found by cross-validation.

Each problem is solved in the principal axes of the features, where the bound of its curvature is
diagonal (Boehning 1992, Annals of the Institute of Statistical Mathematics 44), by steps of that
bound with Nesterov's momentum.
"""

import math

import torch
from torch import Tensor

from nbfinetune.runtime.interrupts import act_on_interrupt

N_FOLDS = 3
_PENALTIES = tuple(5.0**-k for k in range(6))  # 1 to 3e-4, of the mean loss
_STEPS = 200  # at most
_ENOUGH = 1e-4  # what the next step lowers the objective by, about, when it is the last one
_SAFE = 1.1  # the bound leaves out that the features of a fold have a mean
_RANK = 1e-6  # directions of less variance than this share of the largest carry rounding errors


def best_penalty(
    z: Tensor, y: Tensor, weights: Tensor, folds: Tensor, judged: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Go down from a penalty of 1 by factors of five while the loss of what is left out falls.

    Parameters
    ----------
    z : features in their principal axes, shape [n, r]
    y : target probabilities, shape [n, c]
    weights, judged : of the items, where they are fitted and where they are left out, shape [n]
    folds : of each item, from 0 up, shape [n]

    Returns
    -------
    penalty : of half the squared weights, of features that are centred
    left_out : logits of each item where it was left out, shape [n, c]
    start : a solution nearby, shape [r + 1, c]
    """
    best, found, lowest = _PENALTIES[0], None, math.inf
    starts = [torch.zeros(z.shape[1] + 1, y.shape[1])] * (int(folds.max()) + 1)
    for penalty in _PENALTIES:
        left_out = torch.empty_like(y)
        for k, start in enumerate(starts):
            kept = folds != k
            starts[k] = solve(z[kept], y[kept], weights[kept], penalty, start)
            left_out[~kept] = logits_of(z[~kept], starts[k])
        loss = mean_loss(left_out, y, judged)
        if found is not None and not loss < lowest:
            break
        best, found, lowest = penalty, left_out, loss
    return best, found, sum(starts) / len(starts)


def fit_penalised(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with a given penalty.

    Parameters
    ----------
    x : features, shape [n, d]
    y : target probabilities, shape [n, c], rows sum to 1
    penalty : of half the squared weights, on the features as they are

    Returns
    -------
    weight, bias : shapes [c, d] and [c]
    """
    mean = x.mean(0)
    z, axes = principal_axes(x - mean)
    fitted = solve(z, y, torch.ones(len(y)), penalty, torch.zeros(z.shape[1] + 1, y.shape[1]))
    weight = (axes @ fitted[:-1]).T
    return weight, fitted[-1] - weight @ mean


def principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates [n, r] in the principal axes, and the axes [d, r]."""
    n, d = x.shape
    values, vectors = torch.linalg.eigh(x @ x.T if n < d else x.T @ x)
    kept = values > _RANK * values[-1].clamp_min(1e-30)
    lengths = values[kept].sqrt()
    if n < d:
        z = vectors[:, kept] * lengths
        return z, x.T @ (vectors[:, kept] / lengths)
    return x @ vectors[:, kept], vectors[:, kept]


def logits_of(z: Tensor, w: Tensor) -> Tensor:
    return torch.addmm(w[-1], z, w[:-1])


def mean_loss(logits: Tensor, y: Tensor, weights: Tensor) -> float:
    """Mean cross entropy, NaN where no item counts."""
    losses = -(logits.log_softmax(1) * y).sum(1)
    return float((losses * weights).sum() / weights.sum())


def solve(z: Tensor, y: Tensor, weights: Tensor, penalty: float, start: Tensor) -> Tensor:
    """The minimum of mean loss + penalty / 2 |w|^2, shape [r + 1, c]; the bias has no penalty."""
    share = weights / weights.sum()
    curvature = _bound(z, share, penalty)
    old = new = start
    ahead, momentum = start, 1.0
    for _ in range(_STEPS):
        act_on_interrupt()
        errors = (logits_of(z, ahead).softmax(1) - y) * share[:, None]
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
