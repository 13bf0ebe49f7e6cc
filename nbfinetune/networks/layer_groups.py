"""Layer groups: the network from its input to its head, frozen and given learning rates by group.

A group is a list of modules. The last group is the head; the others are the body.
"""

from collections.abc import Iterator, Sequence
from numbers import Real
from warnings import warn

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from nbfinetune.rendering.names import shown
from nbfinetune.rendering.numbers import rate_text

LayerGroup = list[nn.Module]
LearningRate = float | slice | Sequence[float]

_NAMED = 3  # parameters that one message names
_NORMS = (_BatchNorm, _InstanceNorm, nn.LayerNorm)  # fastai's norm_types
_SECOND_MOMENT = 0.99  # fastai's sqr_mom
_EPS = 1e-5  # fastai's Adam; torch's own default is 1e-8


def modules_of(group: LayerGroup) -> Iterator[nn.Module]:
    """Every module of the group, each once, the nested ones too."""
    seen: set[int] = set()
    for root in group:
        for module in root.modules():
            if id(module) not in seen:
                seen.add(id(module))
                yield module


def params_of(group: LayerGroup) -> list[nn.Parameter]:
    """The parameters of the group, each once, in the order of its modules."""
    return list({id(p): p for root in group for p in root.parameters()}.values())


def check_weights(model: nn.Module) -> None:
    """Raise ValueError unless the model has weights, and all of them have their values."""
    kind = type(model).__name__
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if lazy := [name for name, p in tensors.items() if is_lazy(p)]:
        raise ValueError(
            f"{kind} has lazy layers without a size ({lazy[0].rpartition('.')[0]}); run it once: "
            "model.eval()(torch.zeros(1, 3, size, size))"
        )
    if empty := [name for name, p in tensors.items() if p.is_meta]:
        raise ValueError(f"{kind} has no values for {empty[0]}: it is on the device meta")
    if next(model.parameters(), None) is None:
        raise ValueError(f"{kind} has no parameters, so nothing can train")


def check_groups(model: nn.Module, groups: Sequence[LayerGroup]) -> None:
    """Raise ValueError unless every parameter of the model is in exactly one group."""
    ids = [id(p) for group in groups for p in params_of(group)]
    names = {id(p): name for name, p in model.named_parameters()}
    missing = [name for i, name in names.items() if i not in set(ids)]
    if missing:
        raise ValueError(f"parameter {missing[0]!r} is in no layer group; put its module into one")
    if len(ids) != len(set(ids)):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"parameter {names.get(twice, '?')!r} is in two layer groups")


def freeze_to(groups: Sequence[LayerGroup], n: int, *, train_bn: bool) -> bool:
    """Let only groups n and above train; returns whether that changed anything.

    Parameters
    ----------
    groups : the layer groups
    n : first group that trains, in [-len(groups), len(groups) - 1]; 0 = all, -1 = only the head
    train_bn : whether the norm layers of the frozen groups stay trainable (fastai's rule)

    Raises
    ------
    ValueError
        If n is out of range.
    """
    if not -len(groups) <= n < len(groups):
        raise ValueError(
            f"freeze_to({n}): the model has {len(groups)} layer groups; "
            f"give a number from {-len(groups)} to {len(groups) - 1}"
        )
    first = n % len(groups)
    before = [p.requires_grad for group in groups for p in params_of(group)]
    for i, group in enumerate(groups):
        for module in modules_of(group):
            trains = i >= first or (train_bn and isinstance(module, _NORMS))
            for p in module.parameters(recurse=False):
                p.requires_grad_(trains)
    return before != [p.requires_grad for group in groups for p in params_of(group)]


def warn_of_hand_set(
    model: nn.Module, groups: Sequence[LayerGroup], frozen: int, *, train_bn: bool
) -> None:
    """Warn of parameters that do not train though their group does, or the other way round.

    Parameters
    ----------
    frozen : groups that `freeze_to` has frozen
    """
    names = {id(p): name for name, p in model.named_parameters()}
    odd = []
    for i, group in enumerate(groups):
        for module in modules_of(group):
            trains = i >= frozen or (train_bn and isinstance(module, _NORMS))
            for p in module.parameters(recurse=False):
                can_train = p.is_floating_point() or p.is_complex()
                if can_train and p.requires_grad != trains:
                    odd.append(names.get(id(p), "?"))
    if odd:
        more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
        warn(
            f"requires_grad of {len(odd)} parameters was set by hand: {', '.join(odd[:_NAMED])}"
            f"{more}; freezing and fine_tune set it by layer groups; "
            "to keep it, train with fit or fit_one_cycle alone",
            stacklevel=4,  # the line that called freeze
        )


def lr_text(lr: LearningRate) -> str:
    """A rate, or those of several groups, for the eye."""
    if isinstance(lr, slice):
        return " to ".join(rate_text(end) for end in (lr.start, lr.stop) if end is not None)
    return ", ".join(map(rate_text, lr)) if isinstance(lr, Sequence) else rate_text(lr)


def train_mode(
    model: nn.Module, groups: Sequence[LayerGroup], frozen: int, *, train_bn: bool
) -> None:
    """Put the model into train mode, less what must not move.

    With `train_bn` that is nothing, as in fastai. Otherwise the `frozen` first groups are in eval
    mode altogether (no dropout, statistics fixed: their output depends on the picture alone), and
    the body's BatchNorm keeps its pretrained statistics when unfrozen too: small data sets give
    worse ones (pets photos, 128 px: error 0.34 with fixed statistics, 0.62 with moving ones).
    """
    model.train()
    if train_bn:
        return
    for i, group in enumerate(groups[:-1]):
        for module in modules_of(group):
            if i < frozen or isinstance(module, _BatchNorm):
                module.training = False
    if frozen:
        _still(model, groups)


def _still(model: nn.Module, groups: Sequence[LayerGroup]) -> None:
    """Put modules into eval mode that hold parts of several groups, all of which are in it."""
    grouped = {id(m) for group in groups for m in modules_of(group)}
    for module in reversed(list(model.modules())):  # those inside come before
        children = list(module.children())
        if children and id(module) not in grouped and not any(m.training for m in children):
            module.training = False


def lr_per_group(
    lr: LearningRate, n: int, *, what: str = "lr", decay: float | None = None
) -> list[float]:
    """One learning rate for each of n groups, broadcast as fastai does.

    Parameters
    ----------
    lr : a number (all groups), slice(lo, hi) (geometric from the first group to the head),
        slice(hi) (hi for the head, hi / 10 for the others) or one number for each group
    n : number of groups
    what : the argument's name, for the message
    decay : of a rate that is one number: group i has lr * decay^(n - 1 - i), the head lr. That is
        layer-wise decay (Clark et al. 2020, arXiv 2003.10555), as in BEiT (Bao et al. 2021, arXiv
        2106.08254), which has 0.65 to 0.9 for blocks of transformers; None = the same for all

    Raises
    ------
    TypeError
        If `lr` is none of these.
    ValueError
        If it has another number of values, or one that is not positive and finite.

    Examples
    --------
    >>> lr_per_group(slice(1e-3), 3)
    [0.0001, 0.0001, 0.001]
    >>> lr_per_group(1e-3, 3, decay=0.5)
    [0.00025, 0.0005, 0.001]
    """
    usage = f"pass one number, slice(lo, hi), slice(hi) or {n} values"
    if isinstance(lr, slice):
        if lr.stop is None or lr.step is not None:
            raise ValueError(f"{what} is {lr}; {usage}")
        ends = [lr.stop] if lr.start is None else [lr.start, lr.stop]
        _check_rates(ends, what, usage)
        if n == 1:
            return [float(lr.stop)]
        if lr.start is None:
            return [lr.stop / 10] * (n - 1) + [float(lr.stop)]
        step = (lr.stop / lr.start) ** (1 / (n - 1))
        return [lr.start * step**i for i in range(n)]
    values = list(lr) if isinstance(lr, Sequence) and not isinstance(lr, str) else [lr] * n
    _check_rates(values, what, usage)
    if len(values) != n:
        raise ValueError(
            f"{what} has {len(values)} values but the model has {n} layer groups; {usage}"
        )
    if decay is not None and not isinstance(lr, Sequence):
        return [lr * decay ** (n - 1 - i) for i in range(n)]
    return [float(v) for v in values]


def _check_rates(values: Sequence[float], what: str, usage: str) -> None:
    for v in values:
        if isinstance(v, bool) or not isinstance(v, Real):
            raise TypeError(f"{what} holds {shown(v)}, which is no number; {usage}")
        if not 0 < v < float("inf"):
            raise ValueError(f"{what} holds {v}; a learning rate is positive and finite")


def adamw(groups: Sequence[LayerGroup], *, lr: float, mom: float, wd: float) -> torch.optim.AdamW:
    """AdamW as fastai's Adam: eps 1e-5, second moment 0.99, no weight decay on biases and norms.

    Each layer group gives up to two parameter groups, with and without decay; both carry the number
    of their layer group as "layer_group". Frozen parameters are in it too: they have no gradient.
    """
    param_groups = []
    for i, group in enumerate(groups):
        plain = {
            id(p)
            for m in modules_of(group)
            for name, p in m.named_parameters(recurse=False)
            if isinstance(m, _NORMS) or name == "bias"
        }
        for decays in (True, False):
            params = [p for p in params_of(group) if (id(p) not in plain) == decays]
            decay = {"weight_decay": wd if decays else 0.0, "decays": decays}
            if params:
                param_groups.append({"params": params, "layer_group": i, **decay})
    # One kernel for all parameters; it takes no complex ones.
    fused = all(p.is_floating_point() for group in param_groups for p in group["params"])
    betas = (mom, _SECOND_MOMENT)
    return torch.optim.AdamW(param_groups, lr=lr, betas=betas, eps=_EPS, fused=fused)
