"""Fitting: the schedules and stages of training, with fastai's names, defaults and semantics.

Each function is a method of `Learner`.
"""

from collections.abc import Sequence
from functools import partial
from warnings import warn

from nbfinetune.arguments import as_whole_number, users_line
from nbfinetune.data.lost_files import leaving_out
from nbfinetune.history.recorder import FitResult
from nbfinetune.history.runs import Run
from nbfinetune.networks.layer_groups import LearningRate
from nbfinetune.objectives.metrics import higher_is_better, metric_name
from nbfinetune.training import loop, schedules
from nbfinetune.training.arguments import (
    check_cycle,
    check_data,
    check_start_epoch,
    check_trains,
    check_wd,
    rates,
)
from nbfinetune.training.callbacks import ParamScheduler, Recording
from nbfinetune.training.finite import StopNotFinite, check_start
from nbfinetune.training.monitors import SaveBest
from nbfinetune.training.options import check_moms
from nbfinetune.training.printing import shows
from nbfinetune.training.resuming.checkpointing import next_stage
from nbfinetune.training.resuming.kept_runs import kept_run
from nbfinetune.training.schedules import Schedule
from nbfinetune.training.spmd.spread import spread
from nbfinetune.training.state import Callback, LearnerState
from nbfinetune.training.steering import Steering, exclusive_run


@shows("fit")
@exclusive_run(scales_rates=True)
@kept_run
@spread
def fit(
    learn: LearnerState,
    n_epoch: int,
    lr: LearningRate | None = None,
    *,
    keep_best: bool = False,
    wd: float | None = None,
    cbs: Callback | Sequence[Callback] = (),
    start_epoch: int = 0,
    checkpoint: int | str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    show: bool = True,
) -> FitResult:
    """Train at a constant learning rate.

    Parameters
    ----------
    n_epoch : epochs
    lr : learning rate; a number, slice(lo, hi), slice(hi) or one for each layer group;
        None = `learn.lr`
    keep_best : end with the weights of the best epoch, see `SaveBest`: by the first metric if it is
        known whether that should rise (see `EarlyStopping`), else by the validation loss
    wd : weight decay, None = as before
    cbs : callbacks of this fit, or one, after those of the learner
    start_epoch : first epoch that is run, to go on with a fit that was ended; the schedule
        goes on there too
    checkpoint : steps between two checkpoints, with which `resume_run` goes on after the process
        was killed; None = one at the end of each epoch, or fewer, so that they take 1 % of the time
        at most; "off" = none
    workers : processes that train together, each on a share of each batch, with the same losses up
        to rounding; they are started at first use and kept. None = this one, or with `cluster` as
        many as that has; see `nbfinetune/cluster/README.md`
    cluster : an ipyparallel profile, on other machines too; None = workers of this machine
    show : whether its progress is shown: on a live screen after `%load_ext nbfinetune`, else as
        lines of text; see `learn.quiet` too

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, before anything is changed.
    """
    check_start(learn, lr)
    cbs = with_keeper(learn, cbs, keep_best)
    lrs = [schedules.flat(lr) for lr in rates(learn, lr, "lr")]
    run = _fit(learn, "fit", n_epoch, lrs, None, wd, cbs, start_epoch)
    return result_of(learn, [run], cbs)


@shows("fit")
@exclusive_run(scales_rates=True)
@kept_run
@spread
def fit_one_cycle(
    learn: LearnerState,
    n_epoch: int,
    lr_max: LearningRate | None = None,
    *,
    div: float = 25.0,
    div_final: float = 1e5,
    pct_start: float = 0.25,
    keep_best: bool = False,
    wd: float | None = None,
    moms: tuple[float, float, float] | None = None,
    cbs: Callback | Sequence[Callback] = (),
    start_epoch: int = 0,
    checkpoint: int | str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    show: bool = True,
) -> FitResult:
    """Train with the 1cycle policy (Smith 2018); see `fit` for the other arguments.

    Parameters
    ----------
    lr_max : the highest learning rate, as `lr` of `fit`
    div, div_final : the cycle starts at lr_max / div and falls to lr_max / div_final
    pct_start : share of the steps in which the rate rises
    moms : momentum at start, middle and end; None = `learn.moms`
    """
    check_start(learn, lr_max)
    cbs = with_keeper(learn, cbs, keep_best)
    run = one_cycle(
        learn,
        "fit_one_cycle",
        n_epoch,
        lr_max,
        div=div,
        div_final=div_final,
        pct_start=pct_start,
        moms=moms,
        wd=wd,
        cbs=cbs,
        start_epoch=start_epoch,
    )
    return result_of(learn, [run], cbs)


@shows("fit")
@exclusive_run(scales_rates=True)
@kept_run
@spread
def fit_flat_cos(
    learn: LearnerState,
    n_epoch: int,
    lr: LearningRate | None = None,
    *,
    div_final: float = 1e5,
    pct_start: float = 0.75,
    keep_best: bool = False,
    wd: float | None = None,
    cbs: Callback | Sequence[Callback] = (),
    start_epoch: int = 0,
    checkpoint: int | str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    show: bool = True,
) -> FitResult:
    """Train at `lr` for `pct_start` of the steps, then along a cosine to lr / div_final."""
    check_start(learn, lr)
    cbs = with_keeper(learn, cbs, keep_best)
    check_cycle(1.0, div_final, pct_start)
    lrs = [schedules.flat_cos(lr, lr / div_final, pct_start) for lr in rates(learn, lr, "lr")]
    run = _fit(learn, "fit_flat_cos", n_epoch, lrs, None, wd, cbs, start_epoch)
    return result_of(learn, [run], cbs)


@shows("fit")
@exclusive_run(scales_rates=True)
@kept_run
@spread
def fit_sgdr(
    learn: LearnerState,
    n_cycles: int,
    cycle_len: int,
    lr_max: LearningRate | None = None,
    *,
    cycle_mult: int = 2,
    keep_best: bool = False,
    wd: float | None = None,
    cbs: Callback | Sequence[Callback] = (),
    start_epoch: int = 0,
    checkpoint: int | str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    show: bool = True,
) -> FitResult:
    """Train with warm restarts: `n_cycles` cosines, each `cycle_mult` times as long.

    Parameters
    ----------
    n_cycles : cosines from lr_max to 0
    cycle_len : epochs of the first
    """
    check_start(learn, lr_max)
    cbs = with_keeper(learn, cbs, keep_best)
    n_epoch = schedules.sgdr_epochs(n_cycles, cycle_len, cycle_mult)
    lrs = [schedules.sgdr(lr, n_cycles, cycle_mult) for lr in rates(learn, lr_max, "lr_max")]
    run = _fit(learn, "fit_sgdr", n_epoch, lrs, None, wd, cbs, start_epoch)
    return result_of(learn, [run], cbs)


def with_keeper(learn: LearnerState, cbs: Sequence[Callback], keep_best: bool) -> list[Callback]:
    return [*cbs, _keeper(learn)] if keep_best else list(cbs)


def _keeper(learn: LearnerState) -> SaveBest:
    """What keeps the best epoch; a warning says where the first metric cannot tell which it is."""
    if not learn.metrics:
        return SaveBest()
    name = metric_name(learn.metrics[0])
    if higher_is_better(learn.metrics[0]) is not None:
        return SaveBest(name)
    warn(
        f"keep_best goes by valid_loss: whether {name} should rise or fall is not known; say so "
        f'with its attribute higher_is_better = True or False, or pass cbs=[SaveBest("{name}", '
        'mode="max")] and keep_best=False',
        stacklevel=users_line(),
    )
    return SaveBest()


def one_cycle(
    learn: LearnerState,
    name: str,
    n_epoch: int,
    lr_max: LearningRate | None,
    *,
    div: float,
    div_final: float,
    pct_start: float,
    moms: tuple[float, float, float] | None = None,
    wd: float | None = None,
    cbs: Sequence[Callback] = (),
    start_epoch: int = 0,
    notes: Sequence[str] = (),
) -> Run:
    check_cycle(div, div_final, pct_start)
    lrs = [
        schedules.one_cycle(lr / div, lr, lr / div_final, pct_start)
        for lr in rates(learn, lr_max, "lr_max")
    ]
    moms = learn.moms if moms is None else moms
    check_moms(moms)
    mom = schedules.one_cycle(*moms, pct_start)
    return _fit(learn, name, n_epoch, lrs, mom, wd, cbs, start_epoch, notes)


def _fit(
    learn: LearnerState,
    name: str,
    n_epoch: int,
    lrs: Sequence[Schedule],
    mom: Schedule | None,
    wd: float | None,
    cbs: Sequence[Callback],
    start_epoch: int,
    notes: Sequence[str] = (),
) -> Run:
    check_data(learn)
    n_epoch = as_whole_number("n_epoch", n_epoch, 1)
    check_start_epoch(start_epoch, n_epoch)
    check_wd(wd)
    check_trains(learn)
    for group in learn.opt.param_groups:
        if wd is not None and group["decays"]:
            group["weight_decay"] = wd
    keeping, begun, start_epoch = next_stage(learn, start_epoch)
    first = [Recording(notes, begun), ParamScheduler(lrs, mom), Steering(), StopNotFinite()]
    all_cbs = sorted([*first, *learn.cbs, *cbs, *keeping], key=lambda cb: cb.is_last)
    loaders = (learn.dls.train, learn.dls.valid)
    with learn.own_rng(), leaving_out(loaders, partial(_say, learn)):
        return loop.run(learn, name, n_epoch, all_cbs, start_epoch)


def _say(learn: LearnerState, text: str) -> None:
    if learn.recorder.runs:
        learn.recorder.run.notes.append(text)
    warn(text, stacklevel=users_line())


def result_of(learn: LearnerState, runs: Sequence[Run], cbs: Sequence[Callback]) -> FitResult:
    rows = [row for run in runs for row in run.rows]
    last = runs[-1]
    at_an_epochs_end = last.row_steps[-1:] == [len(last.losses)]
    savers = [cb for cb in (*learn.cbs, *cbs) if isinstance(cb, SaveBest)]
    kept = savers[-1].row if savers else rows[-1] if at_an_epochs_end else None
    return FitResult(tuple(runs), kept)
