"""First worker: a user's callback is called in one of several processes, for all of them.

What it does is done in each. It may end the run or the epoch, change weights, what trains, rates
and momentum, and steer the run.
"""

from functools import partialmethod

import torch
from torch import Tensor, nn

from nbfinetune.rendering.names import shown
from nbfinetune.training.callbacks import CancelFit, CancelTrain
from nbfinetune.training.spmd.world import ASKED
from nbfinetune.training.state import Callback, LearnerState

_EVENTS = [name for name in vars(Callback) if name.startswith(("before_", "after_"))]


class InFirstWorker(Callback):
    """Calls another callback in the first worker.

    Parameters
    ----------
    cb : the callback, in all workers, of the first of which alone is called
    """

    runs_on = "all"

    def __init__(self, cb: Callback) -> None:
        self.cb = cb
        self._seen = [name for name in _EVENTS if getattr(type(cb), name) is not _default(name)]

    def _event(self, name: str, learn: LearnerState) -> None:
        # Parts of a batch are not the same in all; nor are workers that end by an error.
        if name not in self._seen or (name == "after_fit" and learn.status != "finished"):
            return
        if name == "after_part":
            return
        changes = learn.world.of_first(lambda: self._called(name, learn))
        if not learn.world.first:
            _follow(learn, changes)
        if changes["weights"]:
            learn.world.put_from_first(_tensors(learn.model))
        if changes["cancels"]:
            raise {"CancelFit": CancelFit, "CancelTrain": CancelTrain}[changes["cancels"]]

    before_fit = partialmethod(_event, "before_fit")
    before_epoch = partialmethod(_event, "before_epoch")
    before_batch = partialmethod(_event, "before_batch")
    after_batch = partialmethod(_event, "after_batch")
    after_train = partialmethod(_event, "after_train")
    after_epoch = partialmethod(_event, "after_epoch")
    after_fit = partialmethod(_event, "after_fit")

    def _called(self, name: str, learn: LearnerState) -> dict[str, object]:
        """Call it, and tell what the others have to do too."""
        before, versions = _settings(learn), _versions(learn.model)
        asked = {key: getattr(learn.control, key) for key in ASKED}
        cancels = ""
        try:
            getattr(self.cb, name)(learn)
        except (CancelFit, CancelTrain) as cancelled:
            cancels = type(cancelled).__name__
        for key, value in asked.items():  # acted on at the same step by all
            if (new := getattr(learn.control, key)) != value:
                learn.world.wanted[key] = new
                setattr(learn.control, key, value)
        after = _settings(learn)
        return {
            "settings": after if after != before else None,
            "weights": _versions(learn.model) != versions,
            "cancels": cancels,
        }


def in_first_worker(cbs: list[Callback]) -> list[Callback]:
    """The callbacks of a call as they are in a worker: those of the console stay there."""
    there = [cb for cb in cbs if cb.runs_on != "console"]
    return [cb if cb.runs_on == "all" else InFirstWorker(cb) for cb in there]


def called_by(cb: Callback) -> Callback:
    """The user's callback that one calls, or that itself."""
    return cb.cb if isinstance(cb, InFirstWorker) else cb


def check_place(cb: Callback) -> None:
    """Raise ValueError for a callback that is for no place there is."""
    if cb.runs_on not in ("first", "all", "console"):
        raise ValueError(
            f"{type(cb).__name__}.runs_on is {shown(cb.runs_on)}; it must be first, all or console"
        )


def _default(name: str) -> object:
    return getattr(Callback, name)


def _settings(learn: LearnerState) -> dict[str, object]:
    trains = [p.requires_grad for p in learn.model.parameters()]
    groups = [{k: v for k, v in g.items() if k != "params"} for g in learn.opt.param_groups]
    return {"trains": trains, "groups": groups, "frozen": learn.frozen, "lr": learn.lr}


def _follow(learn: LearnerState, changes: dict[str, object]) -> None:
    settings = changes["settings"]
    if settings is None:
        return
    if settings["frozen"] != learn.frozen:
        learn.freeze_to(settings["frozen"], quiet=True)
    for p, trains in zip(learn.model.parameters(), settings["trains"], strict=True):
        p.requires_grad_(trains)
    for group, values in zip(learn.opt.param_groups, settings["groups"], strict=True):
        group.update(values)
    learn.lr = settings["lr"]


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _versions(model: nn.Module) -> list[int]:
    """How often each was changed in place, and where it is: `p.data` may be put in its place."""
    with torch.no_grad():
        return [(t._version, t.data_ptr()) for t in _tensors(model)]
