"""Fixtures of features whose classes are known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F


@pytest.fixture(scope="session")
def classes() -> Callable[[int, int, int, float], tuple[Tensor, Tensor]]:
    """Makes n features [n, d] of c classes around centres of their own, and one-hot targets."""

    def made(n: int, d: int, c: int, spread: float) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        targets = torch.arange(n) % c
        centres = torch.randn(c, d, generator=generator)
        x = centres[targets] + spread * torch.randn(n, d, generator=generator)
        return x, F.one_hot(targets, c).float()

    return made
