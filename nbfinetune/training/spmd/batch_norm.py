"""BatchNorm over processes: the statistics of a whole batch, of which each has a share.

As torch's SyncBatchNorm, which is for GPUs alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nbfinetune.training.spmd.world import World


@contextmanager
def statistics_of_all(model: nn.Module, world: World | None) -> Iterator[None]:
    """Inside, layers in training mode take their mean and variance from the shares of all."""
    layers = [m for m in model.modules() if world is not None and isinstance(m, _BatchNorm)]
    for layer in layers:
        layer.forward = partial(_forward, layer, world)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: _BatchNorm, world: World, x: Tensor) -> Tensor:
    if not layer.training:
        return type(layer).forward(layer, x)
    shape = [1, -1, *[1] * (x.dim() - 2)]
    dims = [0, *range(2, x.dim())]
    counts = x.numel() // x.shape[1] * world.at.counts
    own = x if x.dtype is torch.float64 else x.float()
    n = own.new_tensor([counts])
    sums = _Sum.apply(torch.cat([own.sum(dims) * world.at.counts, n]))
    n = sums[-1].detach()
    mean = sums[:-1] / n
    centred = own - mean.view(shape)
    var = _Sum.apply(centred.square().sum(dims) * world.at.counts) / n
    out = centred * (var + layer.eps).rsqrt().view(shape)
    if layer.affine:
        out = out * layer.weight.view(shape) + layer.bias.view(shape)
    _move(layer, mean.detach(), (var * n / (n - 1).clamp(min=1)).detach())
    return out.to(x.dtype)


@torch.no_grad()
def _move(layer: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """Let the running statistics follow, as torch does."""
    if layer.running_mean is None:
        return
    layer.num_batches_tracked += 1
    momentum = layer.momentum
    if momentum is None:
        momentum = 1 / layer.num_batches_tracked.item()
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(var, momentum)


class _Sum(torch.autograd.Function):
    """The sum over all processes, of gradients too: they train on the sum of their losses."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad
