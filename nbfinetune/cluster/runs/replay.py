"""Replay: what happened in a run elsewhere happens here too, for the history and the screens."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any
from warnings import warn

from torch import tensor

from nbfinetune.arguments import users_line
from nbfinetune.cluster.runs.emitting import GROWING, POINTS
from nbfinetune.history.runs import Run
from nbfinetune.training.resuming.run_state import same_row
from nbfinetune.training.state import Callback, LearnerState

_STOPPED = "stopped"  # as `Steering` notes it


class Replay:
    """Applies events to a learner, and calls the callbacks that stayed with it.

    The history gets a run of its own, which is filled as the other one is. What a callback sees of
    the learner is what it would have seen there: `control.waited` is set so that times are those of
    the run, however late its events come.

    Parameters
    ----------
    cbs : the callbacks
    on_stage : called when a stage begins, before they are

    Attributes
    ----------
    checkpoint : number of the newest one that there is to fetch, -1 = none
    n_stages : stages that began, in this call or search
    interrupted : whether the run was asked to stop by an interrupt, which its history then says
    """

    def __init__(
        self,
        learn: LearnerState,
        cbs: Sequence[Callback],
        on_stage: Callable[[], None] = lambda: None,
    ) -> None:
        self._learn, self._cbs, self._on_stage = learn, cbs, on_stage
        self._first_run = len(learn.recorder.runs)
        self._run: Run | None = None
        self._begun: float | None = None
        self._open = False  # between before_fit and after_fit
        self.checkpoint, self.n_stages = -1, 0
        self.interrupted = False

    @property
    def n_steps(self) -> int:
        """Training steps of the newest stage that are known here."""
        return 0 if self._run is None else len(self._run.lrs)

    @property
    def runs(self) -> list[Run]:
        """The stages so far."""
        return self._learn.recorder.runs[self._first_run :]

    def take(self, data: bytes) -> None:
        """Apply an event."""
        event = pickle.loads(data)  # of a process of ours
        name = event["name"]
        if name == "checkpoint":
            self.checkpoint = event["number"]
        elif name == "warned":
            warn(event["text"], stacklevel=users_line())
        elif name == "printed":
            print(event["text"], end="", flush=True)
        else:
            self._apply(name, event)

    def _apply(self, name: str, event: Mapping[str, Any]) -> None:
        learn = self._learn
        if name == "before_fit":
            self._begin(event)
        vars(learn).update(self._as_here(event.get("learn", {})))
        vars(learn.control).update(event.get("control", {}))
        if self._run is not None:
            self._grow(event.get("run", {}))
        for batch in event["batches"]:
            self._batch(*batch)
        self._set_clock(event["seconds"])
        if name == "before_fit":
            self._on_stage()
        if name == "paused":
            learn.control.on_pause(event["paused"])
        elif name:
            self._call(name)
        if name == "after_fit":
            learn.training = self._open = False

    def _as_here(self, changes: dict[str, Any]) -> dict[str, Any]:
        if not changes.get("rate_note", ""):  # what was said here stays
            changes.pop("rate_note", None)
        stopped = self.interrupted and changes.get("status") == _STOPPED
        return changes | ({"status": "interrupted"} if stopped else {})

    def _begin(self, event: Mapping[str, Any]) -> None:
        learn, about = self._learn, event["run"]
        self._run = run = Run(about["name"], about["n_epoch"], about["n_iter"], about["names"])
        learn.control.begin_stage()
        del learn.recorder.runs[
            self._first_run + event["number"] :
        ]  # of a search, which keeps none
        learn.recorder.begin(run)
        learn.lr_schedules = [_through(event["schedule"])] if event["schedule"] else []
        self._begun, self._open = monotonic(), True
        self.n_stages += 1

    def _grow(self, changes: Mapping[str, Any]) -> None:
        run, runs = self._run, self._learn.recorder.runs
        for name, value in changes.items():
            if name in GROWING:
                getattr(run, name).extend(value)
            else:
                setattr(run, name, value)
        if "kept" in changes:
            run.kept = same_row(runs, run.kept)  # results tell by the very row
        self.tell_interrupt()
        if run.losses and "losses" in changes:
            self._learn.loss = tensor(run.losses[-1])

    def _batch(
        self, name: str, i: int, training: bool, seconds: float, computing: tuple | None
    ) -> None:
        learn = self._learn
        learn.iter, learn.training, learn.features.computing = i, training, computing
        self._set_clock(seconds)
        self._call(name)

    def _set_clock(self, seconds: float) -> None:
        """Let the time since the begin, without pauses, be what it was there."""
        if self._begun is None:
            self._begun = monotonic() - seconds
        self._learn.control.waited = monotonic() - self._begun - seconds

    def _call(self, name: str) -> None:
        for cb in self._cbs:
            getattr(cb, name)(self._learn)

    def tell_interrupt(self) -> None:
        """Let the history say so, where the workers were asked to stop by an interrupt."""
        run = self._run
        if self.interrupted and run is not None and run.status == _STOPPED:
            run.status = self._learn.status = "interrupted"
            run.events = [event for event in run.events if event[1] != _STOPPED]

    def end(self, status: str) -> None:
        """The run is over; where it did not tell so itself, callbacks get their `after_fit`."""
        learn, run = self._learn, self._run
        learn.training, learn.features.computing, learn.run_cbs = False, None, ()
        if run is not None and run.status == "running":
            run.status = status
        if self._open:
            self._open, learn.status = False, status
            self._call("after_fit")

    def forget_runs(self) -> None:
        """Leave no run in the history, as a search does."""
        del self._learn.recorder.runs[self._first_run :]


def _through(points: Sequence[float]) -> Callable[[float], float]:
    """A schedule along a line between points that are evenly spaced over a fit."""

    def schedule(p: float) -> float:
        at = min(max(p, 0.0) * POINTS, len(points) - 1)
        i = min(int(at), len(points) - 2)
        return points[i] + (points[i + 1] - points[i]) * (at - i)

    return schedule
