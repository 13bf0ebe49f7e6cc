"""Emitting: the callback that tells a notebook elsewhere what happens in a run."""

from dataclasses import fields
from time import monotonic, perf_counter

from torch import Tensor

from nbfinetune.cluster.runs.event_log import EventLog
from nbfinetune.history.runs import Run
from nbfinetune.training.state import Callback, LearnerState

_EVERY = 0.05  # seconds between two messages of batches, at least
_READ = 0.5  # seconds between two reads of losses from a GPU, at least: each waits for it
POINTS = 1_000  # of a schedule that is sent
# Lists of a run that only grow: one value for each step, epoch or note.
BY_STEP = ("losses", "smooth", "lrs", "moms", "seconds")
GROWING = (*BY_STEP, "rows", "row_steps", "notes", "weakest")
OF_LEARNER = (
    "run_name",
    "epoch",
    "iter",
    "n_epoch",
    "n_iter",
    "status",
    "values",
    "n_valid",
    "weakest",
    "body_epochs",
    "rate_note",
)
OF_CONTROL = ("scale_used", "finishing", "finished")

Batch = tuple[str, int, bool, float, tuple[int, int] | None]


class Emitting(Callback):
    """Puts the events of a run into a log, with what has changed of learner, control and run.

    It is the last callback of the first process. Batches that follow each other quickly are one
    message, so that there are 20 a second at most; each has its place in it, and no number of a
    step is left out. Losses are read from a GPU twice a second, as for a screen.
    """

    runs_on = "all"  # and in one alone: it asks nothing of the others
    is_last = True

    def __init__(self, log: EventLog, learn: LearnerState) -> None:
        self._log = log
        self._first_run = len(learn.recorder.runs)
        self._known: dict[str, object] = {}
        self._batches: list[Batch] = []
        self._run: _Changes | None = None
        self._begun: float | None = None
        self._sent = self._read = 0.0

    def before_fit(self, learn: LearnerState) -> None:
        self._begun = perf_counter()
        self._run = _Changes(learn.recorder.run)
        learn.control.on_pause = lambda paused: self._tell_pause(learn, paused)
        n_runs = len(learn.recorder.runs) - self._first_run
        schedules = vars(learn).get("lr_schedules") or ()  # none in a search
        points = schedule_points(schedules[-1]) if schedules else None
        self._tell(learn, "before_fit", number=n_runs - 1, schedule=points)

    def before_epoch(self, learn: LearnerState) -> None:
        self._tell(learn, "before_epoch")

    def before_batch(self, learn: LearnerState) -> None:
        if learn.iter == 0:
            self._add(learn, "before_batch")

    def after_part(self, learn: LearnerState) -> None:
        if monotonic() - self._sent >= _EVERY:
            self._add(learn, "after_part")

    def after_batch(self, learn: LearnerState) -> None:
        self._add(learn, "after_batch")

    def after_train(self, learn: LearnerState) -> None:
        self._tell(learn, "after_train")

    def after_epoch(self, learn: LearnerState) -> None:
        self._tell(learn, "after_epoch")

    def after_fit(self, learn: LearnerState) -> None:
        if self._run is not None:
            self._tell(learn, "after_fit")

    def flush(self, learn: LearnerState) -> None:
        """Send what waits."""
        if self._batches:
            self._tell(learn, "")

    def _tell_pause(self, learn: LearnerState, paused: bool) -> None:
        self._tell(learn, "paused", paused=paused)

    def _add(self, learn: LearnerState, name: str) -> None:
        computing = learn.features.computing
        self._batches.append((name, learn.iter, learn.training, self._seconds(learn), computing))
        if monotonic() - self._sent >= _EVERY:
            self._tell(learn, "")

    def _seconds(self, learn: LearnerState) -> float:
        """Since the run, or the pass, began, without pauses."""
        if self._begun is None:
            self._begun = perf_counter()
        return perf_counter() - self._begun - learn.control.waited

    def _tell(self, learn: LearnerState, name: str, **more: object) -> None:
        batches, self._batches = self._batches, []
        event = {"name": name, "batches": batches, "seconds": self._seconds(learn), **more}
        if self._run is not None:
            self._read_losses(learn, at_once=name not in ("", "paused"))
            event["run"] = self._run.take()
        event |= self._changed(learn)
        self._log.add(event)
        self._sent = monotonic()

    def _read_losses(self, learn: LearnerState, *, at_once: bool) -> None:
        if not self._run.is_on(learn):  # a search has put the history back
            return
        now = monotonic()
        if at_once or learn.device.type == "cpu" or now - self._read >= _READ:
            self._read = now
            learn.recorder.flush()

    def _changed(self, learn: LearnerState) -> dict[str, dict]:
        """What is otherwise than in the message before."""
        found: dict[str, dict] = {"learn": {}, "control": {}}
        for kind, names in (("learn", OF_LEARNER), ("control", OF_CONTROL)):
            of = learn if kind == "learn" else learn.control
            for name in names:
                value = vars(of).get(name)
                if (known := self._known.get(name, self)) is self or repr(known) != repr(value):
                    found[kind][name] = self._known[name] = _copied(value)
        return {kind: values for kind, values in found.items() if values}


class _Changes:
    """What is new of a run since it was taken last."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._n = dict.fromkeys(GROWING, 0)
        self._others: dict[str, str] = {}

    def is_on(self, learn: LearnerState) -> bool:
        """Whether it is the one that the learner records now."""
        return bool(learn.recorder.runs) and learn.recorder.run is self._run

    def take(self) -> dict[str, object]:
        run, found = self._run, {}
        n_read = len(run.losses)
        for name in GROWING:
            values = getattr(run, name)[: n_read if name in BY_STEP else None]
            if len(values) > self._n[name]:
                found[name] = values[self._n[name] :]
                self._n[name] = len(values)
        for field in fields(run):
            if field.name not in GROWING:
                value = getattr(run, field.name)
                if self._others.get(field.name) != repr(value):
                    self._others[field.name] = repr(value)
                    found[field.name] = value
        return found


def _copied(value: object) -> object:
    """Lists may grow, and tensors are none of what is told."""
    if isinstance(value, Tensor):
        return float(value)
    return list(value) if isinstance(value, list) else value


def schedule_points(schedule: object) -> list[float]:
    """A schedule at evenly spaced shares of a fit, as functions do not travel."""
    return [schedule(i / POINTS) for i in range(POINTS)]
