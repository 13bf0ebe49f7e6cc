"""The linear layer that fits features best: logistic regression and discriminants, mixed.

Where classes have few items and features separate them well, discriminants are better, elsewhere
logistic regression. The mean of their logits whose weight cross-validation finds is as good as the
better one or better: see "Recipes" in `benchmarks/README.md`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nbfinetune.networks.discriminants import discriminants
from nbfinetune.networks.logistic import (
    N_FOLDS,
    best_penalty,
    logits_of,
    mean_loss,
    principal_axes,
    solve,
)

_SHRINKAGES = (0.2, 0.5, 0.8, 0.95)
_SCALES = [10 ** (k / 10) for k in range(-20, 11)]  # of discriminants, which are too sure
_SHARES = [k / 10 for k in range(11)]  # of discriminants in the mean


@dataclass(frozen=True)
class HeadFit:
    """A linear layer and how it was chosen.

    Parameters
    ----------
    weight, bias : shapes [c, d] and [c]
    penalty : of half the squared weights of the logistic regression, on features that are centred
        and have a mean variance of 1
    share : of discriminants in the mean, 0 to 1
    loss : mean cross entropy on the folds left out, of the items that are not the only one of
        their class; NaN if all are
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    share: float
    loss: float


def fit_head(x: Tensor, y: Tensor, weights: Tensor | None = None) -> HeadFit:
    """Fit a linear layer whose penalty, shrinkage and mixture cross-validation chooses.

    Parameters
    ----------
    x : features, shape [n, d]
    y : target probabilities, shape [n, c], rows sum to 1
    weights : of the items in the mean loss, shape [n]; None = all 1
    """
    return fit_and_left_out(x, y, weights)[0]


def fit_and_left_out(
    x: Tensor, y: Tensor, weights: Tensor | None = None, *, n_folds: int = N_FOLDS
) -> tuple[HeadFit, Tensor, Tensor]:
    """As `fit_head`, and what layers that had not seen an item say of it.

    Parameters
    ----------
    n_folds : folds at most, each of which is left out once

    Returns
    -------
    fit : of all items
    left_out : logits of each item, of the layer with the same penalty, shrinkage and mixture that
        was fitted without its fold, shape [n, c]
    judged : the weight of each item there: 0 where it is the only one of its class, shape [n]
    """
    x, y = x.detach().float().cpu(), y.detach().float().cpu()
    weights = torch.ones(len(y)) if weights is None else weights.detach().float().cpu()
    targets = y.argmax(1)
    folds = _even_folds(targets, n_folds)
    judged = weights * (targets.bincount()[targets] > 1)  # nobody can know a class left out
    mean = x.mean(0)
    size = (x - mean).square().mean().sqrt().clamp_min(1e-12)
    z, axes = principal_axes((x - mean) / size)
    penalty, left_out, start = best_penalty(z, y, weights, folds, judged)
    fitted, share = solve(z, y, weights, penalty, start), 0.0
    if judged.any() and z.shape[1]:
        shrinkage, scale, others = _best_discriminants(z, y, weights, folds, judged)
        losses = [mean_loss(torch.lerp(left_out, others, q), y, judged) for q in _SHARES]
        share = _SHARES[losses.index(min(losses))]
        left_out = torch.lerp(left_out, others, share)
    if share:
        fitted = torch.lerp(fitted, _scaled(z, y, weights, shrinkage, scale), share)
    weight = (axes @ fitted[:-1]).T / size
    loss = mean_loss(left_out, y, judged)
    fit = HeadFit(weight, fitted[-1] - weight @ mean, penalty, share, loss)
    return fit, left_out, judged


def _best_discriminants(
    z: Tensor, y: Tensor, weights: Tensor, folds: Tensor, judged: Tensor
) -> tuple[float, float, Tensor]:
    """Shrinkage and scale that have the least loss, and the logits of each item left out."""
    best = (math.inf, 0.0, 0.0, torch.empty(0))
    for shrinkage in _SHRINKAGES:
        plain, shares = torch.empty_like(y), torch.empty_like(y)
        for k in range(int(folds.max()) + 1):
            kept = folds != k
            fitted = discriminants(z[kept], y[kept], weights[kept], shrinkage)
            plain[~kept] = logits_of(z[~kept], fitted)
            shares[~kept] = _log_shares(y[kept], weights[kept])
        for scale in _SCALES:
            logits = scale * plain + shares
            loss = mean_loss(logits, y, judged)
            if loss < best[0]:
                best = loss, shrinkage, scale, logits
    return best[1:]


def _scaled(z: Tensor, y: Tensor, weights: Tensor, shrinkage: float, scale: float) -> Tensor:
    fitted = scale * discriminants(z, y, weights, shrinkage)
    fitted[-1] += _log_shares(y, weights)
    return fitted


def _log_shares(y: Tensor, weights: Tensor) -> Tensor:
    """Logarithms of the shares of the classes, one of no item as if it had half of one."""
    counts = weights @ y
    return (counts.clamp_min(0.5 * weights.mean()) / counts.sum()).log()


def _even_folds(targets: Tensor, n_folds: int) -> Tensor:
    """A fold for each item, in turn within each class and from class to class; targets: [n]."""
    out = torch.empty_like(targets)
    out[targets.argsort(stable=True)] = torch.arange(len(targets)) % n_folds
    return out
