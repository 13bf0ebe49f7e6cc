"""The learning rate finder: a range test (Smith 2015, arXiv 1506.01186) that changes nothing."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from nbfinetune.lr_finder.results import LRFindComparison, LRFindResult
from nbfinetune.lr_finder.suggestions import (
    FLAT,
    NAMES,
    agree,
    candidates,
    contained,
    judge,
    moving_average,
    suggested,
)
from nbfinetune.rendering.names import shown
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.training import loop, schedules
from nbfinetune.training.arguments import check_trains
from nbfinetune.training.callbacks import CancelFit, Recording
from nbfinetune.training.snapshot import generators, unchanged
from nbfinetune.training.state import Callback, LearnerState
from nbfinetune.training.steering import Steering, exclusive_run

_LEAST_IT = 6  # fastai's
_DIVERGED = 4.0  # times the best loss (fastai's)
TRIAL_STEPS = 30  # of a short run: enough that the best rate is that of a longer one, give or take


class _Sweep(Callback):
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


class _ShortRun(Callback):
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


@exclusive_run(scales_rates=False)
def lr_find(
    learn: LearnerState,
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    num_it: int = 100,
    *,
    stop_div: bool = True,
    suggest: Sequence[str] = ("bracket",),
    seeds: int = 1,
    groups: bool = False,
    verify: int = 0,
    cbs: Callback | Sequence[Callback] = (),
) -> LRFindResult | LRFindComparison:
    """Train a few steps at rising rates, look at the losses, and put everything back.

    Step i of num_it has the rate start_lr (end_lr / start_lr)^(i / num_it), in all layer groups.
    Afterwards the learner is as before, bit for bit, also on errors and interrupts.

    Parameters
    ----------
    start_lr, end_lr : the range
    num_it : steps, at least 6
    stop_div : stop when the moving average is above four times its best
    suggest : of bracket, valley, slide, minimum, steep; the first is the result's `lr` unless
        `verify` finds one
    seeds : sweeps, each over other batches; the result is their mean, of low confidence if they
        disagree
    groups : one sweep for each layer group, the others standing still; all must train
    verify : so many candidate rates each get a short run on the same batches; the one with the
        lowest held-out loss is the result's `lr`
    cbs : callbacks of this run; those of the learner are left out

    Returns
    -------
    LRFindResult
        With `groups` an `LRFindComparison` of one for each group.

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
    _check_repeats(learn, seeds, groups, verify)

    runs = learn.recorder.runs
    last_lr = max(step[-1] for step in runs[-1].lrs) if runs and runs[-1].lrs else None

    def search(only: int | None, trained: str) -> LRFindResult:
        sweeps = []
        for k in range(seeds):
            sweep = _Sweep(start_lr, end_lr, num_it, stop_div, only)
            losses = _losses(learn, sweep, k, cbs)
            if not (learn.control.ended and sweeps):  # a whole sweep says more than a cut one
                sweeps.append(losses)
            if learn.control.ended:
                break
        n = min(len(losses) for losses in sweeps)
        lrs = [start_lr * (end_lr / start_lr) ** (i / num_it) for i in range(n)]
        return _result(lrs, sweeps, suggest, trained, last_lr)

    if groups:
        found = {}
        for i, name in enumerate(learn.group_names):
            found[name] = search(i, name)
            if learn.control.ended:
                break
        return LRFindComparison(found, complete=not learn.control.ended)
    found = search(None, learn.trained_text())
    return _verified(learn, found, verify, cbs) if verify and not learn.control.ended else found


def search_cost(
    learn: LearnerState, num_it: int, seeds: int, groups: bool, verify: int
) -> tuple[int, str]:
    """Training steps that a search takes at most, and what they are for."""
    sweeps = seeds * (len(learn.groups) if groups else 1)
    text = f"{sweeps} sweeps of {num_it} steps"
    if verify:
        runs = f"{verify} short runs of {TRIAL_STEPS} steps, each with a validation"
        text = f"{text}, then {runs}" if sweeps > 1 else f"a sweep of {num_it} steps, then {runs}"
    return sweeps * num_it + verify * TRIAL_STEPS, text


def trial_loss(learn: LearnerState, lr: float, cbs: Sequence[Callback] = ()) -> float:
    """The held-out loss after 30 steps of one cycle up to `lr`; the learner is unchanged after."""
    n_epoch = math.ceil(TRIAL_STEPS / len(learn.dls.train))
    with unchanged(learn), learn.own_rng():
        all_cbs = [Recording(), _ShortRun(lr), Steering(), *cbs]
        loop.run(learn, "lr_find: short run", n_epoch, all_cbs, 0, validates=False)
        loss = _held_out(learn, cbs)
    return loss if math.isfinite(loss) else math.inf


def _held_out(learn: LearnerState, cbs: Sequence[Callback]) -> float:
    """The validation loss; infinite if it is stopped."""
    with suppress(CancelFit):
        return loop.validate(learn, learn.dls.valid, [Steering(), *cbs])[0][0]
    return math.inf


def _verified(
    learn: LearnerState, found: LRFindResult, k: int, cbs: Sequence[Callback]
) -> LRFindResult:
    """The result with the best of k candidate rates as its first suggestion, if it is any good."""
    with unchanged(learn), learn.own_rng():
        before = _held_out(learn, ())  # no run is on that the callbacks could look at
    if not math.isfinite(before):
        return found
    usable = (found.low, found.high) if found.low is not None else None
    rates = candidates(found.lrs, found.losses, usable, k)
    trials = []
    for lr in rates:
        loss = trial_loss(learn, lr, cbs)
        if learn.control.ended:
            return found  # a run cut short says nothing
        trials.append((lr, loss))
    best = min(range(k), key=lambda i: trials[i][1])
    lr, loss = trials[best]
    if not loss < (1 - FLAT) * before:
        verdict = f"no short run lowers the held-out loss of {before:.3f} by {FLAT:.0%}"
        if loss > (1 + FLAT) * before:
            verdict += (
                f": the rates tried, from {rate_text(rates[0])} up, are too high; lower start_lr"
            )
        else:
            verdict += ": it has converged; more data or augmentation helps, training does not"
        return replace(found, confidence="none", verdict=verdict, trials=trials)
    losses = f"{loss:.3f} from {before:.3f}"
    text = f"the short run at {rate_text(lr)} has the lowest held-out loss, {losses}"
    inside = 0 < best < k - 1
    return replace(
        found,
        verified=lr,
        confidence="high" if inside else "low",
        verdict=text if inside else f"{text}, but lies at the edge of the rates tried",
        trials=trials,
    )


def _losses(learn: LearnerState, sweep: _Sweep, k: int, cbs: Sequence[Callback]) -> list[float]:
    """The losses of the k-th sweep; each but the first is over other batches than training."""
    n_epoch = math.ceil(sweep.num_it / len(learn.dls.train))
    with unchanged(learn):
        if k:
            learn.seed, learn._rng = learn.seed + k, None
            for generator in generators(learn):
                generator.manual_seed(learn.seed)
        with learn.own_rng():
            all_cbs = [Recording(), sweep, Steering(), *cbs]
            how = {"validates": False, "jitter": True}
            return loop.run(learn, "lr_find", n_epoch, all_cbs, 0, **how).losses


def _result(
    lrs: list[float],
    sweeps: list[list[float]],
    suggest: tuple[str, ...],
    trained: str,
    last_lr: float | None,
) -> LRFindResult:
    columns = zip(*(losses[: len(lrs)] for losses in sweeps), strict=True)
    losses = [sum(column) / len(sweeps) for column in columns]
    smooth = moving_average(losses)
    verdict = agree(lrs, sweeps, judge(lrs, losses, last_lr))
    usable = None if verdict.low is None else (verdict.low, verdict.high)
    suggestions = {name: suggested(name, lrs, smooth, usable) for name in suggest}
    verdict = contained(suggestions, verdict)
    return LRFindResult(
        lrs,
        losses,
        smooth,
        suggestions,
        verdict.confidence,
        verdict.sentence,
        verdict.low,
        verdict.high,
        trained,
        sweeps,
    )


def _check(
    learn: LearnerState, start_lr: float, end_lr: float, num_it: int, suggest: tuple[str, ...]
) -> None:
    if not 0 < start_lr < end_lr < math.inf:
        raise ValueError(f"start_lr {start_lr} must be positive and below end_lr {end_lr}")
    if not isinstance(num_it, int) or num_it < _LEAST_IT:
        raise ValueError(
            f"num_it is {shown(num_it)}; it must be a whole number from {_LEAST_IT} up"
        )
    if unknown := [name for name in suggest if name not in NAMES]:
        raise ValueError(f"no suggestion {shown(unknown[0])}; there are {', '.join(NAMES)}")
    if not suggest:
        raise ValueError(f"suggest names none of {', '.join(NAMES)}")
    if learn.dls is None or not len(learn.dls.train):
        raise ValueError("this learner has no data to train on")
    check_trains(learn)


def _check_repeats(learn: LearnerState, seeds: int, groups: bool, verify: int) -> None:
    if not isinstance(seeds, int) or seeds < 1:
        raise ValueError(f"seeds is {shown(seeds)}; it must be a whole number of sweeps from 1 up")
    if not isinstance(verify, int) or verify < 0 or verify == 1:
        raise ValueError(f"verify is {shown(verify)}; it must be 0, or a number of rates from 2 up")
    if groups and (learn.frozen or len(learn.groups) == 1):
        raise ValueError(
            f"groups=True needs several layer groups, all of which train, but {learn.frozen} of "
            f"{len(learn.groups)} are frozen; call learn.unfreeze(), or leave groups out"
        )
    if groups and verify:
        raise ValueError("verify tries one rate for all layer groups; leave verify or groups out")
