"""Callbacks: what each run has on its events, and what ends one there."""

from collections.abc import Sequence
from time import perf_counter, time

from nbfinetune.history.runs import Run
from nbfinetune.objectives.metrics import higher_is_better, is_share_of_pictures, metric_name
from nbfinetune.runtime.interrupts import whole
from nbfinetune.training.schedules import Schedule
from nbfinetune.training.state import Callback, LearnerState


class CancelFit(Exception):
    """Raise it in an event to end the run quietly, once all callbacks have seen that event."""


class CancelTrain(Exception):
    """Raise it in an event of a training batch to go on with the validation of the epoch."""


class Recording(Callback):
    """Writes what a run does into `learn.recorder`.

    Parameters
    ----------
    notes : what was decided for the run before it began
    begun : the run, where it goes on with one that was begun in another process
    """

    runs_on = "all"

    def __init__(self, notes: Sequence[str] = (), begun: Run | None = None) -> None:
        self._notes, self._begun_run = list(notes), begun
        self._run: Run | None = None

    @whole
    def before_fit(self, learn: LearnerState) -> None:
        run = self._begun_run or self._new_run(learn)
        learn.recorder.begin(run)
        self._run, learn.unrecorded = run, False
        first = {g["layer_group"]: g for g in reversed(learn.opt.param_groups)}
        self._groups = [first[i] for i in sorted(first)]
        self._begun = perf_counter()

    def _new_run(self, learn: LearnerState) -> Run:
        names = ["epoch", "train_loss", "valid_loss", *learn.metric_names, "time"]
        run = Run(learn.run_name, learn.n_epoch, learn.n_iter, names, first_epoch=learn.epoch)
        run.body_epochs, run.notes = learn.body_epochs, list(self._notes)
        run.when, run.trained = time(), learn.trained_text()
        run.shares = {
            metric_name(metric): rises
            for metric in learn.metrics
            if is_share_of_pictures(metric) and (rises := higher_is_better(metric)) is not None
        }
        return run

    def before_epoch(self, learn: LearnerState) -> None:
        self._started = perf_counter() - learn.control.waited

    def after_batch(self, learn: LearnerState) -> None:
        if learn.training:
            self._record(learn)

    @whole
    def _record(self, learn: LearnerState) -> None:
        lrs, mom = [g["lr"] for g in self._groups], self._groups[-1]["betas"][0]
        seconds = perf_counter() - self._begun - learn.control.waited
        learn.recorder.add_step(learn.loss, lrs, mom, seconds)
        learn.unrecorded = False

    @whole
    def after_epoch(self, learn: LearnerState) -> None:
        seconds = perf_counter() - learn.control.waited - self._started
        learn.recorder.add_epoch(learn.epoch, learn.values, seconds)
        run = learn.recorder.run
        run.n_valid = learn.n_valid
        run.weakest.append(learn.weakest)

    def after_fit(self, learn: LearnerState) -> None:
        if self._run is None:
            return  # it was interrupted before it began
        if learn.unrecorded:
            self._record(learn)  # interrupted between a step and its record
        learn.recorder.end(learn.status)

    def state_dict(self) -> dict[str, object]:
        now = perf_counter()
        return {"of_run": now - self._begun, "of_epoch": now - self._started}

    def load_state_dict(self, learn: LearnerState, state: dict[str, object]) -> None:
        now = perf_counter()
        self._begun, self._started = now - state["of_run"], now - state["of_epoch"]


class ParamScheduler(Callback):
    """Writes learning rates and momentum before each training step, as functions of progress.

    Parameters
    ----------
    lrs : one schedule for each layer group
    mom : schedule of the momentum (AdamW's first beta), or None to leave it
    """

    runs_on = "all"

    def __init__(self, lrs: Sequence[Schedule], mom: Schedule | None = None) -> None:
        self.lrs, self.mom = lrs, mom

    def before_fit(self, learn: LearnerState) -> None:
        learn.lr_schedules = self.lrs

    def before_batch(self, learn: LearnerState) -> None:
        if not learn.training:
            return
        lrs = [schedule(learn.progress) for schedule in self.lrs]
        mom = self.mom and self.mom(learn.progress)
        for group in learn.opt.param_groups:
            group["lr"] = lrs[group["layer_group"]]
            if mom is not None:
                group["betas"] = (mom, group["betas"][1])
