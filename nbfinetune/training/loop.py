"""The loop: epochs of training and validation batches, with the events of the callbacks.

Learning rates are written and losses recorded by callbacks; tensors move to the device here.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nbfinetune.history.runs import Run
from nbfinetune.networks.layer_groups import train_mode
from nbfinetune.objectives.losses import (
    batch_loss,
    check_batch,
    probabilities,
    warn_of_probabilities,
)
from nbfinetune.objectives.metrics import metric_value
from nbfinetune.objectives.weakest import weakest_classes
from nbfinetune.runtime.allocator import keep_freed_memory
from nbfinetune.runtime.interrupts import act_on_interrupt
from nbfinetune.runtime.rng import let_others_draw
from nbfinetune.training.batches.feature_batches import FeatureBatches, feature_batches
from nbfinetune.training.batches.microbatches import (
    BatchOrNothing,
    PictureBatches,
    is_mean_of_pictures,
    microbatch_size,
)
from nbfinetune.training.batches.part_sizes import PartSizes
from nbfinetune.training.batches.smaller_parts import StepInMemory, in_parts
from nbfinetune.training.batches.step import backward, make_step
from nbfinetune.training.batches.streams import same_streams
from nbfinetune.training.callbacks import CancelFit, CancelTrain
from nbfinetune.training.resuming.places import Place
from nbfinetune.training.spmd.batch_norm import statistics_of_all
from nbfinetune.training.state import Callback, LearnerState


def run(
    learn: LearnerState,
    name: str,
    n_epoch: int,
    cbs: Sequence[Callback],
    start: int,
    *,
    validates: bool = True,
    jitter: bool = False,
) -> Run:
    """Train epochs `start` to `n_epoch` - 1; the model is in eval mode afterwards.

    Without `validates` an epoch has neither validation nor `after_epoch`. With `jitter` features
    that are kept are changed, as by augmentation, when their picture comes again.

    `learn.status` ends as "finished", "stopped" (`CancelFit`), "interrupted", "failed", or as
    "refused" where a callback's `before_fit` raised and nothing was trained.

    An interrupt acts between two batches or parts of one. A second one acts at once; the batch that
    it cuts leaves nothing behind, and an optimizer step is never cut.
    """
    learn.check_augmentation()
    learn.run_name, learn.n_epoch, learn.n_iter = name, n_epoch, len(learn.dls.train)
    learn.epoch, learn.iter, learn.status, learn.run_cbs = start, 0, "refused", cbs
    learn.memory = PartSizes()
    learn.body_epochs = _body_epochs(learn, range(start, n_epoch), jitter, validates)
    with ExitStack() as stack:
        stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())  # a model may switch it
        stack.enter_context(keep_freed_memory(learn.device))
        stack.callback(_tidy, learn)
        for cb in reversed(cbs):  # the stack calls the last one first
            stack.callback(_after_fit, cb, learn)
        stack.push(partial(_note_end, learn))
        try:
            _event(cbs, "before_fit", learn)
            learn.status = "running"
            for epoch in range(start, n_epoch):
                _between()
                learn.epoch = epoch
                if learn.world is not None:
                    same_streams(learn)
                _event(cbs, "before_epoch", learn)
                place, learn.place = learn.place, None
                how = {"jitter": jitter, "compare_bytes": False}
                if place is None or not place.trained:
                    with suppress(CancelTrain):
                        batches = _batches(learn, learn.dls.train, training=True, **how)
                        _train(learn, batches, cbs, place)
                    _event(cbs, "after_train", learn)
                if validates:
                    held_out = _batches(learn, learn.dls.valid, training=False, compare_bytes=False)
                    learn.values, outputs, targets = _validate(learn, held_out, cbs)
                    learn.n_valid, learn.weakest = len(targets), _weakest(learn, outputs, targets)
                    _event(cbs, "after_epoch", learn)
        except Exception as error:
            if not isinstance(error, CancelFit):
                act_on_interrupt()  # it ends processes that load too, which looks like an error
            raise
    return learn.recorder.run


def _note_end(learn: LearnerState, kind: type | None, error: object, trace: object) -> bool:
    """Say how the run ended; a `CancelFit` goes no further."""
    if error is None:
        learn.status = "finished"
    elif isinstance(error, CancelFit):
        learn.status = "stopped"
    elif isinstance(error, KeyboardInterrupt):
        learn.status = "interrupted"
    else:
        learn.status = learn.status.replace("running", "failed")
    return isinstance(error, CancelFit)


def _between() -> None:
    """Between two batches, or parts of one, nothing is half done."""
    act_on_interrupt()
    let_others_draw()


def _after_part(cbs: Sequence[Callback], learn: LearnerState) -> None:
    _event(cbs, "after_part", learn)
    _between()


def _weakest(learn: LearnerState, outputs: Tensor, targets: Tensor) -> str:
    """Which classes are predicted worst, "" where targets are no classes or these have no names."""
    if not learn.vocab or targets.dim() != 1 or outputs.shape[1:] != (len(learn.vocab),):
        return ""
    return weakest_classes(probabilities(outputs, learn.activation), targets, learn.vocab)


def _after_fit(cb: Callback, learn: LearnerState) -> None:
    with suppress(CancelFit):  # the run is over anyhow
        cb.after_fit(learn)


def _event(cbs: Sequence[Callback], name: str, learn: LearnerState) -> None:
    """Call the event of every callback; a `CancelFit` or `CancelTrain` waits for the others."""
    cancelled = None
    for cb in cbs:
        try:
            getattr(cb, name)(learn)
        except (CancelFit, CancelTrain) as error:
            cancelled = cancelled if isinstance(cancelled, CancelFit) else error
    if cancelled:
        raise cancelled


def _tidy(learn: LearnerState) -> None:
    learn.opt.zero_grad()
    scaler = learn.new_scaler()  # one interrupted between step and update is unusable
    scaler.load_state_dict(learn.scaler.state_dict())
    learn.scaler = scaler
    learn.training, learn.features.computing = False, None
    learn.run_cbs = ()  # screens hold much
    learn.model.eval()


_Batches = PictureBatches | FeatureBatches


def _batches(
    learn: LearnerState,
    loader: DataLoader,
    *,
    training: bool,
    jitter: bool = False,
    compare_bytes: bool = True,
) -> _Batches:
    kept = feature_batches(
        learn, loader, training=training, jitter=jitter, compare_bytes=compare_bytes
    )
    return kept or PictureBatches(learn, loader, training=training)


def _body_epochs(learn: LearnerState, epochs: range, jitter: bool, validates: bool) -> int | None:
    """How many of these epochs run the frozen body to keep its features; None if none is kept."""
    train = feature_batches(learn, learn.dls.train, training=True, jitter=jitter)
    if train is None:
        return None
    n, valid = train.body_epochs(epochs), None
    if validates:
        valid = feature_batches(learn, learn.dls.valid, training=False, compare_bytes=False)
    return max(n, valid.body_epochs(range(1))) if valid else n


def _train(
    learn: LearnerState, batches: _Batches, cbs: Sequence[Callback], place: Place | None
) -> None:
    train_mode(learn.model, learn.groups, learn.frozen, train_bn=learn.train_bn)
    learn.training = True
    with statistics_of_all(learn.model, learn.world):
        _train_batches(learn, batches, cbs, place)


def _train_batches(
    learn: LearnerState, batches: _Batches, cbs: Sequence[Callback], place: Place | None
) -> None:
    learn.opt.zero_grad()  # an epoch cut short may have left some
    pictures = not isinstance(batches, FeatureBatches)
    size = microbatch_size(learn) if pictures else None
    if learn.world is not None:
        learn.world.drawn_in = size
    counted: list[tuple[int, Tensor]] = []
    augments = pictures and learn.transforms is not None
    step = StepInMemory(learn, counted.clear, pictures=augments)
    batch_or_nothing = BatchOrNothing(learn.model, size)
    how = size, counted, partial(_after_part, cbs, learn)
    numbered = enumerate(batches)
    for i, (x, y) in numbered if place is None else place.left(numbered):
        learn.iter = i
        _event(cbs, "before_batch", learn)
        y = learn.targets = y.to(learn.device, non_blocking=True)
        with batch_or_nothing:
            n = min(len(y), size or len(y))
            losses = step.take(x, y, n, lambda x, y: backward(learn, batches, x, y, *how))
        if make_step(learn, losses, counted):
            step.end()
        _agree(learn)
        _event(cbs, "after_batch", learn)
        _between()


def _agree(learn: LearnerState) -> None:
    if learn.world is not None:
        learn.world.agree(learn.control)


def validate(
    learn: LearnerState, loader: DataLoader, cbs: Sequence[Callback] = ()
) -> tuple[list[float], Tensor, Tensor]:
    """One pass over a loader in eval mode.

    Returns
    -------
    values : the loss over all pictures at once, then each metric
    outputs : logits, or what else the loss takes, shape [n, c], on the CPU
    targets : shape [n], on the CPU
    """
    learn.check_idle()
    _look_anew(learn)
    with keep_freed_memory(learn.device):
        return _validate(learn, _batches(learn, loader, training=False), cbs)


def _validate(
    learn: LearnerState, batches: _Batches, cbs: Sequence[Callback]
) -> tuple[list[float], Tensor, Tensor]:
    losses, outputs, targets = [], [], []
    loss_func = learn.loss_func
    for out, y in _predictions(learn, batches, cbs):
        if is_mean_of_pictures(loss_func):
            with torch.no_grad(), learn.autocast():
                losses.append(batch_loss(loss_func, out, y).float() * len(y))
        outputs.append(out.float())
        targets.append(y)
    out, y = torch.cat(outputs), torch.cat(targets)
    all_outputs, all_targets = out.cpu(), y.cpu()
    check_batch(all_outputs, all_targets, learn.activation)
    if is_mean_of_pictures(loss_func, all_targets):
        loss = (torch.stack(losses).sum() / len(all_targets)).item()
    else:  # the losses of batches do not tell that of all pictures
        with torch.no_grad(), learn.autocast():
            loss = batch_loss(loss_func, out, y).item()
    warn_of_probabilities(all_outputs, learn.activation)
    preds = probabilities(all_outputs, learn.activation)
    of = preds, all_targets, all_outputs
    values = [loss, *(metric_value(metric, *of) for metric in learn.metrics)]
    return values, all_outputs, all_targets


def predictions(
    learn: LearnerState, loader: DataLoader, cbs: Sequence[Callback] = ()
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each batch of a loader through the network in eval mode, with the events of the callbacks.

    Yields
    ------
    logits : shape [n, c], on the device, of the type that mixed precision gives
    targets : shape [n], on the device
    """
    learn.check_idle()
    _look_anew(learn)
    with keep_freed_memory(learn.device):
        yield from _predictions(learn, _batches(learn, loader, training=False), cbs)


def _look_anew(learn: LearnerState) -> None:
    """Outside runs, memory that others took may be free again."""
    if not learn.run_cbs:
        learn.memory = PartSizes()


def _predictions(
    learn: LearnerState, batches: _Batches, cbs: Sequence[Callback]
) -> Iterator[tuple[Tensor, Tensor]]:
    learn.model.eval()
    learn.training = False
    on_part = partial(_after_part, cbs, learn)
    for i, (x, y) in enumerate(batches):
        learn.iter = i
        _event(cbs, "before_batch", learn)

        def logits_of(part: slice, x: Tensor = x) -> Tensor:
            return batches.logits(batches.inputs(x[part]), on_part)

        with torch.no_grad():
            logits = in_parts(learn, batches.parts(len(x)), logits_of, on_part)
        y = y.to(learn.device, non_blocking=True)
        if learn.world is not None:
            logits, y = learn.world.gather(logits, y)
            _agree(learn)
        yield logits, y
        _event(cbs, "after_batch", learn)
        _between()
