"""What the tests of runs in workers share; its classes travel whole."""

import os
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import cloudpickle
import torch
from torch import nn

from nbfinetune import Callback, Learner

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # it has no name in a worker


def batches(n: int, offset: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.sin(torch.arange(n * 4, dtype=torch.float64) * 1.7 + offset).float().view(n, 4)
    y = (x.sum(1) > 0).long()
    return [(x[i : i + 4], y[i : i + 4]) for i in range(0, n, 4)]


def new_learner(n: int = 30, **options) -> Learner:
    """8 training batches, the last one of 2, of 4 numbers; always the same."""
    torch.manual_seed(0)
    loaders = SimpleNamespace(train=batches(n, 0.0), valid=batches(10, 0.5), vocab=["no", "yes"])
    parts = [nn.Sequential(nn.Linear(4, 5), nn.ReLU()), nn.Linear(5, 2)]
    options = {"metrics": "accuracy"} | options
    return Learner(loaders, nn.Sequential(*parts), groups=[[p] for p in parts], **options)


class Slow(Callback):
    """A batch takes 20 ms, in the first worker, for which the others wait."""

    def after_batch(self, learn) -> None:
        time.sleep(0.02)


class At(Callback):
    """Does something in one worker at the end of a training step."""

    runs_on = "all"

    def __init__(self, step: int, rank: int, act: Callable) -> None:
        self.step, self.rank, self.act = step, rank, act

    def after_batch(self, learn) -> None:
        steps = len(learn.recorder.run.lrs)
        if learn.training and steps == self.step and learn.world.rank == self.rank:
            self.act(learn)


class Seen(Callback):
    """What a screen is told, here; it does something once some steps are known."""

    runs_on = "console"

    def __init__(self, step: int = -1, act: Callable = lambda learn: None) -> None:
        self.events: list[tuple] = []
        self.step, self.act = step, act

    def _note(self, name: str, learn) -> None:
        self.events.append((name, learn.epoch, learn.iter, learn.training))

    def before_fit(self, learn) -> None:
        self._note("before_fit", learn)

    def before_epoch(self, learn) -> None:
        self._note("before_epoch", learn)

    def after_batch(self, learn) -> None:
        self._note("after_batch", learn)
        if 0 <= self.step <= len(learn.recorder.run.lrs):
            self.step = -1
            self.act(learn)

    def after_train(self, learn) -> None:
        self._note("after_train", learn)

    def after_epoch(self, learn) -> None:
        self._note("after_epoch", learn)

    def after_fit(self, learn) -> None:
        self._note("after_fit", learn)
        self.status = learn.status


def later(seconds: float, act: Callable) -> None:
    def wait() -> None:
        time.sleep(seconds)
        act()

    threading.Thread(target=wait, daemon=True).start()


def kill(signum: int) -> Callable:
    """A function for `At`: the worker sends itself a signal."""
    return lambda learn: os.kill(os.getpid(), signum)


def weights(learn) -> list[torch.Tensor]:
    return [p.detach().clone() for p in learn.model.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(one, other, strict=True))


class Counting(Callback):
    """A callback of a user's with a state: it counts training steps."""

    def __init__(self) -> None:
        self.n = 0

    def after_batch(self, learn) -> None:
        self.n += learn.training

    def state_dict(self) -> dict[str, object]:
        return {"n": self.n}

    def load_state_dict(self, learn, state) -> None:
        self.n = state["n"]
