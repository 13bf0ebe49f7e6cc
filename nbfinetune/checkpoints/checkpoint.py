"""Checkpoints: a learner as one file of tensors with a header.

`save`, `load` and `export` are methods of `Learner`; `load_learner` is in `vision`.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nbfinetune.checkpoints.going_on import going_on_header, read_going_on
from nbfinetune.checkpoints.safetensors_file import read, write
from nbfinetune.rendering.names import shortened
from nbfinetune.training.arguments import check_model
from nbfinetune.training.options import vocab_difference
from nbfinetune.training.state import LearnerState

_SETTINGS = ("lr", "betas", "weight_decay")  # of the optimizer's groups
_NAMED = 3  # parts that one message names


def _fitting_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], what: str
) -> Mapping[str, Tensor]:
    """The tensors as a state of the model, which is not changed yet.

    Raises
    ------
    ValueError
        If a part is missing, left over or of another shape; the message names it.
    """
    own = model.state_dict()
    shapes = [
        f"{name} is {list(tensors[name].shape)} there but {list(own[name].shape)} in this model"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    missing = [f"{name} is missing there" for name in own if name not in tensors]
    unknown = [f"{name} is not in this model" for name in tensors if name not in own]
    if wrong := shapes + missing + unknown:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ValueError(f"{what} does not fit: {'; '.join(wrong[:_NAMED])}{more}")
    own.update(tensors)  # not the tensors alone: networks look for the versions that theirs has
    return own


def save(learn: LearnerState, file: str | PathLike, *, overwrite: bool = False) -> Path:
    """Write weights, optimizer and frozen groups to a safetensors file; returns its path.

    The state of the learner's random numbers and what `fine_tune` found for its second stage are
    in it, so that a fit goes on with `start_epoch` as if it had not been ended. The history is not.

    Raises
    ------
    FileExistsError
        If the file is there and `overwrite` is False.
    """
    learn.check_idle()
    check_model(learn)
    tensors = {f"model.{k}": v for k, v in learn.model.state_dict().items()}
    for i, state in learn.opt.state_dict()["state"].items():
        tensors |= {f"opt.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
    settings = [{key: g[key] for key in _SETTINGS} for g in learn.opt.param_groups]
    header = _header(learn) | {"opt": settings} | going_on_header(learn)
    return write(file, tensors, header, overwrite=overwrite)


def load(learn: LearnerState, file: str | PathLike) -> None:
    """Read what `save` or `export` wrote into the learner, all of it or nothing.

    Raises
    ------
    ValueError
        If it does not fit; the message names the part.
    """
    learn.check_idle()
    tensors, header = read(file)
    if learn.vocab and header["vocab"] and header["vocab"] != learn.vocab:
        raise ValueError(f"{file} does not fit: {vocab_difference(header['vocab'], learn.vocab)}")
    weights, states = {}, {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "opt":
            i, _, key = rest.partition(".")
            states.setdefault(i, {})[key] = tensor
        else:
            weights[rest] = tensor
    if not 0 <= header["frozen"] < len(learn.groups):
        raise ValueError(f"{file} does not fit: it has more than {len(learn.groups)} layer groups")
    own = _fitting_weights(learn.model, weights, str(file))
    fitting = _fitting_states(learn.opt, states, str(file))
    going_on = read_going_on(header, str(file))
    try:
        settings = [s | {"betas": tuple(s["betas"])} for s in header.get("opt", [])]
    except (KeyError, TypeError):
        raise ValueError(f"{file} does not fit: its optimizer has no settings") from None
    learn.model.load_state_dict(own)
    learn.freeze_to(header["frozen"], quiet=True)
    learn.opt.load_state_dict(learn.opt.state_dict() | {"state": fitting})
    for group, of_group in zip(learn.opt.param_groups, settings, strict=False):
        group.update(of_group)
    vars(learn).update(going_on)


def _fitting_states(
    opt: Optimizer, states: Mapping[str, dict[str, Tensor]], what: str
) -> dict[int, dict[str, Tensor]]:
    """The states of an optimizer, each in the layout of its weight.

    torch's fused AdamW goes through weight and state by address: in another layout elements are
    mixed up, or refused on CUDA, and in another shape it writes into memory that is not theirs.

    Raises
    ------
    ValueError
        If one belongs to no weight, or has another shape.
    """
    params = {str(i): p for i, p in enumerate(p for g in opt.param_groups for p in g["params"])}
    fitting: dict[int, dict[str, Tensor]] = {}
    for i, state in states.items():
        for key, value in state.items():
            shape = () if key == "step" else params[i].shape if i in params else None
            if value.shape != shape:
                raise ValueError(
                    f"{what} does not fit: its optimizer has {shortened(key)} "
                    f"{list(value.shape)} for weight {shortened(i)}, which "
                    + ("is not there" if shape is None else f"needs {list(shape)}")
                )
            if key != "step":
                value = torch.empty_like(params[i]).copy_(value)
            fitting.setdefault(int(i), {})[key] = value
    return fitting


def export(
    learn: LearnerState, file: str | PathLike = "export.safetensors", *, overwrite: bool = False
) -> Path:
    """Write what prediction needs, to be opened by `load_learner`; returns the file's path.

    The file has the weights, the names of architecture and classes, and the transforms.

    Raises
    ------
    FileExistsError
        If the file is there and `overwrite` is False.
    """
    learn.check_idle()
    check_model(learn)
    tensors = {f"model.{k}": v for k, v in learn.model.state_dict().items()}
    return write(file, tensors, _header(learn), overwrite=overwrite)


def _header(learn: LearnerState) -> dict:
    size = {"size": learn.transforms.size} if learn.transforms else {}
    return (
        learn.config
        | size
        | {
            "vocab": learn.vocab,
            "frozen": learn.frozen,
            "train_bn": learn.train_bn,
        }
    )
