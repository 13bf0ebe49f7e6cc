"""Heads: the layers that turn a body's features into logits, and where they begin in a model."""

import torch
from torch import Tensor, nn

from nbfinetune.networks.layer_groups import LayerGroup, modules_of

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


_POOLS = (ConcatPool, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Identity)


def body_and_head(
    model: nn.Module, groups: list[LayerGroup]
) -> tuple[nn.Sequential, nn.Sequential] | None:
    """The model in two: layers in a row, of which the last layer group is the end.

    None for other models, for layers in no group, and if the model itself has hooks, which a call
    of its parts would pass by. Pooling layers at the beginning of the head count as body: what they
    give is smaller.
    """
    if type(model) is not nn.Sequential or model._forward_hooks or model._forward_pre_hooks:
        return None
    layers, head = list(model), groups[-1]
    n = len(layers) - len(head)
    if n < 1 or any(a is not b for a, b in zip(layers[n:], head, strict=True)):
        return None
    in_groups = {id(m) for group in groups[:-1] for m in modules_of(group)}
    if any(id(m) not in in_groups for m in modules_of(layers[:n]) if not any(m.children())):
        return None
    if len(head) == 1 and type(head[0]) is nn.Sequential:
        head = list(head[0])
    pools = 0
    while pools < len(head) - 1 and isinstance(head[pools], _POOLS):
        pools += 1
    return nn.Sequential(*layers[:n], *head[:pools]), nn.Sequential(*head[pools:])
