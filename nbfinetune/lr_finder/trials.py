"""Short runs: rates tried out and judged by held-out loss, where the training loss cannot tell."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic

from nbfinetune.lr_finder.results import LRFindResult
from nbfinetune.lr_finder.suggestions import FLAT, MIN_POINTS, n_finite, rises_at
from nbfinetune.lr_finder.sweeps import ShortRun, trial_steps
from nbfinetune.rendering.numbers import counted, rate_text
from nbfinetune.training import loop
from nbfinetune.training.arguments import rates
from nbfinetune.training.batches.feature_batches import features_usable
from nbfinetune.training.callbacks import CancelFit, Recording
from nbfinetune.training.fine_tuning.recipe import batches_of
from nbfinetune.training.snapshot import unchanged
from nbfinetune.training.state import Callback, LearnerState
from nbfinetune.training.steering import Steering

_MOST_PICTURES = 32  # in a batch of a short run in which the body trains
_DECADES = 4  # short runs a decade apart, at most
_MULTS = (
    10.0,
    100.0,
)  # rates of the head over that of the body that are tried; the last is fastai's
_WORTH = 0.01  # of the loss: less, for a rate a decade lower, is noise
MOST_RUNS = _DECADES + 2 + len(_MULTS)

LossOf = Callable[[float], float]  # the held-out loss of a short run at a rate


def is_unsure(learn: LearnerState, found: LRFindResult) -> bool:
    """Whether the held-out loss must tell what the curve of a sweep does not.

    That is so where body and head train: after a head was fitted the training loss has nowhere to
    fall, and where it has it falls by the head alone, at rates a decade too low for the body
    (benchmarks/lr_find_truth.py). Where the body's features are kept short runs cost next to
    nothing. A suggestion that was asked for by name is kept unless the curve gives none; a curve
    that is too short says what it needs.
    """
    if n_finite(found.losses) < MIN_POINTS or not learn.dls.valid:
        return False
    if found.asked or found.confidence == "none":
        return found.confidence == "none"
    cheap = features_usable(learn, learn.dls.train)
    return cheap or found.confidence == "low" or learn.frozen < len(learn.groups) - 1


def trial_loss(learn: LearnerState, lr: float | slice, cbs: Sequence[Callback] = ()) -> float:
    """The held-out loss after one cycle up to `lr`; the learner is unchanged after.

    Where the body trains batches have 32 pictures at most, with which the runs were measured: more
    cost more, and tell no more.
    """
    steps = trial_steps(learn)
    trains = learn.frozen < len(learn.groups) - 1
    bs = min(getattr(learn.dls, "bs", _MOST_PICTURES), _MOST_PICTURES) if trains else None
    with batches_of(learn, bs), unchanged(learn), learn.own_rng():
        n_epoch = math.ceil(steps / len(learn.dls.train))
        all_cbs = [Recording(), ShortRun(rates(learn, lr, "lr"), steps), Steering(), *cbs]
        loop.run(learn, "lr_find: short run", n_epoch, all_cbs, 0, validates=False)
        loss = _held_out(learn, cbs)
    return loss if math.isfinite(loss) else math.inf


def tried(
    learn: LearnerState, found: LRFindResult, k: int | None, cbs: Sequence[Callback]
) -> LRFindResult:
    """The result with the best rate of some short runs, if it is any good.

    Parameters
    ----------
    k : rates within the usable range; None = a few around the best one, and the head's rate too
    """
    began = monotonic() - learn.control.waited
    with unchanged(learn), learn.own_rng():
        before = _held_out(learn, ())  # no run is on that the callbacks could look at
    if not math.isfinite(before):
        return found

    def loss_at(lr: float | slice) -> float:
        loss = trial_loss(learn, lr, cbs)
        if learn.control.ended:
            raise CancelFit  # a run cut short says nothing
        return loss

    mults: list[tuple[float, float]] = []
    try:
        if k is None:
            trials = climb(loss_at, _start(found), (found.lrs[0], found.lrs[-1]))
            lr, loss = min(trials, key=_score)
            if _helps(trials, before) and learn.frozen < len(learn.groups) - 1:
                mults = _head_mults(loss_at, lr, loss)
        else:
            usable = (found.low, found.high) if found.low is not None else None
            trials = [(lr, loss_at(lr)) for lr in candidates(found.lrs, found.losses, usable, k)]
    except CancelFit:
        return found
    seconds = monotonic() - learn.control.waited - began
    runs = counted(len(trials) + len(mults), "short run")
    cost = f"{runs} of {trial_steps(learn)} steps took {seconds:.0f} s"
    judged = _judged(found, before, trials, mults, cost)
    return judged if k is not None else _with_range(judged, before)


def climb(loss_of: LossOf, start: float, ends: tuple[float, float]) -> list[tuple[float, float]]:
    """Rates and losses: a decade apart towards a lower loss, then half a decade from the best.

    A rate a decade lower has to have a loss lower by 1 %.

    Parameters
    ----------
    start : the first rate, within the ends; the next is a tenth of it
    ends : rates below and above which none is tried

    Examples
    --------
    >>> losses = climb(lambda lr: abs(math.log10(lr) + 4.4), 1e-3, (1e-8, 1.0))
    >>> [f"{lr:.0e}" for lr, _ in losses]
    ['1e-05', '3e-05', '1e-04', '1e-03']
    """
    losses: dict[int, float] = {}

    def at(k: int) -> float:
        """The score k half decades from the start."""
        lr = start * 10 ** (k / 2)
        if k not in losses:
            if not ends[0] <= lr <= ends[1]:
                return math.inf
            losses[k] = loss_of(lr)
        return _score((lr, losses[k]))

    best, step = 0, -2 if at(-2) <= at(0) else 2
    while len(losses) < _DECADES and at(best + step) < at(best):
        best += step
    # The nearer half decade first: the other one is on the side that is worse.
    for k in sorted((best - 1, best + 1), key=lambda k: losses.get(2 * k - best, math.inf)):
        if at(k) < at(best):
            break
    return [(start * 10 ** (k / 2), loss) for k, loss in sorted(losses.items())]


def _score(trial: tuple[float, float]) -> float:
    """The loss, with 1 % more for each decade that the rate is lower.

    After a head was fitted, rates two decades apart had held-out losses that differed by chance;
    of these the highest serve longer runs best.
    """
    lr, loss = trial
    return loss * (1 - math.copysign(_WORTH, loss)) ** math.log10(lr)


def candidates(
    lrs: Sequence[float], losses: Sequence[float], usable: tuple[float, float] | None, k: int
) -> list[float]:
    """`k` rates to try, evenly spaced on the log axis within the usable range.

    Without one they lie in the three decades below the rate at which the loss rises.
    """
    high = usable[1] if usable else rises_at(lrs, losses)
    low = usable[0] if usable else high / 1000
    return [low * (high / low) ** (i / (k + 1)) for i in range(1, k + 1)]


def _start(found: LRFindResult) -> float:
    """The middle of the usable range, else a tenth of the rate at which the loss rises."""
    if found.low is not None:
        return math.sqrt(found.low * found.high)
    return max(rises_at(found.lrs, found.losses) / 10, found.lrs[0])


def _head_mults(
    loss_at: Callable[[slice], float], lr: float, loss: float
) -> list[tuple[float, float]]:
    """Larger rates of the head, as long as they help: times that of the first group, and losses."""
    mults = []
    for mult in _MULTS:
        mults.append((mult, loss_at(slice(lr, lr * mult))))
        if not mults[-1][1] < (1 - FLAT) * loss:
            break
        loss = mults[-1][1]
    return mults


def _held_out(learn: LearnerState, cbs: Sequence[Callback]) -> float:
    """The validation loss; infinite if it is stopped."""
    with suppress(CancelFit):
        return loop.validate(learn, learn.dls.valid, [Steering(), *cbs])[0][0]
    return math.inf


def _helps(trials: list[tuple[float, float]], before: float) -> bool:
    """Whether the best rate lowers the loss by 2 %, and by as much below that of another rate.

    BatchNorm statistics that move lower it too, but alike at any rate.
    """
    losses = [loss for _, loss in trials]
    return min(losses) < (1 - FLAT) * min(before, max(losses))


def _judged(
    found: LRFindResult,
    before: float,
    trials: list[tuple[float, float]],
    mults: list[tuple[float, float]],
    cost: str,
) -> LRFindResult:
    """What the short runs are worth: a rate whose loss is below that before by 2 %, or none."""
    tries = {"trials": trials, "mult_trials": mults}
    best = min(range(len(trials)), key=lambda i: _score(trials[i]))
    lr, loss = trials[best]
    if not _helps(trials, before):
        text = f"no short run lowers the held-out loss of {before:.3f} by {FLAT:.0%}"
        if loss > (1 + FLAT) * before:
            text += f": the rates tried, from {rate_text(trials[0][0])} up, are too high"
            text += "; lower start_lr"
        else:
            text += ": it has converged; more data or augmentation helps, training does not"
        if found.advised is not None:
            text += f"; if you go on, use about 1/10 of the last LR, {rate_text(found.advised)}"
        return replace(found, confidence="none", verdict=f"{text}; {cost}", **tries)
    inside = 0 < best < len(trials) - 1
    clear = loss < (1 - 2 * FLAT) * before
    mult, least = min(mults, key=lambda tried: tried[1], default=(1.0, loss))
    mult = mult if least < (1 - FLAT) * loss else 1.0
    which = "has the" if loss == min(loss for _, loss in trials) else "has about the"
    text = f"the short run at {rate_text(lr)} {which} lowest held-out loss, "
    text += f"{loss:.3f} from {before:.3f}"
    if mult > 1:
        text += f", and {least:.3f} with {mult:.0f} times that rate for the head"
    if not inside:
        text += ", but lies at the edge of the rates tried"
    elif not clear:
        text += ", not much less"
    return replace(
        found,
        verified=lr,
        lr_mult=mult,
        confidence="high" if inside and clear else "low",
        verdict=f"{text}; {cost}",
        **tries,
    )


def _with_range(found: LRFindResult, before: float) -> LRFindResult:
    """The result with the rates as usable range whose short runs lowered the loss by 2 %."""
    if found.verified is None:
        return found
    good = [lr for lr, loss in found.trials if loss < (1 - FLAT) * before]
    return replace(found, low=min(good), high=max(good))
