"""`Learner.fine_tune`: the head first, then all layers."""

from collections.abc import Sequence
from contextlib import ExitStack
from math import ceil

from nbfinetune.arguments import as_whole_number
from nbfinetune.history.recorder import FitResult
from nbfinetune.history.runs import HEAD_STAGE
from nbfinetune.networks.layer_groups import lr_per_group
from nbfinetune.training.arguments import (
    check_cycle,
    check_data,
    check_start_epoch,
    check_wd,
    ends,
    has_start,
    head_rate,
    rates,
)
from nbfinetune.training.batches.feature_batches import features_usable
from nbfinetune.training.fine_tuning.recipe import (
    batch_size,
    batches_of,
    check_recipe,
    first_layers_fixed,
    second_stage,
    soften,
)
from nbfinetune.training.fine_tuning.refit import RefitHead
from nbfinetune.training.finite import check_start
from nbfinetune.training.fitting import one_cycle, result_of, with_keeper
from nbfinetune.training.monitors import EarlyStopping, SaveBest
from nbfinetune.training.printing import shows
from nbfinetune.training.resuming.checkpointing import in_second_stage, stages_before
from nbfinetune.training.resuming.kept_runs import kept_run
from nbfinetune.training.spmd.spread import spread
from nbfinetune.training.state import Callback, LearnerState
from nbfinetune.training.steering import exclusive_run

BASE_LR, LR_MULT = 2e-3, 100.0  # of fine_tune (fastai's)
# Optimizer steps that a new head needs; measured on pets with base_lr 2e-3: 15 steps give an error
# of 0.19, 25 steps 0.15, 50 steps 0.13.
_HEAD_STEPS = 50
# The same where a step is the head's alone; error of the best epoch of 5 seeds: 0.123 after 50
# steps, 0.112 after 100, 0.115 after 150 and 200.
_CHEAP_HEAD_STEPS = 100


@shows("fit")
@exclusive_run(scales_rates=True)
@kept_run
@spread
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
    start_epoch: int = 0,
    checkpoint: int | str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    show: bool = True,
) -> FitResult:
    """Train the head with the body frozen, then all layers.

    Both stages are 1cycle, the first at `base_lr`, the second at half of it for the head. At the
    end of both a linear head is fitted anew to the training pictures (`RefitHead`); the rate of the
    body follows what that shows (see `fine_tuning/recipe.py`). `recipe="fastai"` does neither: with
    a learner of `train_bn=True` and `head="fastai"` it is fastai's.

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
    bs : pictures in a batch of the second stage; None = so many that an epoch has 60 steps or more,
        from 16 to those of the loaders (as the loaders for fastai)
    recipe : "measured" or "fastai"
    keep_best : end with the weights of the best epoch of both stages, as in `fit`; None = True, but
        for fastai
    start_epoch : first epoch with all layers that is run, to go on with a `fine_tune` that was
        ended there; above 0 the head is not trained alone before, and the body has the rate that
        was found then, which `save` writes too
    wd, cbs, checkpoint, workers, cluster, show : see `fit`
    """
    epochs = as_whole_number("epochs", epochs, 1)
    check_start_epoch(start_epoch, epochs)
    check_data(learn)
    check_recipe(learn, recipe, bs)
    measured = recipe == "measured"
    check_start(learn, base_lr)
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
    cbs = with_keeper(learn, cbs, measured if keep_best is None else keep_best)
    head = {"div": 25.0, "div_final": 1e5, "pct_start": 0.99}
    both = {"div": div, "div_final": 1e5, "pct_start": pct_start}
    runs, goes_on = stages_before(learn), start_epoch > 0 or in_second_stage(learn)
    if freeze_epochs != 0 and not goes_on:
        learn.freeze_to(-1, quiet=True)
        freeze_epochs = freeze_epochs or _head_epochs(learn)
        name = f"fine_tune: {HEAD_STAGE}"
        runs += [one_cycle(learn, name, freeze_epochs, slice(high), **head, wd=wd, cbs=cbs)]
        if learn.control.ended or runs[-1].diverged:
            return result_of(learn, runs, cbs)
    if start_epoch == 0 or learn.frozen:
        learn.freeze_to(0, quiet=True)  # which forgets momentum
    decays = learn.lr_decay is not None and lr_mult is None and not has_start(base_lr)
    lrs, notes = high / 2 if decays else slice(low / 2, high / 2), []
    if chosen:
        if not goes_on or learn.second_stage is None:
            learn.second_stage = second_stage(learn, refit.fit)
        stage = learn.second_stage
        of_body = lr_per_group(stage.rate, len(learn.groups) - 1, decay=learn.lr_decay)
        lrs, notes = [*of_body, high / 2], [stage.why]
        if refit.head is not None:
            soften(refit.head, stage.scale)
    with ExitStack() as stack:
        stack.enter_context(batches_of(learn, batch_size(learn) if measured and bs is None else bs))
        if chosen:
            stack.enter_context(first_layers_fixed(learn))
        name = "fine_tune: all layers"
        how = both | {"wd": wd, "cbs": cbs, "notes": notes, "start_epoch": start_epoch}
        runs += [one_cycle(learn, name, epochs, lrs, **how)]
    return result_of(learn, runs, cbs)


def _head_epochs(learn: LearnerState) -> int:
    """Epochs that a new head needs, the body being frozen."""
    kept = features_usable(learn, learn.dls.train)
    steps = _CHEAP_HEAD_STEPS if kept else _HEAD_STEPS
    return ceil(steps / ceil(len(learn.dls.train) / learn.accumulate))
