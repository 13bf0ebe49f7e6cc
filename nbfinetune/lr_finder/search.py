"""The learning rate finder: a range test (Smith 2015, arXiv 1506.01186) that changes nothing."""

import math
from collections.abc import Sequence
from time import time

from nbfinetune.lr_finder.arguments import asked_for, check_range, check_repeats
from nbfinetune.lr_finder.results import LRFindComparison, LRFindResult
from nbfinetune.lr_finder.suggestions import (
    Suggestion,
    agree,
    contained,
    judge,
    moving_average,
    suggested,
)
from nbfinetune.lr_finder.sweeps import Sweep
from nbfinetune.lr_finder.trials import is_unsure, tried
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.runtime.interrupts import whole
from nbfinetune.training import loop
from nbfinetune.training.batches.streams import generators
from nbfinetune.training.callbacks import Recording
from nbfinetune.training.fine_tuning.stages import BASE_LR
from nbfinetune.training.printing import shows
from nbfinetune.training.resuming.searches import Search, note_search
from nbfinetune.training.snapshot import unchanged
from nbfinetune.training.spmd.spread import spread
from nbfinetune.training.state import Callback, LearnerState
from nbfinetune.training.steering import Steering, exclusive_run


@shows("search")
@exclusive_run(scales_rates=False)
@spread
def lr_find(
    learn: LearnerState,
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    num_it: int = 100,
    *,
    stop_div: bool = True,
    suggest: str | Suggestion | Sequence[str | Suggestion] | None = None,
    suggest_funcs: str | Suggestion | Sequence[str | Suggestion] | None = None,
    seeds: int = 1,
    groups: bool = False,
    verify: int | None = None,
    cbs: Callback | Sequence[Callback] = (),
    workers: int | None = None,
    cluster: str | None = None,
    show: bool = True,
) -> LRFindResult | LRFindComparison:
    """Train a few steps at rising rates, look at the losses, and put everything back.

    Step i of num_it has the rate start_lr (end_lr / start_lr)^(i / num_it), in all layer groups.
    Afterwards the learner is as before, bit for bit, also on errors and interrupts, but for
    `learn.lr`: it is the rate suggested, which the next run uses that is given none, as long as the
    same layers train. Without a suggestion it is the rate that the verdict advises, if it names
    one, else what it was.

    Parameters
    ----------
    start_lr, end_lr : the range
    num_it : steps, at least 6
    stop_div : stop when the moving average is above four times its best
    suggest : of bracket, valley, slide, minimum, steep, as names or functions; the first is the
        result's `lr` unless short runs find one; None = bracket
    suggest_funcs : fastai's name of `suggest`
    seeds : sweeps, each over other batches; the result is their mean, of low confidence if they
        disagree
    groups : one sweep for each layer group, the others standing still; all must train
    verify : so many candidate rates each get a short run of 40 steps (up to 80 in batches below 32)
        on the same batches; the one with the lowest held-out loss is the result's `lr`. None =
        where several layer groups train, whose training loss tells little once a head was fitted,
        or the curve is not clear, or the body's features are kept, so that steps cost little, some
        rates get such runs, half a decade apart around the best, and if the body trains larger
        rates of the head too, 8 in all at most; `lr` is a slice if one of these helps. 0 = no
        short runs
    cbs : callbacks of this run; those of the learner are left out
    workers, cluster, show : see `fit`

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
    >>> lr_min, lr_steep = learn.lr_find()  # doctest: +SKIP
    >>> learn.lr_find(suggest="valley").valley  # doctest: +SKIP
    """
    asked = asked_for(suggest, suggest_funcs)
    check_range(learn, start_lr, end_lr, num_it)
    check_repeats(learn, seeds, groups, verify)
    sweep = (start_lr, end_lr, num_it, stop_div)
    began = time()
    found = _found(learn, sweep, asked, seeds, groups, verify, cbs=cbs)
    note_search(learn, Search(began, time() - began, learn.trained_text(), found))
    _adopt(learn, found)
    return found


def _found(
    learn: LearnerState,
    sweep_args: tuple[float, float, int, bool],
    asked: tuple[str, ...],
    seeds: int,
    groups: bool,
    verify: int | None,
    *,
    cbs: Sequence[Callback],
) -> LRFindResult | LRFindComparison:
    """What the sweeps and short runs find; nothing is changed afterwards."""
    start_lr, end_lr, num_it, _ = sweep_args
    runs = learn.recorder.runs
    last_lr = max(step[-1] for step in runs[-1].lrs) if runs and runs[-1].lrs else None

    def search(only: int | None, trained: str) -> LRFindResult:
        sweeps = []
        for k in range(seeds):
            sweep = Sweep(*sweep_args, only)
            losses = _losses(learn, sweep, k, cbs)
            if not (learn.control.ended and sweeps):  # a whole sweep says more than a cut one
                sweeps.append(losses)
            if learn.control.ended:
                break
        n = min(len(losses) for losses in sweeps)
        lrs = [start_lr * (end_lr / start_lr) ** (i / num_it) for i in range(n)]
        return _result(lrs, sweeps, asked, trained, last_lr)

    if groups:
        found = {}
        for i, name in enumerate(learn.group_names):
            found[name] = search(i, name)
            if learn.control.ended:
                break
        return LRFindComparison(found, complete=not learn.control.ended)
    found = search(None, learn.trained_text())
    wanted = is_unsure(learn, found) if verify is None else verify
    return tried(learn, found, verify, cbs) if wanted and not learn.control.ended else found


@whole
def _adopt(learn: LearnerState, found: LRFindResult | LRFindComparison) -> None:
    """Let the next run use what was found, and say so in `learn.rate_note`."""
    learn.last_search = found
    advised = getattr(found, "advised", None)
    if found.lr is not None:
        learn.use_rate(found.lr, "as lr_find found")
        how = found.chosen
    elif advised is not None:
        learn.use_rate(advised, "as lr_find advised")
        how = "no suggestion; as advised"
    else:
        if learn.chosen and learn.chosen.kind == "picked":  # in a plot that this one replaces
            learn.drop_rate()
        before = learn.chosen_text("") and learn.chosen.where
        how = f"no suggestion; {before or f'the default, of fine_tune {rate_text(BASE_LR)}'}"
    learn.say_next_rate(how)


def _losses(learn: LearnerState, sweep: Sweep, k: int, cbs: Sequence[Callback]) -> list[float]:
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
    asked: tuple[str, ...],
    trained: str,
    last_lr: float | None,
) -> LRFindResult:
    columns = zip(*(losses[: len(lrs)] for losses in sweeps), strict=True)
    losses = [sum(column) / len(sweeps) for column in columns]
    smooth = moving_average(losses)
    verdict = agree(lrs, sweeps, judge(lrs, losses, last_lr))
    usable = None if verdict.low is None else (verdict.low, verdict.high)
    suggestions = {name: suggested(name, lrs, smooth, usable) for name in asked or ("bracket",)}
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
        advised=verdict.advised,
        asked=asked,
    )
