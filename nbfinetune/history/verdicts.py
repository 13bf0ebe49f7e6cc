"""Verdicts: what a call says of itself in a few sentences, by rules that noise seldom passes.

All epochs are judged on the same held-out pictures: two errors differ by chance by 0.3 to 1.2 times
the standard error of one (measured), and by that much they are taken to be alike. Where a rule does
not apply, as in short runs and in those that were ended by hand, it says nothing.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, isfinite, sqrt
from statistics import median

from nbfinetune.history.runs import HEAD_STAGE, Run
from nbfinetune.rendering.numbers import counted, minutes

_MOVED = 0.05  # share of a held-out loss that is a change, if it is clear of chance too:
_SPREAD = 0.7  # standard deviation of what a picture's loss differs by in two epochs, over the mean
# loss: 0.1 to 0.8 measured; so the means of n pictures differ by 0.7 / sqrt(n) of it by chance
_SURE = 3.0  # standard errors that a change in the held-out loss is
_STILL = 0.01  # of a loss: less than this is none
_GAIN = 0.02  # of a held-out loss: a second stage that gives less was not worth it
_CONVERGED = 0.2  # a loss below this need not fall any more (as in `lr_finder.suggestions`)
_BLOCKS, _BLOCK = 8, 5  # parts of a run whose training losses are compared, steps of one at least
_RISE = 0.1  # share of the first part's loss by which another is higher in a run that is unstable
_CLEAR = 5.0  # standard errors
_WIDE = 0.03  # standard error of an error: so much is chance where pictures are few
_MEDIAN = 1.2533  # standard error of a median over that of a mean
_MAD = 1.4826 / sqrt(2)  # noise of a loss over the median difference of two in a row


def standard_error(share: float, n: int) -> float:
    """The standard error of a share of n pictures, sqrt(p (1 - p) / n).

    Examples
    --------
    >>> round(standard_error(10 / 74, 74), 3)
    0.04
    """
    return sqrt(share * (1 - share) / n)


def errors_text(share: float, n: int) -> str:
    """The errors among n held-out pictures, with their standard error, rounded up.

    Examples
    --------
    >>> errors_text(12 / 74, 74), errors_text(0.0, 30)
    ('12 errors of 74 (± 4)', 'no error of 30')
    """
    wrong = round(share * n)
    if not wrong:
        return f"no error of {n}"
    return f"{counted(wrong, 'error')} of {n} (± {ceil(n * standard_error(share, n))})"


def verdict(runs: Sequence[Run]) -> str:
    """What is to be said of the stages of a call, "" if nothing is.

    In this order: why an epoch was kept; how the losses went; whether the second stage of a
    `fine_tune` was worth its time; how much chance is in the errors; the weakest classes.
    """
    if not runs or not _ended_by_itself(runs[-1]):
        return ""
    kept = _why_kept(runs)  # which tells the errors too
    sentences = [
        kept,
        _training(runs) or _held_out(runs),
        _second_stage(runs),
        "" if kept else _chance(runs),
        _weakest(runs),
    ]
    return ". ".join(text[0].upper() + text[1:] for text in sentences if text)


def _ended_by_itself(run: Run) -> bool:
    done = run.status == "finished" or (run.status == "stopped" and bool(run.ended))
    return done and bool(run.rows) and run.stage != HEAD_STAGE  # which another stage follows


def _final(runs: Sequence[Run]) -> dict[str, float]:
    """The row of the weights that the call ended with."""
    return runs[-1].kept or runs[-1].rows[-1]


def error_of(run: Run, row: dict[str, float]) -> float | None:
    """The share of held-out pictures that the first metric counts as wrong; None for others."""
    for name in run.names[3:4]:
        rises = run.shares.get(name)
        if rises is not None and run.n_valid and 0 <= row[name] <= 1:
            return 1 - row[name] if rises else row[name]
    return None


def _why_kept(runs: Sequence[Run]) -> str:
    """Why the epoch that was kept, unless it is the last and the best: that is as one expects."""
    rows = [row for run in runs for row in run.rows]
    expected = rows[-1] is _best(runs[-1], rows)
    return "" if expected and runs[-1].kept is rows[-1] else runs[-1].kept_why


def _training(runs: Sequence[Run]) -> str:
    """Of the training losses: whether they rose, or nothing moved."""
    for run in runs:
        stage = f"{run.stage}: " if run.stage else ""
        if not run.diverged and (text := _too_high(run.losses)):  # else `ended` says more
            return f"{stage}{text}: the rate is too high, try a tenth of it"
    return _nothing_moves(runs)


def _too_high(losses: Sequence[float]) -> str:
    if losses and not isfinite(losses[-1]):
        first = next(k for k, loss in enumerate(losses, 1) if not isfinite(loss))
        return f"the training loss is {losses[-1]} from step {first} on"
    levels, error = _levels([loss for loss in losses if isfinite(loss)])
    if not levels or max(levels) - levels[0] <= max(_CLEAR * error, _RISE * abs(levels[0])):
        return ""
    return f"the training loss rose from {levels[0]:.3g} to {max(levels):.3g}"


def _levels(losses: Sequence[float]) -> tuple[list[float], float]:
    """The median losses of a run's parts, and the standard error of a difference of two of them."""
    size = len(losses) // _BLOCKS
    if size < _BLOCK:
        return [], 0.0
    noise = _MAD * median(abs(b - a) for a, b in pairwise(losses))
    levels = [median(losses[k * size : (k + 1) * size]) for k in range(_BLOCKS)]
    return levels, sqrt(2) * _MEDIAN * noise / sqrt(size)


def _nothing_moves(runs: Sequence[Run]) -> str:
    """Neither the training loss nor what is held out changed in the last stage."""
    run, (losses, errors) = runs[-1], _epochs(runs)
    levels, error = _levels(run.losses)
    if not levels or len(losses) < 2 or min(losses) < _CONVERGED:
        return ""
    fell = levels[0] - levels[-1] > max(2 * error, _STILL * levels[0])
    if fell or max(losses) - min(losses) > _STILL * min(losses):
        return ""
    if errors and max(errors) - min(errors) > standard_error(min(errors), run.n_valid):
        return ""
    stage = f"{run.stage}: " if run.stage else ""
    return (
        f"{stage}neither the training nor the held-out loss moves: the rate is too low, nothing "
        "trains, or nothing is left to learn"
    )


def _epochs(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    """Held-out losses, and errors if there are some, from the end of the head's stage on."""
    rows = [*runs[0].rows[-1:], *runs[-1].rows] if len(runs) > 1 else runs[-1].rows
    errors = [error_of(runs[-1], row) for row in rows]
    return [row["valid_loss"] for row in rows], errors if None not in errors else []


def _held_out(runs: Sequence[Run]) -> str:
    """Of the held-out losses and errors: whether they rise, or still fall at the end."""
    run, (losses, errors) = runs[-1], _epochs(runs)
    if len(losses) < 2 or not all(map(isfinite, losses)) or min(losses) <= 0:
        return ""
    moved = max(_MOVED, _SURE * _SPREAD / sqrt(run.n_valid or 1))
    lowest = losses.index(min(losses))
    after = losses[lowest + 1 :]
    if len(after) > 1 and min(after[-2:]) > losses[lowest] * (1 + moved):
        return _rises(runs, lowest, errors)
    back = -1 - max((len(losses) - 1) // 3, 1)
    falls = lowest == len(losses) - 1 and losses[-1] < losses[back] * (1 - moved)
    if errors:
        least = errors[back] - standard_error(errors[back], run.n_valid)
        falls = falls and errors[-1] == min(errors) and errors[-1] < least
    return "still falling at its end: more epochs may help" if falls else ""


def _rises(runs: Sequence[Run], lowest: int, errors: Sequence[float]) -> str:
    run = runs[-1]
    if len(run.rows) > 1 and run.rows[-1]["train_loss"] >= run.rows[-2]["train_loss"]:
        return ""  # it does not learn by heart
    since = f"since epoch {run.rows[lowest - len(runs) + 1]['epoch']}" if lowest else "all along"
    if not errors:
        return f"the held-out loss rises {since}: fewer epochs, or more pictures, may be better"
    change, chance = errors[-1] - errors[lowest], standard_error(errors[lowest], run.n_valid)
    if change > chance and len(runs) > 1 and not lowest:
        return "all layers make the held-out loss and the error rise: try a tenth of the rate"
    if change > chance:
        return (
            f"the held-out loss and the error rise {since}: it overfits; train fewer epochs, or "
            "with more pictures or augmentation"
        )
    if change > chance / 2:
        return ""
    return (
        f"the held-out loss rises {since}, the error does not: over-confident, which is harmless "
        "for the error"
    )


def _second_stage(runs: Sequence[Run]) -> str:
    """Whether all layers were no better than the head alone had been."""
    if len(runs) < 2 or not runs[0].rows:
        return ""
    head, last = runs[0].rows[-1], runs[-1]
    final = _final(runs)
    own = final if any(row is final for row in last.rows) else _best(last, last.rows)
    name, before, after, chance = "valid_loss", head["valid_loss"], own["valid_loss"], 0.0
    worse, better = after > before, after < before * (1 - _GAIN)
    if (error := error_of(last, head)) is not None:
        name, chance = last.names[3], standard_error(error, last.n_valid)
        rise = error_of(last, own) - error
        worse, better = rise > chance, better or rise <= -chance / 2
        before, after = head[name], own[name]
    if better and not worse:
        return ""
    times = [sum(row["time"] for row in run.rows) for run in runs]
    return (
        f"all layers: {'worse' if worse else 'no better'} than the head alone "
        f"({name} {before:.3f} after {minutes(times[0])}, {after:.3f} after {minutes(sum(times))})"
    )


def _best(run: Run, rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The row with the lowest error, or held-out loss."""
    return min(rows, key=lambda row: (error_of(run, row) or 0.0, row["valid_loss"]))


def _chance(runs: Sequence[Run]) -> str:
    """How much chance is in the error, where that is much."""
    run = runs[-1]
    error, n = error_of(run, _final(runs)), run.n_valid
    if error is None:
        return ""
    if not error:
        most = 3 / n  # 95 %: the rule of three
        return f"{errors_text(error, n)}: up to {most:.0%} may be wrong" if most >= _WIDE else ""
    if standard_error(error, n) < _WIDE:
        return ""
    return f"{errors_text(error, n)}: too few held-out pictures to tell small differences"


def _weakest(runs: Sequence[Run]) -> str:
    final = _final(runs)
    for run in runs:
        for row, text in zip(run.rows, run.weakest, strict=False):
            if row is final:
                return text
    return ""
