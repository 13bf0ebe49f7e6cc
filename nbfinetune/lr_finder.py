"""The learning rate finder: a range test (Smith 2015, arXiv 1506.01186) that changes nothing."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nbfinetune import loop
from nbfinetune.callbacks import Callback, CancelFit
from nbfinetune.snapshot import unchanged
from nbfinetune.suggestions import (
    MIN_POINTS,
    SKIP,
    SKIP_END,
    SUGGESTIONS,
    judge,
    moving_average,
    trim,
)
from nbfinetune.svg import lr_curve

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

_LEAST_IT = 6  # fastai's
_DIVERGED = 4.0  # times the best loss (fastai's)


@dataclass(frozen=True)
class LRFindResult:
    """The curve of a range test, what it suggests and what it is worth.

    Iterating gives the suggested rates in the order asked for.

    Parameters
    ----------
    lrs : learning rate of each step
    losses : raw training loss of each step
    smooth : their moving average (factor 0.98), which lags behind them
    suggestions : name -> rate; NaN where the curve is too short for it
    confidence : "high", "low" or "none"
    verdict : one sentence: why, and what to do
    low, high : rates between which training works, None without confidence
    """

    lrs: list[float] = field(repr=False)
    losses: list[float] = field(repr=False)
    smooth: list[float] = field(repr=False)
    suggestions: dict[str, float]
    confidence: str
    verdict: str
    low: float | None
    high: float | None

    @property
    def lr(self) -> float | None:
        """The first suggestion; None without confidence."""
        return next(iter(self)) if self.confidence != "none" else None

    def __iter__(self) -> Iterator[float]:
        return iter(self.suggestions.values())

    def __repr__(self) -> str:
        if self.confidence == "none":
            return f"lr_find: no suggestion: {self.verdict}"
        rates = ", ".join(f"{name} {lr:.1e}" for name, lr in self.suggestions.items())
        bracket = f"usable {self.low:.1e} to {self.high:.1e}"
        return f"lr_find: {rates}; {bracket}; confidence {self.confidence}: {self.verdict}"

    def _repr_html_(self) -> str:
        shown = self.suggestions if self.confidence != "none" else {}
        bracket = (self.low, self.high) if self.low is not None else None
        return lr_curve(self.lrs, self.losses, self.smooth, shown, bracket, repr(self))


class _Sweep(Callback):
    """Sets the rate of each step and ends the run at `num_it` steps or when the loss diverges."""

    def __init__(self, start_lr: float, end_lr: float, num_it: int, stop_div: bool) -> None:
        self.start_lr, self.end_lr, self.num_it = start_lr, end_lr, num_it
        self.stop_div, self.best = stop_div, math.inf

    def before_batch(self, learn: "Learner") -> None:
        done = len(learn.recorder.run.lrs)
        lr = self.start_lr * (self.end_lr / self.start_lr) ** (done / self.num_it)
        for group in learn.opt.param_groups:
            group["lr"] = lr

    def after_batch(self, learn: "Learner") -> None:
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


def lr_find(
    learn: "Learner",
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    num_it: int = 100,
    *,
    stop_div: bool = True,
    suggest: Sequence[str] = ("valley",),
    cbs: Sequence[Callback] = (),
) -> LRFindResult:
    """Train a few steps at rising rates, look at the losses, and put everything back.

    Step i of num_it has the rate start_lr (end_lr / start_lr)^(i / num_it), in all layer groups.
    Afterwards the learner is as before, bit for bit, also on errors and interrupts.

    Parameters
    ----------
    start_lr, end_lr : the range
    num_it : steps, at least 6
    stop_div : stop when the moving average is above four times its best
    suggest : names from `SUGGESTIONS`; the first is the result's `lr`
    cbs : callbacks of this run; those of the learner are left out

    Raises
    ------
    ValueError
        For arguments out of range, no data or nothing that trains, before anything is touched.

    Examples
    --------
    >>> lr_min, lr_steep = learn.lr_find(suggest=("minimum", "steep"))  # doctest: +SKIP
    """
    suggest = (suggest,) if isinstance(suggest, str) else tuple(suggest)
    _check(learn, start_lr, end_lr, num_it, suggest)
    sweep = _Sweep(start_lr, end_lr, num_it, stop_div)
    n_epoch = math.ceil(num_it / len(learn.dls.train))
    with unchanged(learn), learn.own_rng():
        all_cbs = [learn.recorder, sweep, *cbs]
        run = loop.run(learn, "lr_find", n_epoch, all_cbs, 0, validates=False)
    lrs = [step[-1] for step in run.lrs]
    smooth = moving_average(run.losses)
    trimmed = trim(lrs, smooth)
    verdict = judge(lrs, run.losses)
    enough = len(trimmed[0]) >= MIN_POINTS * (1 - SKIP) - SKIP_END
    suggestions = {n: SUGGESTIONS[n](*trimmed) if enough else math.nan for n in suggest}
    return LRFindResult(
        lrs,
        run.losses,
        smooth,
        suggestions,
        verdict.confidence,
        verdict.sentence,
        verdict.low,
        verdict.high,
    )


def _check(
    learn: "Learner", start_lr: float, end_lr: float, num_it: int, suggest: tuple[str, ...]
) -> None:
    if not 0 < start_lr < end_lr < math.inf:
        raise ValueError(f"start_lr {start_lr} must be positive and below end_lr {end_lr}")
    if not isinstance(num_it, int) or num_it < _LEAST_IT:
        raise ValueError(f"num_it is {num_it!r}; it must be a whole number from {_LEAST_IT} up")
    if unknown := [name for name in suggest if name not in SUGGESTIONS]:
        raise ValueError(f"no suggestion {unknown[0]!r}; there are {', '.join(SUGGESTIONS)}")
    if not suggest:
        raise ValueError(f"suggest names none of {', '.join(SUGGESTIONS)}")
    if learn.dls is None or not len(learn.dls.train):
        raise ValueError("this learner has no data to train on")
    if not any(p.requires_grad for p in learn.model.parameters()):
        raise ValueError("no parameter of the model is trainable; call learn.unfreeze()")
