"""First worker: a user's callback is called in one of several processes, for all of them.

What it does is done in each. It may end the run or the epoch, change weights, what trains, the
optimizer's settings and states and those of the learner, draw random numbers, and steer the run.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod

import torch
from torch import Tensor, nn

from nbfinetune.training.batches.streams import Streams, put_streams, streams_of
from nbfinetune.training.callbacks import CancelFit, CancelTrain
from nbfinetune.training.resuming.run_state import optimizer_tree, put_optimizer
from nbfinetune.training.spmd.world import ASKED
from nbfinetune.training.state import Callback, LearnerState

# Attributes of a learner that each worker has its own of, or that are sent as what is in them.
_OWN = {"keeper", "resumed", "place", "undoable", "within_call", "run_cbs", "lr_schedules", "world"}
_OWN |= {"calls", "made_by", "control", "features", "memory", "device", "recorder", "scaler"}
_OWN |= {"_rng", "_draws", "_cbs", "frozen", "_lr"}
_FIXED = {"model": "model", "opt": "opt", "groups": "groups", "_dls": "dls"}  # too large to be sent
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
        self.is_last = cb.is_last
        self._seen = [name for name in _EVENTS if getattr(type(cb), name) is not _default(name)]

    @property
    def itself(self) -> Callback:
        return self.cb

    def _event(self, name: str, learn: LearnerState) -> None:
        # Parts of a batch are not the same in all; nor are workers that end by an error.
        if name not in self._seen or (name == "after_fit" and learn.status != "finished"):
            return
        if name == "after_part":
            return
        changes = learn.world.of_first(lambda: self._called(name, learn))
        if not learn.world.first:
            self._follow(learn, changes)
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
        before, drawn = _settings(learn), streams_of(learn)
        weights, states = _versions(_tensors(learn.model)), _versions(_states(learn))
        attributes, loss = dict(vars(learn)), _marks(learn.loss_func)
        asked = {key: getattr(learn.control, key) for key in ASKED}
        cancels = ""
        with _alone(learn):
            try:
                getattr(self.cb, name)(learn)
            except (CancelFit, CancelTrain) as cancelled:
                cancels = type(cancelled).__name__
        for key, value in asked.items():  # acted on at the same step by all
            if (new := getattr(learn.control, key)) != value:
                learn.world.wanted[key] = new
                setattr(learn.control, key, value)
        after, now = _settings(learn), streams_of(learn)
        states_moved = _versions(_states(learn)) != states
        return {
            "settings": after if after != before else None,
            "attributes": self._new_attributes(learn, attributes, loss),
            "optimizer": _optimizer_of(learn) if states_moved else None,
            "streams": now if _bytes(now) != _bytes(drawn) else None,
            "weights": _versions(_tensors(learn.model)) != weights,
            "cancels": cancels,
        }

    def _new_attributes(
        self, learn: LearnerState, before: dict[str, object], loss: object
    ) -> bytes | None:
        """Those that it has set, and a loss that it has changed, as a pickle."""
        new = {k: v for k, v in vars(learn).items() if k not in _OWN and _is_new(v, before.get(k))}
        if _marks(learn.loss_func) != loss:
            new["_loss_func"] = learn.loss_func
        if fixed := [_FIXED[name] for name in new if name in _FIXED]:
            raise ValueError(
                f"the callback {type(self.cb).__name__} has set learn.{fixed[0]}, which several "
                "workers cannot follow: leave workers= and cluster= out"
            )
        if not new:
            return None
        import cloudpickle

        try:
            return cloudpickle.dumps(new)
        except Exception as error:
            raise ValueError(
                f"the callback {type(self.cb).__name__} has set {', '.join(new)} of the learner, "
                f"which cannot travel to the other workers ({error})"
            ) from error

    def _follow(self, learn: LearnerState, changes: dict[str, object]) -> None:
        if changes["settings"] is not None:
            _follow_settings(learn, changes["settings"])
        if changes["attributes"] is not None:
            new = pickle.loads(changes["attributes"])
            vars(learn).update({k: _beside(learn, v) for k, v in new.items()})
        if changes["optimizer"] is not None:
            put_optimizer(learn, changes["optimizer"])
        if changes["streams"] is not None:
            put_streams(learn, changes["streams"])


def in_first_worker(cbs: list[Callback]) -> list[Callback]:
    """The callbacks of a call as they are in a worker: those of the console stay there."""
    there = [cb for cb in cbs if cb.runs_on != "console"]
    return [cb if cb.runs_on == "all" else InFirstWorker(cb) for cb in there]


def _default(name: str) -> object:
    return getattr(Callback, name)


def _settings(learn: LearnerState) -> dict[str, object]:
    trains = [p.requires_grad for p in learn.model.parameters()]
    groups = [{k: v for k, v in g.items() if k != "params"} for g in learn.opt.param_groups]
    return {"trains": trains, "groups": groups, "frozen": learn.frozen, "lr": learn.lr}


def _follow_settings(learn: LearnerState, settings: dict[str, object]) -> None:
    if settings["frozen"] != learn.frozen:
        learn.freeze_to(settings["frozen"], quiet=True)
    for p, trains in zip(learn.model.parameters(), settings["trains"], strict=True):
        p.requires_grad_(trains)
    for group, values in zip(learn.opt.param_groups, settings["groups"], strict=True):
        group.update(values)
    learn.lr = settings["lr"]


@contextmanager
def _alone(learn: LearnerState) -> Iterator[None]:
    """Inside, a pass of the callback's own is that of one process: the others are not in it."""
    world, poll = learn.world, learn.control.poll
    learn.world, learn.control.poll = None, _nothing
    try:
        yield
    finally:
        learn.world, learn.control.poll = world, poll


def _nothing() -> None: ...


def _is_new(value: object, before: object) -> bool:
    if value is before:
        return False
    plain = (bool, int, float, str, type(None))
    return not (type(value) is type(before) and isinstance(value, plain) and value == before)


def _beside(learn: LearnerState, value: object) -> object:
    """It, on the device of this worker."""
    if isinstance(value, (Tensor, nn.Module)):
        return value.to(learn.device)
    return value


def _marks(loss_func: object) -> object:
    """What tells whether a loss was changed in place."""
    if not isinstance(loss_func, nn.Module):
        return None
    plain = {k: v for k, v in vars(loss_func).items() if isinstance(v, (bool, int, float, str))}
    return plain, _versions(_tensors(loss_func))


def _bytes(streams: Streams) -> list[object]:
    state, of_loaders = streams
    kind, numbers, *rest = state["numpy"]
    of_torch = [state["torch"], *state.get("cuda", ()), *of_loaders]
    return [
        state["python"],
        kind,
        numbers.tobytes(),
        rest,
        *(t.numpy().tobytes() for t in of_torch),
    ]


def _states(learn: LearnerState) -> list[Tensor]:
    """The tensors that the optimizer keeps of the parameters."""
    each = (learn.opt.state.get(p, {}) for g in learn.opt.param_groups for p in g["params"])
    return [t for state in each for t in state.values() if isinstance(t, Tensor)]


def _optimizer_of(learn: LearnerState) -> dict[str, object]:
    """Its states, on the CPU as they are sent, and settings."""
    tree = optimizer_tree(learn)
    tree["states"] = {
        i: {k: v.cpu() if isinstance(v, Tensor) else v for k, v in state.items()}
        for i, state in tree["states"].items()
    }
    return tree


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _versions(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """How often each was changed in place, and where it is: `p.data` may be put in its place."""
    with torch.no_grad():
        return [(t._version, t.data_ptr()) for t in tensors]
