"""fastai's learners, taken over: the same network and loaders, its groups, loss, metrics and rates.

Known by their modules' names and by what they have; fastai itself is not imported here.
"""

import sys
from collections.abc import Sequence
from numbers import Integral

from torch import Tensor, nn

from nbfinetune.networks.layer_groups import LayerGroup
from nbfinetune.objectives.metric_list import metric_list
from nbfinetune.objectives.metrics import Metric, metric_name, try_out
from nbfinetune.others.fastai_data import FastaiLoaders, FastaiTransforms, normalisation
from nbfinetune.others.param_groups import module_groups
from nbfinetune.rendering.names import shown

_WD = 0.01  # of fastai's Adam
_USUAL = ("TrainEvalCallback", "Recorder", "CastToTensor", "ProgressCallback")
# What fastai's callbacks do, and what to write for it here.
_INSTEAD = {
    "MixedPrecision": 'amp="fp16"',
    "GradientClip": "clip_grad=",
    "GradientAccumulation": "accumulate=",
    "SaveModelCallback": "keep_best",
    "EarlyStoppingCallback": "EarlyStopping()",
    "CSVLogger": 'LogTo("log.csv")',
    "WandbCallback": "LogTo(wandb)",
    "TensorBoardCallback": "LogTo(SummaryWriter())",
}
_KINDS = ("TensorCategory", "TensorMultiCategory")


def is_fastai_learner(value: object) -> bool:
    """Whether this is a learner of fastai, which then is imported already."""
    module = sys.modules.get("fastai.learner")
    return isinstance(value, getattr(module, "Learner", ()))


def parts_of_fastai(learn: object) -> tuple[dict[str, object], list[str]]:
    """The arguments of `Learner` that make the same of a learner of fastai.

    Returns
    -------
    arguments : dls, model and options; `frozen`, the groups that are frozen, is none of them
    notes : what is not taken over

    Raises
    ------
    ValueError
        If it is none, or does something else than to classify pictures.
    """
    if not is_fastai_learner(learn):
        what = f"the class {learn.__name__}" if isinstance(learn, type) else shown(learn)
        raise ValueError(f"from_fastai takes a learner of fastai, not {what}")
    dls, model, notes = learn.dls, learn.model, []
    vocab = _vocab(dls)
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        notes.append(f"{type(model).__name__} (one device here)")
        model = model.module
    groups, note = _groups(learn, model)
    notes += [note] if note else []
    mean, std = normalisation(dls)
    arguments = {
        "dls": FastaiLoaders.of(dls, vocab),
        "model": model,
        "groups": groups,
        "loss_func": _loss(learn.loss_func),
        "metrics": list(learn.metrics),
        "lr": _rate(learn.lr),
        "wd": _weight_decay(learn),
        "train_bn": bool(learn.train_bn),
        "transforms": FastaiTransforms(dls, mean, std),
        "device": str(getattr(dls, "device", None) or next(model.parameters()).device),
    }
    if isinstance(learn.moms, (tuple, list)) and len(learn.moms) == 3:
        arguments["moms"] = tuple(learn.moms)
    arguments["frozen"] = min(int(getattr(learn.opt, "frozen_idx", 0) or 0), len(groups) - 1)
    return arguments, [*notes, *_left_out(learn)]


def _vocab(dls: object) -> list[str]:
    """The class names; raises ValueError where the targets are no classes."""
    n_inp = getattr(dls, "n_inp", 1)
    if n_inp != 1:
        raise ValueError(f"fastai's loaders give {n_inp} inputs; a learner here takes one")
    if not len(dls.valid.dataset):
        raise ValueError("fastai's loaders have no validation items; make them with valid_pct=0.2")
    item = dls.valid.dataset[0]
    target = item[-1] if isinstance(item, (tuple, list)) and len(item) == 2 else None
    kinds = [kind.__name__ for kind in type(target).__mro__]
    names = getattr(dls, "vocab", None)
    if not any(kind in kinds for kind in _KINDS) and not _is_index(target):
        raise ValueError(
            f"fastai's targets are of {kinds[0]}; only classes and several labels are taken "
            "over (CategoryBlock, MultiCategoryBlock), no regression, masks or boxes"
        )
    if names is None:
        raise ValueError("fastai's loaders have no class names; say dls.vocab = [...]")
    return [str(name) for name in names]


def _is_index(target: object) -> bool:
    """Whether this is a whole number, as data sets of torch give as class index."""
    if isinstance(target, Tensor):
        return target.ndim == 0 and not target.is_floating_point()
    return isinstance(target, Integral) and not isinstance(target, bool)


def _groups(learn: object, model: nn.Module) -> tuple[list[LayerGroup], str]:
    lists = learn.splitter(model) if learn.opt is None else learn.opt.param_lists
    lists = list(lists)
    if lists and not isinstance(lists[0], nn.Parameter):
        return module_groups(model, [list(parameters) for parameters in lists])
    return [[model]], ""


def _loss(loss_func: object) -> object:
    """The loss; fastai's flattened losses of torch as those of torch, as outputs are [n, c]."""
    inner = getattr(loss_func, "func", None)
    own = type(loss_func).__module__.startswith("fastai.")
    if own and isinstance(inner, nn.Module) and getattr(loss_func, "axis", -1) in (-1, 1):
        return inner
    return loss_func


def _rate(lr: object) -> object:
    return lr if isinstance(lr, slice) else float(lr)


def _weight_decay(learn: object) -> float:
    if learn.wd is not None:
        return float(learn.wd)
    hypers = getattr(learn.opt, "hypers", None)
    return float(hypers[-1].get("wd", _WD)) if hypers else _WD


def _left_out(learn: object) -> list[str]:
    """The optimizer, unless it is Adam, and the callbacks that are not those of every learner."""
    optimizer = getattr(learn.opt_func, "func", learn.opt_func)
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    notes = [] if name == "Adam" else [f"the optimizer {name} (AdamW here)"]
    if getattr(learn, "wd_bn_bias", False):
        notes.append("wd_bn_bias (biases and norms do not decay here)")
    for cb in learn.cbs:
        kind = type(cb).__name__
        if kind not in _USUAL:
            notes.append(f"{kind} (write {_INSTEAD[kind]})" if kind in _INSTEAD else kind)
    return notes


def working_metrics(metrics: Sequence[object], learn: object) -> tuple[list[Metric], list[str]]:
    """Those of fastai's metrics that a learner of ours can compute, and notes of the others."""
    works, notes = [], []
    for metric in metrics:
        listed = metric_list([metric])
        c = len(learn.vocab)
        try:
            try_out(learn.loss_func, listed, c, learn.device, pictures=False)
        except ValueError as error:
            notes.append(f"the metric {metric_name(listed[0])} ({error})")
        else:
            works += listed
    return works, notes
