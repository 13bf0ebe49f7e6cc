"""Heads: the layers that turn a body's features into logits."""

import torch
from torch import Tensor, nn

_HIDDEN = 512  # of fastai's head
_DROPOUT = 0.5  # before its last layer; half of it before the first
_NORM_BIAS = 1e-3  # fastai's BatchNorm starts there


class ConcatPool(nn.Module):
    """Global maximum and mean of a feature map, in this order: [n, c, h, w] -> [n, 2 c]."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax((2, 3)), x.mean((2, 3))], dim=1)


def fastai_head(n_features: int, n_out: int, *, pool: bool = True) -> nn.Sequential:
    """fastai's head: concat pooling, then two blocks of BatchNorm, dropout and a linear layer.

    Parameters
    ----------
    n_features : channels of the feature map
    n_out : classes
    pool : False for features [n, n_features] that are pooled already
    """
    n_in = 2 * n_features if pool else n_features
    head = nn.Sequential(
        *([ConcatPool()] if pool else []),
        nn.BatchNorm1d(n_in),
        nn.Dropout(_DROPOUT / 2),
        nn.Linear(n_in, _HIDDEN, bias=False),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(_HIDDEN),
        nn.Dropout(_DROPOUT),
        nn.Linear(_HIDDEN, n_out, bias=False),
    )
    for layer in head:
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.constant_(layer.bias, _NORM_BIAS)
        elif isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return head


def linear_head(n_features: int, n_out: int) -> nn.Linear:
    """One linear layer that starts at zero: the first loss is log(n_out), whatever the features."""
    head = nn.Linear(n_features, n_out)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
