"""Checkpoints: a learner as one file of tensors with a header.

`save`, `load` and `export` are methods of `Learner`; `load_learner` is in `vision`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from warnings import warn

import torch
from torch import Tensor

from nbfinetune.arguments import users_line
from nbfinetune.checkpoints.fitting import (
    check_states_fit,
    check_weights,
    check_weights_fit,
    fitting_states,
    parted,
    weight_names,
)
from nbfinetune.checkpoints.going_on import going_on_header, read_going_on
from nbfinetune.checkpoints.header import SETTINGS, check_header
from nbfinetune.checkpoints.safetensors_file import opened, write
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.runtime.interrupts import defers_interrupts, interrupts_held, whole
from nbfinetune.training.arguments import check_model
from nbfinetune.training.finite import check_finite
from nbfinetune.training.options import vocab_difference
from nbfinetune.training.state import LearnerState


def check_writable(learn: LearnerState) -> None:
    """Raise unless the learner is at rest, and all its weights are there and finite.

    Raises
    ------
    RuntimeError
        If a run is on in another thread.
    ValueError
        If its groups and optimizer do not hold the parameters of the model, or one is not finite.
    """
    learn.check_idle()
    check_model(learn)
    check_finite(learn, "a file of it")


@defers_interrupts
@whole
def save(learn: LearnerState, file: str | PathLike, *, overwrite: bool = False) -> Path:
    """Write weights, optimizer and frozen groups to a safetensors file; returns its path.

    The state of the learner's random numbers and what `fine_tune` found for its second stage are
    in it, so that a fit goes on with `start_epoch` as if it had not been ended. The history is not.

    Raises
    ------
    FileExistsError
        If the file is there and `overwrite` is False.
    OSError
        If it cannot be written; one that is there stays as it is.
    """
    check_writable(learn)
    tensors = {f"model.{k}": v for k, v in learn.model.state_dict().items()}
    for i, state in learn.opt.state_dict()["state"].items():
        tensors |= {f"opt.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
    settings = [{key: g[key] for key in SETTINGS} for g in learn.opt.param_groups]
    of_opt = {"opt": settings, "opt_weights": weight_names(learn.model, learn.opt)}
    header = _header(learn) | of_opt | going_on_header(learn)
    return write(file, tensors, header, overwrite=overwrite)


@defers_interrupts
@whole
def load(learn: LearnerState, file: str | PathLike) -> None:
    """Read what `save` or `export` wrote into the learner, all of it or nothing.

    All of the file is checked before the first change, and an interrupt acts after the last.
    Normalisation and weight decay are taken from it, the size of the pictures and `train_bn` stay;
    a warning tells which of them differ.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is not there, is damaged or does not fit; the message names the part.
    """
    learn.check_idle()
    with opened(file) as content:
        _check_fits(learn, content.entries, content.header, content.name)
        tensors = content.tensors()
    put(learn, tensors, content.header, content.name)


def put(learn: LearnerState, tensors: Mapping[str, Tensor], header: dict, name: str) -> None:
    """Copy tensors and settings of a file into the learner, all or nothing; see `load`."""
    _check_fits(learn, tensors, header, name)
    weights, states = parted(tensors)
    check_weights(learn.model, weights, name)
    fitting = fitting_states(learn.opt, states, name)
    going_on = read_going_on(header, name)
    transforms, other = _followed(learn, header)
    if other:
        said = f"{name} was saved with other settings: {'; '.join(other)}"
        warn(said, stacklevel=users_line())
    # Not the tensors alone: networks look for the versions that a state of theirs has.
    own = learn.model.state_dict()
    own.update(weights)
    with interrupts_held(), _all_or_nothing(learn):
        learn.model.load_state_dict(own)
        learn.freeze_to(_frozen(learn, header), quiet=True)
        learn.transforms = transforms
        vars(learn).update(going_on)
        learn.opt.state.update(fitting)
        for group, settings in zip(learn.opt.param_groups, header.get("opt", []), strict=False):
            group.update({key: settings[key] for key in SETTINGS})
            group["betas"] = tuple(group["betas"])


def _frozen(learn: LearnerState, header: dict) -> int:
    """How many groups a file says are frozen.

    Files of the version before do not say of how many: a network with a name had a body of one
    group then, of two if it was a ResNet, and has its stages now.
    """
    whole_body = "n_groups" not in header and header.get("arch") and len(learn.groups) > 3
    return len(learn.groups) - 1 if whole_body and header["frozen"] else header["frozen"]


def _check_fits(learn: LearnerState, there: Mapping, header: dict, name: str) -> None:
    """Raise ValueError unless header, names, shapes and types are those of the learner.

    there : tensors, or entries of a file that are not read yet
    """
    check_header(header, name, pictures=isinstance(learn.transforms, ImageTransforms))
    if learn.vocab and header["vocab"] and header["vocab"] != learn.vocab:
        raise ValueError(f"{name} does not fit: {vocab_difference(header['vocab'], learn.vocab)}")
    if header["frozen"] >= len(learn.groups):
        raise ValueError(f"{name} does not fit: it has more than {len(learn.groups)} layer groups")
    weights, states = parted(there)
    check_weights_fit(learn.model.state_dict(), weights, name)
    check_states_fit(learn.opt, states, name)
    if states and "opt" not in header:
        raise ValueError(f"{name} does not fit: its optimizer has no settings")
    n, here = len(header.get("opt", learn.opt.param_groups)), len(learn.opt.param_groups)
    if n != here:
        raise ValueError(f"{name} does not fit: its optimizer has {n} groups, not {here}")
    names = weight_names(learn.model, learn.opt)
    if header.get("opt_weights", names) != names:
        raise ValueError(f"{name} does not fit: its optimizer has the weights in another order")


def _followed(learn: LearnerState, header: dict) -> tuple[object, list[str]]:
    """The transforms with the normalisation of a file, and what else differs, in words."""
    transforms, other = learn.transforms, []
    if isinstance(transforms, ImageTransforms):
        here = {key: tuple(getattr(transforms, key)) for key in ("mean", "std")}
        there = {key: tuple(header.get(key, here[key])) for key in here}
        if there != here:
            other.append(f"its {_channels(there)} are taken, not {_channels(here)}")
            transforms = replace(transforms, **there)
        if header.get("size", transforms.size) != transforms.size:
            other.append(f"pictures stay at {transforms.size} px, not {header['size']}")
    decays = [
        max((g["weight_decay"] for g in groups), default=0)
        for groups in (header.get("opt", learn.opt.param_groups), learn.opt.param_groups)
    ]
    if decays[0] != decays[1]:
        texts = [rate_text(decay) for decay in decays]
        other.append(f"its weight decay {texts[0]} is taken, not {texts[1]}")
    if header.get("train_bn", learn.train_bn) != learn.train_bn:
        other.append(f"train_bn stays {learn.train_bn}, not {header['train_bn']}")
    return transforms, other


def _channels(values: Mapping[str, tuple[float, ...]]) -> str:
    """Mean and std of the channels, for the eye."""
    return " and ".join(f"{key} {' '.join(f'{v:.3g}' for v in values[key])}" for key in values)


@contextmanager
def _all_or_nothing(learn: LearnerState) -> Iterator[None]:
    """Put the learner back, bit for bit, if the body ends in an error."""
    tensors = [(t, t.detach().clone()) for t in (*learn.model.parameters(), *learn.model.buffers())]
    params = [(p, p.requires_grad, p.grad) for p in learn.model.parameters()]
    states = dict(learn.opt.state)
    settings = [{k: v for k, v in g.items() if k != "params"} for g in learn.opt.param_groups]
    attributes = dict(vars(learn))
    try:
        yield
    except BaseException:
        with interrupts_held(), torch.no_grad():
            for tensor, value in tensors:
                tensor.copy_(value)
            for p, requires_grad, grad in params:
                p.requires_grad_(requires_grad)
                p.grad = grad
            learn.opt.state.clear()
            learn.opt.state.update(states)
            for group, values in zip(learn.opt.param_groups, settings, strict=True):
                group.update(values)
            vars(learn).update(attributes)
        raise


@defers_interrupts
@whole
def export(
    learn: LearnerState, file: str | PathLike = "export.safetensors", *, overwrite: bool = False
) -> Path:
    """Write what prediction needs, to be opened by `load_learner`; returns the file's path.

    The file has the weights, the names of architecture and classes, and the transforms.

    Raises
    ------
    FileExistsError
        If the file is there and `overwrite` is False.
    OSError
        If it cannot be written; one that is there stays as it is.
    """
    check_writable(learn)
    tensors = {f"model.{k}": v for k, v in learn.model.state_dict().items()}
    return write(file, tensors, _header(learn), overwrite=overwrite)


def _header(learn: LearnerState) -> dict:
    transforms = learn.transforms
    of_pictures = {"size": transforms.size} if hasattr(transforms, "size") else {}
    if isinstance(transforms, ImageTransforms):
        of_pictures |= {"mean": list(transforms.mean), "std": list(transforms.std)}
    return (
        learn.config
        | of_pictures
        | {
            "vocab": learn.vocab,
            "frozen": learn.frozen,
            "n_groups": len(learn.groups),
            "train_bn": learn.train_bn,
        }
    )
