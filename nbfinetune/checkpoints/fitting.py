"""Fitting: the tensors of a file against a model and its optimizer, before either is changed."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nbfinetune.networks.weights_file import is_finite, wrong_values
from nbfinetune.rendering.names import shortened

_NAMED = 3  # parts that one message names
_STATE = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each weight


class _Like(Protocol):
    """What a tensor is, whether it is one or is still in its file."""

    dtype: torch.dtype
    shape: torch.Size


def parted(tensors: Mapping[str, _Like]) -> tuple[dict[str, _Like], dict[str, dict[str, _Like]]]:
    """Those of the model by name, and those of the optimizer by weight and name."""
    weights, states = {}, {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "opt":
            i, _, key = rest.partition(".")
            states.setdefault(i, {})[key] = tensor
        else:
            weights[rest if part == "model" else name] = tensor
    return weights, states


def check_weights_fit(own: Mapping[str, Tensor], there: Mapping[str, _Like], name: str) -> None:
    """Raise ValueError if a part is missing, left over, of another shape or of another type."""
    both = [part for part in own if part in there]
    shapes = [
        f"{shortened(part)} is {list(there[part].shape)} there but {list(own[part].shape)} in "
        "this model"
        for part in both
        if there[part].shape != own[part].shape
    ]
    types = [
        f"{shortened(part)} is {there[part].dtype} there but {own[part].dtype} in this model"
        for part in both
        if there[part].dtype != own[part].dtype
    ]
    missing = [f"{part} is missing there" for part in own if part not in there]
    unknown = [f"{shortened(part)} is not in this model" for part in there if part not in own]
    if wrong := shapes + types + missing + unknown:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ValueError(f"{name} does not fit: {'; '.join(wrong[:_NAMED])}{more}")


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Raise ValueError for weights that are no numbers, or no variances."""
    if wrong := wrong_values(model, weights):
        raise ValueError(f"{name} does not fit: {wrong}")


def check_states_fit(
    opt: Optimizer, states: Mapping[str, Mapping[str, _Like]], name: str
) -> dict[str, nn.Parameter]:
    """The weights of an optimizer by the names that states have in a file.

    Raises
    ------
    ValueError
        If a state belongs to no weight, is of another shape or type, or is not all of one.
    """
    params = {str(i): p for i, p in enumerate(p for g in opt.param_groups for p in g["params"])}
    for i, state in states.items():
        for key, value in state.items():
            shape = [] if key == "step" else list(params[i].shape) if i in params else None
            if list(value.shape) != shape:
                raise ValueError(
                    f"{name} does not fit: its optimizer has {shortened(key)} "
                    f"{list(value.shape)} for weight {shortened(i)}, which "
                    + ("is not there" if shape is None else f"needs {shape}")
                )
        types = {key: value.dtype for key, value in state.items()}
        if i not in params or types != _types(params[i]):
            raise ValueError(
                f"{name} does not fit: its optimizer has {_listed(types)} for weight "
                f"{shortened(i)}, not {_listed(_types(params[i])) if i in params else 'nothing'}"
            )
    return params


def _types(param: nn.Parameter) -> dict[str, torch.dtype]:
    return dict(zip(_STATE, (torch.float32, param.dtype, param.dtype), strict=True))


def _listed(types: Mapping[str, torch.dtype]) -> str:
    return ", ".join(f"{shortened(key)} {dtype}" for key, dtype in types.items())


def fitting_states(
    opt: Optimizer, states: Mapping[str, Mapping[str, Tensor]], name: str
) -> dict[nn.Parameter, dict[str, Tensor]]:
    """The states of an optimizer, each in the layout of its weight; nothing is changed.

    torch's fused AdamW goes through weight and state by address: in another layout elements are
    mixed up, or refused on CUDA, and in another shape it writes into memory that is not theirs.

    Raises
    ------
    ValueError
        If one does not fit, or has values that AdamW never has.
    """
    params = check_states_fit(opt, states, name)
    fused = {p for g in opt.param_groups if g.get("fused") for p in g["params"]}
    fitting = {}
    for i, state in states.items():
        param = params[i]
        if wrong := _impossible(state):
            raise ValueError(f"{name} does not fit: {wrong} of weight {i} has impossible values")
        step = state["step"].to(param.device if param in fused else "cpu")
        fitting[param] = {"step": step} | {
            key: torch.empty_like(param).copy_(state[key]) for key in _STATE[1:]
        }
    return fitting


def _impossible(state: Mapping[str, Tensor]) -> str:
    """Which part of a state is not finite, below 0 or no count of steps, if any."""
    step, mean, square = (state[key] for key in _STATE)
    if not (step.isfinite() and step >= 0 and step == step.floor()):
        return "step"
    if not is_finite(mean):
        return "exp_avg"
    negative = not square.is_complex() and (square < 0).any()
    return "exp_avg_sq" if negative or not is_finite(square) else ""


def weight_names(model: nn.Module, opt: Optimizer) -> list[str]:
    """The names of the weights in the order of the optimizer."""
    names = {p: name for name, p in model.named_parameters()}
    return [names[p] for p in _params(opt)]


def _params(opt: Optimizer) -> Iterable[nn.Parameter]:
    return (p for group in opt.param_groups for p in group["params"])
