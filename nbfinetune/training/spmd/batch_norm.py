"""BatchNorm over processes: the statistics of a whole batch, of which each has a share.

As torch's SyncBatchNorm, which is for GPUs alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

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
    with _OverAll(world) if layer.training else nullcontext():
        return type(layer).forward(layer, x)


class _OverAll(TorchFunctionMode):
    """Within a layer, what it does besides stays: timm's have their activation in them."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def __torch_function__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        if function is F.batch_norm:
            function = partial(_batch_norm, self._world)
        return function(*args, **(kwargs or {}))


def _batch_norm(
    world: World,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As torch's function, in training."""
    size = [world.at.n, *x.shape[1:]]
    if prod(size) == size[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got {size}")
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
    out = centred * (var + eps).rsqrt().view(shape)
    if weight is not None:
        out = out * weight.view(shape)
    if bias is not None:
        out = out + bias.view(shape)
    if running_mean is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
            unbiased = (var * n / (n - 1).clamp(min=1)).detach()
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return out.to(x.dtype)


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
