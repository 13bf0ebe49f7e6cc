"""Linear discriminants: the classes as normal distributions of one covariance, which is shrunk."""

import torch
from torch import Tensor


def discriminants(z: Tensor, y: Tensor, weights: Tensor, shrinkage: float) -> Tensor:
    """Weights and biases without the shares of the classes, shape [r + 1, c].

    Parameters
    ----------
    z : features, shape [n, r]
    y : target probabilities, shape [n, c]
    weights : of the items, shape [n], one of them above 0
    shrinkage : from the covariance within the classes (0) to its mean variance alone (1), see
        Friedman 1989, Regularized Discriminant Analysis
    """
    counts = y * weights[:, None]
    of_class, total = counts.sum(0), weights.sum()
    middle = weights @ z / total
    means = counts.T @ z / of_class.clamp_min(1e-12)[:, None]
    means = means.where(of_class[:, None] > 0, middle)
    # For soft targets too: what lies within the classes is all but what lies between them.
    within = (z.T * weights) @ z - (means.T * of_class) @ means
    within = (1 - shrinkage) * within / total
    within.diagonal().add_(shrinkage / (1 - shrinkage) * within.trace() / len(within) + 1e-12)
    w = torch.linalg.solve(within, means.T)
    return torch.cat([w, -0.5 * (means.T * w).sum(0, keepdim=True)])
