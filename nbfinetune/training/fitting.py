"""Fitting: the schedules and stages of training, with fastai's names, defaults and semantics.

Each function is a method of `Learner`.
"""

from collections.abc import Sequence
from math import ceil
from warnings import warn

from nbfinetune.arguments import as_whole_number, users_line
from nbfinetune.history.recorder import FitResult
from nbfinetune.history.runs import HEAD_STAGE, Run
from nbfinetune.networks.layer_groups import LearningRate
from nbfinetune.objectives.metrics import higher_is_better, metric_name
from nbfinetune.training import loop, schedules
from nbfinetune.training.arguments import (
    check_cycle,
    check_data,
    check_trains,
    check_wd,
    ends,
    has_start,
    head_rate,
    rates,
)
from nbfinetune.training.batches.feature_batches import features_usable
from nbfinetune.training.callbacks import EarlyStopping, ParamScheduler, Recording, SaveBest
from nbfinetune.training.options import check_moms
from nbfinetune.training.printing import shows
from nbfinetune.training.recipe import batch_size, batches_of, check_recipe, second_stage, soften
from nbfinetune.training.refit import RefitHead
from nbfinetune.training.schedules import Schedule
from nbfinetune.training.state import Callback, LearnerState
from nbfinetune.training.steering import Steering, exclusive_run

BASE_LR, LR_MULT = 2e-3, 100.0  # of fine_tune (fastai's)
# Optimizer steps that a new head needs; measured on pets with base_lr 2e-3: 15 steps give an error
# of 0.19, 25 steps 0.15, 50 steps 0.13.
_HEAD_STEPS = 50
# The same where a step is the head's alone; error of the best epoch of 5 seeds: 0.123 after 50
# steps, 0.112 after 100, 0.115 after 150 and 200.
_CHEAP_HEAD_STEPS = 100


@shows("fit")
@exclusive_run(scales_rates=True)
def fit(
    learn: LearnerState,
    n_epoch: int,
    lr: LearningRate | None = None,
    *,
    keep_best: bool = False,
    wd: float | None = None,
    cbs: Callback | Sequence[Callback] = (),
    start_epoch: int = 0,
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
    show : whether its progress is shown: on a live screen after `%load_ext nbfinetune`, else as
        lines of text; see `learn.quiet` too

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, before anything is changed.
    """
    cbs = _with_keeper(learn, cbs, keep_best)
    lrs = [schedules.flat(lr) for lr in rates(learn, lr, "lr")]
    run = _fit(learn, "fit", n_epoch, lrs, None, wd, cbs, start_epoch)
    return _result(learn, [run], cbs)


@shows("fit")
@exclusive_run(scales_rates=True)
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
    cbs = _with_keeper(learn, cbs, keep_best)
    run = _one_cycle(
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
    return _result(learn, [run], cbs)


@shows("fit")
@exclusive_run(scales_rates=True)
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
    show: bool = True,
) -> FitResult:
    """Train at `lr` for `pct_start` of the steps, then along a cosine to lr / div_final."""
    cbs = _with_keeper(learn, cbs, keep_best)
    check_cycle(1.0, div_final, pct_start)
    lrs = [schedules.flat_cos(lr, lr / div_final, pct_start) for lr in rates(learn, lr, "lr")]
    run = _fit(learn, "fit_flat_cos", n_epoch, lrs, None, wd, cbs, start_epoch)
    return _result(learn, [run], cbs)


@shows("fit")
@exclusive_run(scales_rates=True)
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
    show: bool = True,
) -> FitResult:
    """Train with warm restarts: `n_cycles` cosines, each `cycle_mult` times as long.

    Parameters
    ----------
    n_cycles : cosines from lr_max to 0
    cycle_len : epochs of the first
    """
    cbs = _with_keeper(learn, cbs, keep_best)
    n_epoch = schedules.sgdr_epochs(n_cycles, cycle_len, cycle_mult)
    lrs = [schedules.sgdr(lr, n_cycles, cycle_mult) for lr in rates(learn, lr_max, "lr_max")]
    run = _fit(learn, "fit_sgdr", n_epoch, lrs, None, wd, cbs, start_epoch)
    return _result(learn, [run], cbs)


@shows("fit")
@exclusive_run(scales_rates=True)
def fine_tune(
    learn: LearnerState,
    epochs: int,
    base_lr: float | slice | None = None,
    *,
    freeze_epochs: int | None = None,
    lr_mult: float | None = None,
    pct_start: float = 0.3,
    div: float = 5.0,
    bs: int | None = None,
    recipe: str = "measured",
    keep_best: bool | None = None,
    wd: float | None = None,
    cbs: Callback | Sequence[Callback] = (),
    show: bool = True,
) -> FitResult:
    """Train the head with the body frozen, then all layers.

    Both stages are 1cycle, the first at `base_lr`, the second at half of it for the head. At the
    end of both a linear head is fitted anew to the training pictures (`RefitHead`); the rate of the
    body follows what that shows (`training/recipe.py` has the rule). `recipe="fastai"` does
    neither: with a learner of `train_bn=True` and `head="fastai"` it is fastai's.

    Parameters
    ----------
    epochs : epochs with all layers
    base_lr : learning rate of the head; slice(lo, hi) gives those of the first group and the
        head in the second stage, halved too, in place of `lr_mult`; None = what `lr_find` found
        for what trains first, else 2e-3 (fastai's)
    freeze_epochs : epochs of the first stage; None = as many as 50 steps take, or 100 where the
        body's features are kept (1 for fastai); 0 = no such stage
    lr_mult : rate of the head over that of the first group; None = the body's rate is the recipe's
        (100 for fastai)
    pct_start, div : of the second stage; the first has 0.99 and 25 (fastai's)
    bs : pictures in a batch of the second stage; None = so many that an epoch has 60 steps, from
        16 to those of the loaders (as the loaders for fastai)
    recipe : "measured" or "fastai"
    keep_best : end with the weights of the best epoch of both stages, as in `fit`; None = True, but
        for fastai
    wd, cbs, show : see `fit`
    """
    epochs = as_whole_number("epochs", epochs, 1)
    check_data(learn)
    check_recipe(learn, recipe, bs)
    measured = recipe == "measured"
    if freeze_epochs is not None:
        freeze_epochs = as_whole_number("freeze_epochs", freeze_epochs, 0)
    elif not measured:
        freeze_epochs = 1
    if base_lr is None:
        found = head_rate(learn, freezes=freeze_epochs != 0)
        base_lr = BASE_LR if found is None else found
    chosen = measured and lr_mult is None and not has_start(base_lr)
    low, high = ends(base_lr, LR_MULT if lr_mult is None else lr_mult)
    rates(learn, slice(low, high), "base_lr")  # refuse before the first stage, not after it
    check_cycle(div, 1e5, pct_start)
    check_wd(wd)
    for cb in (*learn.cbs, *cbs):
        if isinstance(cb, (EarlyStopping, SaveBest)):
            cb.check(learn)  # refuse before the first stage freezes
    refit = RefitHead()
    cbs = [*cbs, refit] if measured else cbs
    cbs = _with_keeper(learn, cbs, measured if keep_best is None else keep_best)
    head = {"div": 25.0, "div_final": 1e5, "pct_start": 0.99}
    both = {"div": div, "div_final": 1e5, "pct_start": pct_start}
    runs = []
    if freeze_epochs != 0:
        learn.freeze_to(-1, quiet=True)
        freeze_epochs = freeze_epochs or _head_epochs(learn)
        name = f"fine_tune: {HEAD_STAGE}"
        runs += [_one_cycle(learn, name, freeze_epochs, slice(high), **head, wd=wd, cbs=cbs)]
        if learn.control.ended:
            return _result(learn, runs, cbs)
    learn.freeze_to(0, quiet=True)
    lrs, notes = slice(low / 2, high / 2), []
    if chosen:
        stage = second_stage(learn, refit.fit)
        lrs, notes = [stage.rate] * (len(learn.groups) - 1) + [high / 2], [stage.why]
        if refit.head is not None:
            soften(refit.head, stage.scale)
    with batches_of(learn, batch_size(learn) if measured and bs is None else bs):
        name = "fine_tune: all layers"
        runs += [_one_cycle(learn, name, epochs, lrs, **both, wd=wd, cbs=cbs, notes=notes)]
    return _result(learn, runs, cbs)


def _with_keeper(learn: LearnerState, cbs: Sequence[Callback], keep_best: bool) -> list[Callback]:
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


def _head_epochs(learn: LearnerState) -> int:
    """Epochs that a new head needs, the body being frozen."""
    kept = features_usable(learn, learn.dls.train)
    steps = _CHEAP_HEAD_STEPS if kept else _HEAD_STEPS
    return ceil(steps / ceil(len(learn.dls.train) / learn.accumulate))


def _one_cycle(
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
    if not 0 <= start_epoch < n_epoch:
        raise ValueError(f"start_epoch is {start_epoch}; it must be in 0 to {n_epoch - 1}")
    check_wd(wd)
    check_trains(learn)
    for group in learn.opt.param_groups:
        if wd is not None and group["decays"]:
            group["weight_decay"] = wd
    all_cbs = [Recording(notes), ParamScheduler(lrs, mom), Steering(), *learn.cbs, *cbs]
    with learn.own_rng():
        return loop.run(learn, name, n_epoch, all_cbs, start_epoch)


def _result(learn: LearnerState, runs: Sequence[Run], cbs: Sequence[Callback]) -> FitResult:
    rows = [row for run in runs for row in run.rows]
    last = runs[-1]
    at_an_epochs_end = last.row_steps[-1:] == [len(last.losses)]
    savers = [cb for cb in (*learn.cbs, *cbs) if isinstance(cb, SaveBest)]
    kept = savers[-1].row if savers else rows[-1] if at_an_epochs_end else None
    return FitResult(tuple(runs), kept)
