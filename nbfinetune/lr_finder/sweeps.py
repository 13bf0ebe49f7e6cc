"""Sweeps: callbacks that set the rates of a range test and of a short run, and end these."""

import math
from collections.abc import Sequence

from nbfinetune.training import schedules
from nbfinetune.training.arguments import rates
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.state import Callback, LearnerState

_DIVERGED = 4.0  # times the best loss (fastai's)
# Of a short run. After 20 steps of 32 pictures the lowest rate tried was the best one, for all
# layers after the head was fitted; after 40 it was that of longer runs (benchmarks/README.md).
_TRIAL_STEPS, _TRIAL_PICTURES, _MOST_STEPS = 40, 40 * 32, 80


def trial_steps(learn: LearnerState) -> int:
    """Steps of a short run: 40, or as many as 1,280 pictures take, but 80 at most."""
    bs = getattr(learn.dls.train, "batch_size", None) or _TRIAL_PICTURES
    return min(max(_TRIAL_STEPS, _TRIAL_PICTURES // bs), _MOST_STEPS)


class Sweep(Callback):
    """Sets the rate of each step and ends the run at `num_it` steps or when the loss diverges.

    With `only` all layer groups but that one have the rate 0.
    """

    runs_on = "all"

    def __init__(
        self, start_lr: float, end_lr: float, num_it: int, stop_div: bool, only: int | None
    ) -> None:
        self.start_lr, self.end_lr, self.num_it = start_lr, end_lr, num_it
        self.stop_div, self.only, self.best = stop_div, only, math.inf

    def before_batch(self, learn: LearnerState) -> None:
        done = len(learn.recorder.run.lrs)
        lr = self.start_lr * (self.end_lr / self.start_lr) ** (done / self.num_it)
        lrs = [0.0] * len(learn.groups) if self.only is not None else rates(learn, lr, "lr")
        if self.only is not None:
            lrs[self.only] = lr
        for group in learn.opt.param_groups:
            group["lr"] = lrs[group["layer_group"]]

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
    """One cycle up to a rate for each layer group and down again, over `steps` steps."""

    runs_on = "all"

    def __init__(self, lrs: Sequence[float], steps: int) -> None:
        # The shape of fit_one_cycle, whose rate is looked for.
        self.rates = [schedules.one_cycle(lr / 25, lr, lr / 1e5, 0.25) for lr in lrs]
        self.steps = steps

    def before_batch(self, learn: LearnerState) -> None:
        if learn.training:
            done = len(learn.recorder.run.lrs) / self.steps
            for group in learn.opt.param_groups:
                group["lr"] = self.rates[group["layer_group"]](done)

    def after_batch(self, learn: LearnerState) -> None:
        if learn.training and len(learn.recorder.run.lrs) == self.steps:
            raise CancelFit
