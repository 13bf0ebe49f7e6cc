"""BatchNorm over processes gives what one BatchNorm gives of the whole batch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nbfinetune.training.spmd.batch_norm import statistics_of_all
from nbfinetune.training.spmd.world import World


def _batch(n: int) -> tuple[Tensor, Tensor]:
    rows = torch.sin(torch.arange(n * 3 * 4, dtype=torch.float64) ** 1.3).view(n, 3, 2, 2)
    return rows * torch.tensor([1.0, 10.0, 0.1])[:, None, None] + 5, rows.roll(1, 1)


class _WithReLU(nn.BatchNorm2d):
    """As those of timm: what follows is part of its own forward."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(super().forward(x))


def _layer(name: str) -> nn.BatchNorm2d:
    layer = (nn.BatchNorm2d if name == "torch" else _WithReLU)(3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
    return layer


def _passed(layer: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    x.requires_grad_()
    out = layer(x)
    out.backward(grad)
    return out.detach(), x.grad, layer.weight.grad, layer.bias.grad


def _of_share(world: World, name: str, n: int) -> dict[str, list[Tensor]]:
    layer, (x, grad) = _layer(name), _batch(n)
    share = world.share(n)
    with statistics_of_all(layer, world):
        mine = _passed(layer, x[share.places].clone(), grad[share.places] * share.counts)
    rows = world.gather(*mine[:2])
    sums = [world.total(t) for t in mine[2:]]
    return {"rows": rows, "sums": sums, "moved": [t.clone() for t in layer.buffers()]}


@pytest.mark.parametrize("name", ["torch", "with ReLU"])
@pytest.mark.parametrize("n", [7, 2])  # of two pictures the third process has none
def test_outputs_gradients_and_running_statistics_are_those_of_one_layer(
    together: Callable[..., list], name: str, n: int
) -> None:
    layer = _layer(name)
    out, of_x, of_weight, of_bias = _passed(layer, *_batch(n))
    for found in together(3, _of_share, name, n):
        torch.testing.assert_close(found["rows"], [out, of_x])
        torch.testing.assert_close(found["sums"], [of_weight, of_bias])
        torch.testing.assert_close(found["moved"], list(layer.buffers()))
