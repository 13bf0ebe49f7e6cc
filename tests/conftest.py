"""Fixtures: tiny, synthetic and seeded; the real photos where `NBFINETUNE_PETS` names them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.testing.globalipapp import start_ipython
from PIL import Image
from torch import nn

from nbfinetune import ImageDataLoaders, Learner

os.environ.setdefault("NBFINETUNE_RUNS", "off")  # tests leave nothing in the user's cache

GOLDEN = json.loads((Path(__file__).parent / "fastai_golden.json").read_text())

NO_PETS = "NBFINETUNE_PETS is not set: no folder of Oxford-IIIT pets to test on"


def fill_with_sines(model: nn.Module) -> nn.Module:
    """Weights that are the same everywhere: 0.5 sin(k) for the k-th number."""
    k = 0
    with torch.no_grad():
        for p in model.parameters():
            numbers = torch.arange(k, k + p.numel(), dtype=torch.float64)
            p.copy_((torch.sin(numbers) * 0.5).float().view_as(p))
            k += p.numel()
    return model


def batches(n: int, offset: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.sin(torch.arange(n * 4, dtype=torch.float64) * 1.7 + offset).float().view(n, 4)
    y = (x.sum(1) > 0).long()
    return [(x[i : i + 4], y[i : i + 4]) for i in range(0, n, 4)]


@pytest.fixture
def fill() -> Callable[[nn.Module], nn.Module]:
    """`fill_with_sines`."""
    return fill_with_sines


@pytest.fixture
def golden() -> dict:
    """Numbers that fastai 2.8.12 gave, see the "about" in the file."""
    return GOLDEN


@pytest.fixture
def loaders() -> SimpleNamespace:
    """5 training and 3 validation batches (the last one of 2) of 4 numbers, 2 classes."""
    return SimpleNamespace(train=batches(20, 0.0), valid=batches(10, 0.5), vocab=["no", "yes"])


@pytest.fixture
def mlp() -> nn.Sequential:
    """Three parts, the first with BatchNorm."""
    first = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())
    return fill_with_sines(
        nn.Sequential(first, nn.Sequential(nn.Linear(5, 5), nn.ReLU()), nn.Linear(5, 2))
    )


class _SmallNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.norm(self.conv(x)).relu().mean((2, 3)))


@pytest.fixture
def small_net() -> Callable[[], nn.Module]:
    """Makes a convolution with BatchNorm and a classifier at its end, always the same."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return _SmallNet()

    return make


@pytest.fixture
def learn(loaders: SimpleNamespace, mlp: nn.Sequential) -> Learner:
    """A learner of three layer groups."""
    return Learner(loaders, mlp, groups=[[part] for part in mlp], device="cpu")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 classes of 6 noisy pictures, each of its own colour and some of odd size."""
    root = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for k, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir()
        for i in range(6):
            pixels = noise.integers(0, 90, (40 + i, 48 - i, 3), dtype=np.uint8)
            pixels[..., 2 - k] += 150
            Image.fromarray(pixels).save(root / name / f"{name}_{i}.png")
    return root


@pytest.fixture
def dls(photos: Path) -> ImageDataLoaders:
    return ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=32, bs=5)


class TinyNet(nn.Module):
    """A convolutional network with BatchNorm, pooling and a linear classifier of 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


@pytest.fixture
def tiny_net() -> nn.Module:
    return fill_with_sines(TinyNet())


@pytest.fixture(scope="session")
def shell() -> InteractiveShell:
    shell = start_ipython()
    shell.run_line_magic("load_ext", "nbfinetune")  # IPython loads its own magics when first used
    shell.run_line_magic("unload_ext", "nbfinetune")
    return shell


@pytest.fixture(scope="session")
def pets() -> Path:
    """The real photos."""
    folder = os.environ.get("NBFINETUNE_PETS")
    if not folder:
        pytest.skip(NO_PETS)
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the cells of pets.ipynb without the photos."""
    if os.environ.get("NBFINETUNE_PETS"):
        return
    skip = pytest.mark.skip(reason=NO_PETS)
    for item in items:
        if item.path.name == "pets.ipynb":
            item.add_marker(skip)
