"""Callbacks: small behaviours that hang on the events of a run."""

from collections.abc import Sequence
from copy import deepcopy
from math import inf
from time import perf_counter

from nbfinetune.history.runs import Run
from nbfinetune.objectives.metrics import higher_is_better, is_share_of_pictures, metric_name
from nbfinetune.rendering.names import shown
from nbfinetune.rendering.numbers import counted
from nbfinetune.training.schedules import Schedule
from nbfinetune.training.state import Callback, LearnerState


class CancelFit(Exception):
    """Raise it in an event to end the run quietly, once all callbacks have seen that event."""


class CancelTrain(Exception):
    """Raise it in an event of a training batch to go on with the validation of the epoch."""


class Recording(Callback):
    """Writes what a run does into `learn.recorder`."""

    def before_fit(self, learn: LearnerState) -> None:
        names = ["epoch", "train_loss", "valid_loss", *learn.metric_names, "time"]
        run = Run(learn.run_name, learn.n_epoch, learn.n_iter, names, first_epoch=learn.epoch)
        run.body_epochs = learn.body_epochs
        run.shares = {
            metric_name(metric): rises
            for metric in learn.metrics
            if is_share_of_pictures(metric) and (rises := higher_is_better(metric)) is not None
        }
        learn.recorder.begin(run)
        first = {g["layer_group"]: g for g in reversed(learn.opt.param_groups)}
        self._groups = [first[i] for i in sorted(first)]
        self._begun = perf_counter()

    def before_epoch(self, learn: LearnerState) -> None:
        self._started = perf_counter() - learn.control.waited

    def after_batch(self, learn: LearnerState) -> None:
        if learn.training:
            lrs, mom = [g["lr"] for g in self._groups], self._groups[-1]["betas"][0]
            seconds = perf_counter() - self._begun - learn.control.waited
            learn.recorder.add_step(learn.loss, lrs, mom, seconds)

    def after_epoch(self, learn: LearnerState) -> None:
        seconds = perf_counter() - learn.control.waited - self._started
        learn.recorder.add_epoch(learn.epoch, learn.values, seconds)
        run = learn.recorder.run
        run.n_valid = learn.n_valid
        run.weakest.append(learn.weakest)

    def after_fit(self, learn: LearnerState) -> None:
        learn.recorder.end(learn.status)


class ParamScheduler(Callback):
    """Writes learning rates and momentum before each training step, as functions of progress.

    Parameters
    ----------
    lrs : one schedule for each layer group
    mom : schedule of the momentum (AdamW's first beta), or None to leave it
    """

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


_MODES = ("min", "max")


class _Monitor:
    """A column of the epoch table, and whether it should rise.

    Parameters
    ----------
    user : the class that watches it, for messages
    mode : "min", "max", or None = as is known of the loss or metric
    """

    def __init__(self, user: str, column: str, mode: str | None) -> None:
        if mode not in (None, *_MODES):
            raise ValueError(
                f'mode is {shown(mode)}; it must be "min", "max" or None = as is known'
            )
        self.user, self.column, self.mode = user, column, mode

    def rises(self, learn: LearnerState) -> bool:
        """Whether larger values are better.

        Raises
        ------
        ValueError
            If the run does not record the column, or nothing says how it should go.
        """
        metrics = {metric_name(metric): metric for metric in learn.metrics}
        allowed = ["train_loss", "valid_loss", *metrics]
        if self.column not in allowed:
            raise ValueError(
                f"monitor is {shown(self.column)}; this run records {', '.join(allowed)}"
            )
        if self.mode is not None:
            return self.mode == "max"
        rises = higher_is_better(metrics[self.column]) if self.column in metrics else False
        if rises is None:
            raise ValueError(
                f"monitor is {shown(self.column)}, and whether it should rise or fall is not "
                f'known; write {self.user}("{self.column}", mode="max") or mode="min"'
            )
        return rises

    def value(self, learn: LearnerState) -> float:
        """The newest epoch's, turned so that smaller is better; NaN is worst."""
        value = learn.recorder.run.rows[-1][self.column]
        value = -value if self.rises(learn) else value
        return value if value == value else inf


class EarlyStopping(Callback):
    """Ends the fit when `monitor` has not improved for `patience` epochs.

    It starts anew with each fit, so in `fine_tune` it ends a stage, not the whole.

    Parameters
    ----------
    monitor : a column of the epoch table
    mode : "max" if it should rise, "min" if it should fall; None = as is known: losses fall, and
        metrics do as their attribute `higher_is_better` says, or as one of their name does
    min_delta : an improvement is larger than this
    patience : epochs without one that end the fit (fastai's default, 1)
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        *,
        mode: str | None = None,
        min_delta: float = 0.0,
        patience: int = 1,
    ) -> None:
        self.monitor, self.min_delta, self.patience = monitor, min_delta, patience
        self._monitor = _Monitor("EarlyStopping", monitor, mode)

    def check(self, learn: LearnerState) -> None:
        """Raise ValueError if `monitor` cannot be watched in a fit of this learner."""
        self._monitor.rises(learn)

    def before_fit(self, learn: LearnerState) -> None:
        self.check(learn)
        self.best, self.wait = inf, 0

    def after_epoch(self, learn: LearnerState) -> None:
        value = self._monitor.value(learn)
        if value < self.best - self.min_delta:
            self.best, self.wait = value, 0
            return
        self.wait += 1
        if self.wait >= self.patience:
            epochs = counted(self.wait, "epoch")
            learn.recorder.run.ended = f"{self.monitor} did not improve for {epochs}"
            raise CancelFit


class SaveBest(Callback):
    """Keeps the weights of the best epoch in memory and puts them back when the fit ends.

    The best is remembered over all fits it is passed to, so in `fine_tune` the second stage cannot
    end worse than the first. Equal values are told apart by the validation loss. An interrupted or
    failed fit keeps the weights of its last step.

    Parameters
    ----------
    monitor, mode : as in `EarlyStopping`

    Attributes
    ----------
    row : the row of the best epoch, None before the first
    """

    def __init__(self, monitor: str = "valid_loss", *, mode: str | None = None) -> None:
        self.monitor = monitor
        self._monitor = _Monitor("SaveBest", monitor, mode)
        self._loss = _Monitor("SaveBest", "valid_loss", None)
        self.row: dict[str, float] | None = None
        self._best = (inf, inf)

    def check(self, learn: LearnerState) -> None:
        """Raise ValueError if `monitor` cannot be watched in a fit of this learner."""
        self._monitor.rises(learn)

    def before_fit(self, learn: LearnerState) -> None:
        self.check(learn)
        learn.recorder.run.kept = self.row

    def after_epoch(self, learn: LearnerState) -> None:
        value = self._monitor.value(learn), self._loss.value(learn)
        if value < self._best:
            self._best, self.row = value, learn.recorder.run.rows[-1]
            learn.recorder.run.kept = self.row
            # A deep copy has the versions of the modules too, without which some do not load it.
            self._weights = deepcopy(learn.model.state_dict())

    def after_fit(self, learn: LearnerState) -> None:
        if learn.status in ("finished", "stopped") and self.row is not None:
            learn.model.load_state_dict(self._weights)
