"""Device memory: what a learner has on a GPU makes room there while others train it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nbfinetune.training.state import LearnerState


@contextmanager
def given_up(learn: LearnerState) -> Iterator[None]:
    """Inside, network, loss and optimizer wait on the CPU."""
    if learn.device.type == "cpu":
        yield
        return
    try:
        _move(learn, torch.device("cpu"))
        torch.cuda.empty_cache()
        yield
    finally:
        _move(learn, learn.device)


def _move(learn: LearnerState, device: torch.device) -> None:
    for part in (learn.model, learn.loss_func):
        if isinstance(part, torch.nn.Module):
            part.to(device)
    for group in learn.opt.param_groups:
        counts_there = group.get("fused") or group.get("capturable")
        for p in group["params"]:
            state = learn.opt.state.get(p, {})
            for key, value in state.items():
                if isinstance(value, Tensor) and (key != "step" or counts_there):
                    state[key] = value.to(device)
