"""Callbacks: the events of a run, and small behaviours that hang on them."""

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from nbfinetune.training.metrics import smaller_is_better
from nbfinetune.training.schedules import Schedule

if TYPE_CHECKING:
    from nbfinetune.learner import Learner


class CancelFit(Exception):
    """Raise it in an event to end the run quietly, once all callbacks have seen that event."""


class CancelTrain(Exception):
    """Raise it in an event of a training batch to go on with the validation of the epoch."""


class Callback:
    """Something that happens in a run. Each event gets the learner; the order is that of the list.

    `before_batch` and `after_batch` are for validation batches too: see `learn.training`.
    `after_fit` always comes, also after an error or an interrupt; `learn.status` says how it ended.
    """

    def before_fit(self, learn: "Learner") -> None: ...
    def before_epoch(self, learn: "Learner") -> None: ...
    def before_batch(self, learn: "Learner") -> None: ...
    def after_batch(self, learn: "Learner") -> None: ...
    def after_epoch(self, learn: "Learner") -> None: ...
    def after_fit(self, learn: "Learner") -> None: ...


class ParamScheduler(Callback):
    """Writes learning rates and momentum before each training step, as functions of progress.

    Parameters
    ----------
    lrs : one schedule for each layer group
    mom : schedule of the momentum (AdamW's first beta), or None to leave it
    """

    def __init__(self, lrs: Sequence[Schedule], mom: Schedule | None = None) -> None:
        self.lrs, self.mom = lrs, mom

    def before_fit(self, learn: "Learner") -> None:
        learn.lr_schedules = self.lrs

    def before_batch(self, learn: "Learner") -> None:
        if not learn.training:
            return
        lrs = [schedule(learn.progress) for schedule in self.lrs]
        mom = self.mom and self.mom(learn.progress)
        for group in learn.opt.param_groups:
            group["lr"] = lrs[group["layer_group"]]
            if mom is not None:
                group["betas"] = (mom, group["betas"][1])


def _monitored(learn: "Learner", monitor: str) -> float:
    """The monitored value of the newest epoch, turned so that smaller is better; NaN is worst."""
    value = learn.recorder.run.rows[-1][monitor]
    value = value if smaller_is_better(monitor) else -value
    return value if value == value else inf


def _check_monitor(learn: "Learner", monitor: str) -> None:
    allowed = learn.recorder.run.names[1:-1]
    if monitor not in allowed:
        raise ValueError(f"monitor is {monitor!r}; this run records {', '.join(allowed)}")


class EarlyStopping(Callback):
    """Ends the fit when `monitor` has not improved for `patience` epochs.

    It starts anew with each fit, so in `fine_tune` it ends a stage, not the whole.

    Parameters
    ----------
    monitor : a column of the epoch table; falls if its name holds "loss" or "error", else rises
    min_delta : an improvement is larger than this
    patience : epochs without one that end the fit (fastai's default, 1)
    """

    def __init__(
        self, monitor: str = "valid_loss", *, min_delta: float = 0.0, patience: int = 1
    ) -> None:
        self.monitor, self.min_delta, self.patience = monitor, min_delta, patience

    def before_fit(self, learn: "Learner") -> None:
        _check_monitor(learn, self.monitor)
        self.best, self.wait = inf, 0

    def after_epoch(self, learn: "Learner") -> None:
        value = _monitored(learn, self.monitor)
        if value < self.best - self.min_delta:
            self.best, self.wait = value, 0
            return
        self.wait += 1
        if self.wait >= self.patience:
            raise CancelFit


class SaveBest(Callback):
    """Keeps the weights of the best epoch in memory and puts them back when the fit ends.

    The best is remembered over all fits it is passed to, so in `fine_tune` the second stage cannot
    end worse than the first. Equal values are told apart by the validation loss. An interrupted or
    failed fit keeps the weights of its last step.

    Parameters
    ----------
    monitor : a column of the epoch table; falls if its name holds "loss" or "error", else rises

    Attributes
    ----------
    row : the row of the best epoch, None before the first
    """

    def __init__(self, monitor: str = "valid_loss") -> None:
        self.monitor = monitor
        self.row: dict[str, float] | None = None
        self._best = (inf, inf)

    def before_fit(self, learn: "Learner") -> None:
        _check_monitor(learn, self.monitor)

    def after_epoch(self, learn: "Learner") -> None:
        value = _monitored(learn, self.monitor), _monitored(learn, "valid_loss")
        if value < self._best:
            self._best, self.row = value, learn.recorder.run.rows[-1]
            self._weights = {k: v.clone() for k, v in learn.model.state_dict().items()}

    def after_fit(self, learn: "Learner") -> None:
        if learn.status in ("finished", "stopped") and self.row is not None:
            learn.model.load_state_dict(self._weights)
