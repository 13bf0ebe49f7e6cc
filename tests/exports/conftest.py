"""Learners to export, and a process in which this package cannot be imported."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from nbfinetune import ImageDataLoaders, Learner, vision_learner
from nbfinetune.runtime.rng import seeded_rng

# An import of nbfinetune fails, as where it is not installed.
ALONE = 'import sys\nsys.modules["nbfinetune"] = None\n'


@pytest.fixture
def make(dls: ImageDataLoaders) -> Callable[..., Learner]:
    """Makes a learner in float32 whose head is no longer zero."""

    def make(arch: str | nn.Module, **options) -> Learner:
        if arch != "efficientnet_lite0":
            options["weights"] = None
        learn = vision_learner(dls, arch, amp="off", device="cpu", **options)
        with torch.no_grad(), seeded_rng(0):
            for head in learn.groups[-1]:
                for p in head.parameters():
                    p.normal_(0, 0.1)
        return learn

    return make


@pytest.fixture
def small(make, tiny_net) -> Learner:
    """A learner of a module of the user's, quick to export."""
    return make(tiny_net)


@pytest.fixture
def held_out() -> Callable[[Learner], tuple[torch.Tensor, torch.Tensor]]:
    """Gives the held-out pictures as files take them, and torch's logits."""

    def of(learn: Learner) -> tuple[torch.Tensor, torch.Tensor]:
        images, _ = learn.dls.valid.dataset.batch(list(range(len(learn.dls.valid.dataset))))
        with torch.no_grad():
            logits = learn.model(learn.transforms.valid(images))
        return learn.transforms.middle(images).permute(0, 2, 3, 1).contiguous(), logits

    return of


@pytest.fixture
def alone(tmp_path: Path) -> Callable[..., str]:
    """Runs code in a fresh process without this package, in `tmp_path`; gives what it prints."""

    def run(code: str, *args: str) -> str:
        command = [sys.executable, "-c", ALONE + code, *args]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
