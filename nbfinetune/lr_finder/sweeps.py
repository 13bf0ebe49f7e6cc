"""Sweeps: callbacks that set the rates of a range test and of a short run, and end these."""

import math

from nbfinetune.training import schedules
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.state import Callback, LearnerState

_DIVERGED = 4.0  # times the best loss (fastai's)
TRIAL_STEPS = 30  # of a short run: enough that the best rate is that of a longer one, give or take


class Sweep(Callback):
    """Sets the rate of each step and ends the run at `num_it` steps or when the loss diverges.

    With `only` all layer groups but that one have the rate 0.
    """

    def __init__(
        self, start_lr: float, end_lr: float, num_it: int, stop_div: bool, only: int | None
    ) -> None:
        self.start_lr, self.end_lr, self.num_it = start_lr, end_lr, num_it
        self.stop_div, self.only, self.best = stop_div, only, math.inf

    def before_batch(self, learn: LearnerState) -> None:
        done = len(learn.recorder.run.lrs)
        lr = self.start_lr * (self.end_lr / self.start_lr) ** (done / self.num_it)
        for group in learn.opt.param_groups:
            group["lr"] = lr if self.only in (None, group["layer_group"]) else 0.0

    def after_batch(self, learn: LearnerState) -> None:
        learn.recorder.flush()
        losses, average = learn.recorder.run.losses, learn.recorder.train_loss
        if len(losses) == 1:
            self.first = average
        # The best counts only after the first tenth: the average of a few losses of a trained
        # network is small by chance, and then four times as large by chance.
        settled = len(losses) > self.num_it // 10
        if settled:
            self.best = min(self.best, average)
        diverged = settled and self.stop_div and self._far_above_best(average)
        if len(losses) == self.num_it or diverged or not math.isfinite(losses[-1]):
            raise CancelFit

    def _far_above_best(self, average: float) -> bool:
        if self.best > 0:
            return average > _DIVERGED * self.best
        return average - self.best > _DIVERGED * max(self.first - self.best, 0) > 0


class ShortRun(Callback):
    """One cycle up to `lr_max` and down again, over `TRIAL_STEPS` steps."""

    def __init__(self, lr_max: float) -> None:
        # The shape of fit_one_cycle, whose rate is looked for.
        self.rate = schedules.one_cycle(lr_max / 25, lr_max, lr_max / 1e5, 0.25)

    def before_batch(self, learn: LearnerState) -> None:
        if learn.training:
            for group in learn.opt.param_groups:
                group["lr"] = self.rate(len(learn.recorder.run.lrs) / TRIAL_STEPS)

    def after_batch(self, learn: LearnerState) -> None:
        if learn.training and len(learn.recorder.run.lrs) == TRIAL_STEPS:
            raise CancelFit
