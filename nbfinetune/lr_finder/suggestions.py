"""Suggestions: learning rates read off the curve of a range test, and what the curve is worth.

A suggestion is a function (lrs, losses) -> float of a smoothed and trimmed curve; the four have the
values of fastai's. `judge` says whether the raw curve carries any suggestion at all, and between
which rates training works; `bracket` is the suggestion that follows from these.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nbfinetune.rendering.numbers import rate_text

Suggestion = Callable[[Sequence[float], Sequence[float]], float]

MIN_POINTS = 30  # fewer finite losses than this say nothing
SKIP = 0.1  # share of the points dropped at the start: the moving average settles there (fastai)
SKIP_END = 5  # points dropped at the end, where the loss has blown up (fastai)
_SMOOTHING = 0.98  # of the moving average (fastai)
_KERNEL = 1 / 30  # standard deviation of the centred smoothing, as a share of the points
_NOISE = 2.5  # a dip must be so many times the noise of a single loss. Measured on 1,000 curves of
# 100 points, median and 99 %: pure noise dips by 0.6 and 1.3, a true dip as large as it by 1.4, 2.3
_CLEAR = 5.0  # from here on a dip is clear
FLAT = 0.02  # a dip below this share of the loss teaches nothing worth a rate
_CONVERGED = 0.2  # a flat loss below this is that of a trained network
_AGREED = 1.0  # decades: a rate ten times too high is the difference between training and not
_ROUNDING = 1e-9  # of a rate at an end of the usable range
_START = 0.1  # share of the dip at which the loss has begun to fall


def moving_average(losses: Sequence[float]) -> list[float]:
    """The exponential moving average of factor 0.98 without start-up bias, as fastai's.

    Examples
    --------
    >>> [round(v, 6) for v in moving_average([4.0, 3.0, 2.0, 1.0])]
    [4.0, 3.494949, 2.986532, 2.47475]
    """
    average, smooth = 0.0, []
    for k, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smooth.append(average / (1 - _SMOOTHING**k))
    return smooth


def n_finite(losses: Sequence[float]) -> int:
    """How many losses come before the first that is not finite."""
    return next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))


def trim(lrs: Sequence[float], losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """The curve up to its first loss that is not finite, less a tenth at the start, 5 at the end.

    fastai drops a tenth of the points that were planned, which leaves nothing of a short run.
    """
    n = n_finite(losses)
    start, end = int(n * SKIP), max(n - SKIP_END, 0)
    return list(lrs[start:end]), list(losses[start:end])


def valley(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """Two thirds into the longest stretch of falling losses (fastai's default suggestion)."""
    n = len(losses)
    lengths, start, end = [1] * n, 0, 0
    for i in range(1, n):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end, start = i, i - lengths[i]
    third = (end - start) / 3
    return float(lrs[start + int(third) + int(third / 2)])


def minimum(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the rate of the lowest loss."""
    return float(lrs[int(np.argmin(losses))]) / 10


def steep(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """Where the loss falls fastest over the logarithm of the rate."""
    slopes = np.diff(losses) / np.diff(np.log(lrs))
    return float(lrs[int(np.argmin(slopes))])


def slide(
    lrs: Sequence[float],
    losses: Sequence[float],
    *,
    lr_diff: int = 15,
    threshold: float = 0.005,
) -> float:
    """Left end of an interval slid from the right until the slopes at its ends are alike.

    Raises
    ------
    ValueError
        If there are not more than `lr_diff` points.
    """
    if len(losses) <= lr_diff:
        raise ValueError(f"slide needs more than {lr_diff} points; there are {len(losses)}")
    slopes = np.gradient(np.asarray(losses))
    right, left = -1, -1 - lr_diff
    found = lrs[left]
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > threshold:
        found = lrs[left]
        right, left = right - 1, left - 1
    return float(found)


SUGGESTIONS: dict[str, Suggestion] = {
    "valley": valley,
    "slide": slide,
    "minimum": minimum,
    "steep": steep,
}
NAMES = ("bracket", *SUGGESTIONS)


def bracket(low: float, high: float) -> float:
    """The middle, on the log axis, between where the loss begins to fall and where it is lowest.

    valley takes two thirds of the longest fall too, but of a lagging curve whose flat start counts:
    for a new head it lay 0.5 to 1.5 decades below the best rate (benchmarks/lr_find_truth.py).

    Examples
    --------
    >>> round(bracket(1e-4, 1e-2), 6)
    0.001
    """
    return math.sqrt(low * high)


def suggested(
    name: str,
    lrs: Sequence[float],
    smooth: Sequence[float],
    usable: tuple[float, float] | None,
) -> float:
    """The rate that the suggestion `name` reads off a curve; NaN if the curve is too short for it.

    Parameters
    ----------
    name : of NAMES
    smooth : `moving_average` of the losses, untrimmed
    usable : the usable range, None without confidence
    """
    if name == "bracket":
        return bracket(*usable) if usable else math.nan
    trimmed = trim(lrs, smooth)
    enough = len(trimmed[0]) >= MIN_POINTS * (1 - SKIP) - SKIP_END
    return SUGGESTIONS[name](*trimmed) if enough else math.nan


@dataclass(frozen=True)
class Verdict:
    """What a curve is worth.

    Parameters
    ----------
    confidence : "high", "low" or "none"
    sentence : why, and what to do
    low, high : rates between which training works: where the loss begins to fall, and where it is
        lowest; None without confidence
    advised : the rate that the sentence names in place of a suggestion
    """

    confidence: str
    sentence: str
    low: float | None = None
    high: float | None = None
    advised: float | None = None


def centred(losses: Sequence[float]) -> np.ndarray:
    """Losses smoothed by a Gaussian around each point: without the moving average's lag.

    NaN from the first loss on that is not finite.
    """
    n = n_finite(losses)
    y = np.asarray(losses[:n], dtype=float)
    i = np.arange(n)
    weights = np.exp(-0.5 * ((i[:, None] - i[None, :]) / max(len(y) * _KERNEL, 1)) ** 2)
    return np.append(weights @ y / weights.sum(1), [math.nan] * (len(losses) - n))


def judge(lrs: Sequence[float], losses: Sequence[float], last_lr: float | None = None) -> Verdict:
    """The verdict on a curve of raw losses: all rules are here.

    A curve is refused if it is too short, or if its dip (the level of the first quarter, less the
    lowest smoothed loss after it) is not above the noise of single losses or 2 % of the loss.
    The sentence then depends on the level (converged) and on the end (rising, or flat).

    Parameters
    ----------
    last_lr : the highest rate of the run before, a tenth of which a trained network may still use
    """
    n = n_finite(losses)
    if n < MIN_POINTS:
        return Verdict(
            "none",
            f"too short: {n} finite losses, {MIN_POINTS} are needed; "
            "raise num_it, or lower start_lr if the loss diverged at once",
        )
    level, noise, smooth = _levels(losses)
    lowest = int(np.argmin(smooth))
    dip = level - float(smooth[lowest])
    if dip < max(_NOISE * noise, FLAT * abs(level)):
        return _refusal(level, noise, smooth, last_lr)
    # From the last loss that is still high: noise may have dipped before.
    above = np.flatnonzero(smooth[:lowest] > level - _START * dip)
    start = int(above[-1]) + 1 if len(above) else 0
    low, high = float(lrs[start]), float(lrs[lowest])
    # The minimum must be passed: a curve still falling at its end does not show how far it goes.
    passed = float(smooth[-1]) > smooth[lowest] + _START * dip or n < len(losses)
    if dip >= _CLEAR * noise and passed:
        return Verdict("high", "the loss falls clearly and rises again", low, high)
    why = "the dip is not much larger than the noise" if passed else "it falls to the very end"
    advice = "raise num_it or bs" if passed else "raise end_lr"
    return Verdict("low", f"the loss falls, but {why}; {advice}", low, high)


def agree(lrs: Sequence[float], sweeps: Sequence[Sequence[float]], verdict: Verdict) -> Verdict:
    """The verdict on the mean of several sweeps, lowered if their lowest losses lie far apart.

    A single sweep's verdict and a refusal stay as they are.
    """
    if len(sweeps) < 2 or verdict.confidence == "none":
        return verdict
    lowest = [lrs[int(np.nanargmin(centred(losses[: len(lrs)])))] for losses in sweeps]
    apart = math.log10(max(lowest) / min(lowest))
    if apart <= _AGREED:
        text = f"{verdict.sentence}; {len(sweeps)} sweeps agree within {apart:.1f} decades"
        return replace(verdict, sentence=text)
    text = f"{len(sweeps)} sweeps have their lowest losses {apart:.1f} decades apart"
    return replace(verdict, confidence="low", sentence=f"{text}; raise num_it or bs")


def contained(suggestions: Mapping[str, float], verdict: Verdict) -> Verdict:
    """The verdict, lowered if a suggestion lies outside the usable range.

    One that the curve is too short for, NaN, says nothing; a refusal stays as it is.
    """
    if verdict.low is None:
        return verdict
    low, high = verdict.low * (1 - _ROUNDING), verdict.high * (1 + _ROUNDING)
    outside = [
        f"{name} {rate_text(lr)}" for name, lr in suggestions.items() if lr < low or lr > high
    ]
    if not outside:
        return verdict
    lie = "lies" if len(outside) == 1 else "lie"
    text = f"{verdict.sentence}, but {' and '.join(outside)} {lie} outside the usable range"
    return replace(verdict, confidence="low", sentence=text)


def rises_at(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """The rate at which the loss is clearly above its level at the start; the last if it is not."""
    level, noise, smooth = _levels(losses)
    risen = np.flatnonzero(smooth > level + max(_CLEAR * noise, FLAT * abs(level)))
    return float(lrs[int(risen[0])] if len(risen) else lrs[-1])


def _levels(losses: Sequence[float]) -> tuple[float, float, np.ndarray]:
    """The level of the first quarter, the noise of a single loss, the smoothed finite losses."""
    y = np.asarray(losses[: n_finite(losses)], dtype=float)
    level = float(np.median(y[: max(len(y) // 4, 1)]))
    noise = float(np.median(np.abs(np.diff(y[: len(y) // 2])))) * 1.4826 / math.sqrt(2)
    return level, noise, centred(y)


def _refusal(level: float, noise: float, smooth: np.ndarray, last_lr: float | None) -> Verdict:
    """Why there is no suggestion, and what to do instead."""
    tenth = f", {rate_text(last_lr / 10)}" if last_lr else ""
    advised = last_lr / 10 if last_lr else None
    if 0 <= level < _CONVERGED:
        text = f"the network is already converged: use about 1/10 of the last LR{tenth}"
        return Verdict("none", text, advised=advised)
    if smooth[-1] > level + max(_CLEAR * noise, FLAT * abs(level)):
        text = (
            "the loss only rises: it diverges before it falls; lower start_lr, check labels and "
            f"normalisation, or use about 1/10 of the last LR{tenth}"
        )
        return Verdict("none", text, advised=advised)
    return Verdict(
        "none",
        "the loss is flat, with no dip above its noise; raise num_it or bs, widen the range, "
        "or check that layers are trainable",
    )
