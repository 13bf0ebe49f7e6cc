"""Arguments of runs: rates as they are given, and what is refused before anything is changed.

Models and loaders can be changed at any time without the learner being told: see `check_run`.
"""

from copy import deepcopy
from math import inf

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import BatchSampler, DataLoader

from nbfinetune.arguments import is_number
from nbfinetune.data.datasets import EvenBatches, gives_pictures
from nbfinetune.networks.layer_groups import (
    LearningRate,
    check_groups,
    lr_per_group,
    params_of,
    train_mode,
)
from nbfinetune.rendering.names import shown
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training.state import LearnerState

_ANEW = "make a new learner of the changed model: Learner(learn.dls, model, groups=...)"
_STEERED = {"lr", "betas", "weight_decay", "layer_group", "decays"}  # of the optimizer's groups


def rates(learn: LearnerState, lr: LearningRate | None, what: str) -> list[float]:
    """One rate for each layer group; `learn.lr` where none is given, which `rate_note` tells."""
    if lr is None:
        learn.rate_note = learn.chosen_text(what)
    lr, n = learn.lr if lr is None else lr, len(learn.groups)
    return lr_per_group(lr, n, what=what, decay=learn.lr_decay)


def head_rate(learn: LearnerState, *, freezes: bool) -> LearningRate | None:
    """The rate that was chosen for the first stage of a `fine_tune`, None if none was for it.

    Parameters
    ----------
    freezes : whether that stage trains the head alone
    """
    chosen = learn.chosen
    if chosen is None or chosen.lr != learn.lr or chosen.kind == "default":
        return None
    if isinstance(chosen.lr, (list, tuple)):  # one for each group, found while the others stood
        learn.rate_note = learn.chosen_text("base_lr")
        return slice(chosen.lr[0], chosen.lr[-1])
    if chosen.frozen != (len(learn.groups) - 1 if freezes else 0):
        return None
    learn.rate_note = learn.chosen_text("base_lr")
    return chosen.lr


def has_start(base_lr: float | slice) -> bool:
    """Whether a rate says what the first group's is."""
    return isinstance(base_lr, slice) and base_lr.start is not None


def ends(base_lr: float | slice, lr_mult: float) -> tuple[float, float]:
    """The rates of the first group and of the head."""
    if has_start(base_lr):
        return base_lr.start, base_lr.stop
    high = base_lr.stop if isinstance(base_lr, slice) else base_lr
    [high] = lr_per_group(high, 1, what="base_lr")
    if not (is_number(lr_mult) and lr_mult > 0):
        raise ValueError(f"lr_mult is {shown(lr_mult)}; it must be above 0, such as 100")
    return high / lr_mult, high


def check_cycle(div: float, div_final: float, pct_start: float) -> None:
    for what, value in (("div", div), ("div_final", div_final)):
        if not (is_number(value) and value > 0):
            raise ValueError(f"{what} is {shown(value)}; it must be above 0")
    if not (is_number(pct_start) and 0 <= pct_start <= 1):
        raise ValueError(f"pct_start is {shown(pct_start)}; it must lie in [0, 1]")


def check_start_epoch(start_epoch: int, n_epoch: int) -> None:
    """Raise ValueError unless there is such an epoch."""
    if not 0 <= start_epoch < n_epoch:
        raise ValueError(f"start_epoch is {start_epoch}; it must be in 0 to {n_epoch - 1}")


def check_data(learn: LearnerState) -> None:
    if learn.dls is None:
        raise ValueError("this learner has no data to train on; give load_learner dls=")


def check_trains(learn: LearnerState) -> None:
    if not any(p.requires_grad for p in learn.model.parameters()):
        raise ValueError("no parameter of the model is trainable; call learn.unfreeze()")


def check_wd(wd: float | None) -> None:
    if wd is not None and not (is_number(wd) and 0 <= wd < inf):
        raise ValueError(f"wd is {shown(wd)}; weight decay is a number from 0 up, such as 0.01")


def check_run(learn: LearnerState) -> None:
    """Raise ValueError if a run of this learner would fail, or leave a part of it out."""
    check_model(learn)
    if learn.dls is not None:
        learn.dls = learn.dls  # take over what was changed in them
        _check_batches_of_one(learn)


def check_model(learn: LearnerState) -> None:
    """Raise ValueError unless groups and optimizer hold the parameters of the model, each once."""
    try:
        check_groups(learn.model, learn.groups)
    except ValueError as error:
        what = str(error).partition(";")[0]
        raise ValueError(f"{what}; the model was changed: {_ANEW}") from None
    names = {id(p): name for name, p in learn.model.named_parameters()}
    gone = [p for group in learn.groups for p in params_of(group) if id(p) not in names]
    if gone:
        raise ValueError(
            f"a parameter of shape {list(gone[0].shape)} is in a layer group, but no longer in "
            f"the model; {_ANEW}"
        )
    steered = learn.opt.param_groups
    held = [id(p) for group in steered for p in group["params"]]
    if sorted(held) != sorted(names) or not all(set(group) >= _STEERED for group in steered):
        raise ValueError(
            "learn.opt is not the optimizer of this model's parameters that the learner made, "
            f"which runs steer; leave it as it is, or {_ANEW}"
        )
    for name, p in learn.model.named_parameters():
        if p.device.type != learn.device.type:
            raise ValueError(
                f"parameter {name!r} is on the device {p.device}, but the learner works on "
                f"{learn.device}; type learn.model.to(learn.device)"
            )


def _check_batches_of_one(learn: LearnerState) -> None:
    """Raise ValueError if there is a batch of one item and BatchNorm cannot train on it."""
    if not any(isinstance(m, _BatchNorm) for m in learn.model.modules()):
        return
    which = _batch_of_one(learn.dls.train)
    if which is None:
        return
    model, groups = deepcopy((learn.model, learn.groups))  # statistics would move
    train_mode(model, groups, learn.frozen, train_bn=learn.train_bn)
    with seeded_rng(learn.seed), torch.no_grad():
        x = _first_item(learn.dls.train)
        if x is None:
            return
        try:
            model(learn.prepare(x, training=False))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"{which} holds one item, of which BatchNorm has no statistics; {_more(learn)}"
            ) from None


def _more(learn: LearnerState) -> str:
    """How to have batches of more than one."""
    if gives_pictures(learn.dls.train):
        return "make the loaders with a larger bs="
    return "give the loader another batch size (bs), or drop_last=True"


def _batch_of_one(loader: object) -> str | None:
    """Which batch of a loader has one item alone; None if none has, or nobody can say."""
    if isinstance(loader, (list, tuple)):
        alone = [i for i in range(len(loader)) if len(loader[i][1]) == 1]
        return f"training batch {alone[0]}" if alone else None
    if not isinstance(loader, DataLoader):
        return None
    batches = loader.batch_sampler
    if type(batches) is EvenBatches:
        return "a training batch" if batches.n // max(batches.n_batches, 1) == 1 else None
    if type(batches) is not BatchSampler:
        return None
    n, bs = len(batches.sampler), batches.batch_size
    if bs == 1:
        return "each training batch"
    return "the last training batch" if n % bs == 1 and not batches.drop_last else None


def _first_item(loader: list | tuple | DataLoader) -> Tensor | None:
    """The inputs of a batch of one."""
    if isinstance(loader, (list, tuple)):
        return next(x for x, y in loader if len(y) == 1)
    if gives_pictures(loader):
        return loader.dataset.batch([0])[0]
    batch = loader.collate_fn([loader.dataset[0]])
    return batch[0] if isinstance(batch, (tuple, list)) else None
