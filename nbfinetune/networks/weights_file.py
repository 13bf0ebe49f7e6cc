"""Weights files: state dicts as others write them, in a network, or refused in one line."""

from collections.abc import Mapping
from pathlib import Path
from warnings import catch_warnings, warn

import torch
from safetensors import safe_open
from torch import Tensor, nn

from nbfinetune.rendering.names import shortened

_INSIDE = ("state_dict", "model_state_dict", "model_state", "model", "net")  # of a checkpoint
_COMPILED = "_orig_mod."  # in the names of what torch.compile gives
_NAMED = 3  # names in one message
_OPENING = 9  # bytes that tell a safetensors file: the header's length, then its brace
_HOW = "write it with torch.save(model.state_dict(), FILE)"


def load_weights_file(network: nn.Module, file: Path, *, besides: tuple[str, ...] = ()) -> None:
    """Copy the weights in a file into a network.

    Taken are state dicts, alone or as "state_dict" or "model" of a checkpoint, written with
    torch.save or as safetensors. A prefix that all names share, such as "module." of
    DataParallel, is taken off, and "_orig_mod." of torch.compile.

    Parameters
    ----------
    besides : parts that the file may have and the network not

    Raises
    ------
    ValueError
        If it is none of these, or does not fit.
    """
    name = shortened(file)
    state = {key.replace(_COMPILED, ""): value for key, value in _read(file, name).items()}
    own = network.state_dict()
    state = _without_prefix(state, list(own), name)
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    state = {k: v for k, v in state.items() if k in own or not k.startswith(besides)}
    unknown = [k for k in state if k not in own]
    both = [k for k, v in own.items() if k in state and isinstance(v, Tensor)]
    shapes = [
        f"{k} is {list(state[k].shape)} there but {list(own[k].shape)} in the network"
        for k in both
        if state[k].shape != own[k].shape
    ]
    kinds = [
        f"{k} is of {state[k].dtype} there but of {own[k].dtype} in the network"
        for k in both
        if _kind(state[k]) != _kind(own[k])
    ]
    texts = [_few(f"{len(missing)} missing", missing), _few(f"{len(unknown)} unknown", unknown)]
    texts += ["; ".join(shapes[:_NAMED]), "; ".join(kinds[:_NAMED])]
    if wrong := "; ".join([text for text in texts if text]):
        raise ValueError(
            f"the weights in {name} do not fit {type(network).__name__}: {wrong}; "
            "pass the arch that they were trained with"
        )
    if wrong := wrong_values(network, {k: state[k] for k in both}):
        raise ValueError(f"the weights in {name} are damaged: {wrong}; download or save it again")
    own.update(state)  # not the state itself: networks look for the versions that theirs has
    try:
        network.load_state_dict(own)
    except Exception as error:  # whatever a module of others makes of its extra state
        raise ValueError(f"the weights in {name} do not fit: {shortened(error)}") from error


def _kind(tensor: Tensor) -> tuple[bool, bool, bool]:
    """Of fractions, complex or truth values; half precision is taken for single."""
    dtype = tensor.dtype
    return dtype.is_floating_point, dtype.is_complex, dtype == torch.bool


def wrong_values(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """What is impossible in weights of a network, by its own names and shapes; "" if nothing is.

    A buffer may have infinite values where the network's own has: those of masks.
    """
    own, params = network.state_dict(), {name for name, _ in network.named_parameters()}
    for name, tensor in weights.items():
        if not is_finite(tensor) and (
            name in params or not torch.equal(tensor.isfinite(), own[name].cpu().isfinite())
        ):
            return f"{shortened(name)} has values that are infinite or no numbers"
        if name.endswith("running_var") and (tensor < 0).any():
            return f"{shortened(name)} has variances below 0"
    return ""


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are numbers, as a sum of a tenth of the time mostly tells."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


def _few(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{what}: {', '.join(map(shortened, names[:_NAMED]))}{more}" if names else ""


def _read(file: Path, name: str) -> dict[str, Tensor]:
    """The tensors in a file by name."""
    try:
        with open(file, "rb") as opened:
            opening = opened.read(_OPENING)
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror or error})") from None
    if not opening:
        raise ValueError(f"{name} is empty; copy or download it again")
    if opening.endswith(b"{") or file.suffix == ".safetensors":
        return _read_safetensors(file, name)
    try:
        with catch_warnings(action="ignore"):  # of torch, about a file that it then refuses
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes make of it
        raise ValueError(f"{name} {_why_not(opening)}; {_HOW}") from error
    for _ in range(2):  # {"model": {"state_dict": ...}}
        inside = [k for k in _INSIDE if isinstance(content, Mapping) and k in content]
        if inside and isinstance(content[inside[0]], Mapping):
            content = content[inside[0]]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{name} holds a {type(content).__name__}, not a state dict; {_HOW}")
    if odd := [str(k) for k, v in content.items() if not _is_plain(v)]:
        raise ValueError(f"{name} holds no state dict: {_few('no tensors are', odd)}; {_HOW}")
    return {str(k): v for k, v in content.items()}


def _is_plain(value: object) -> bool:
    """Whether this is a tensor of values, not sparse, quantized or without any."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return not (value.is_quantized or value.is_meta or value.is_nested)


def _why_not(opening: bytes) -> str:
    if opening[:1] == b"\x80" or opening[:2] == b"PK":
        return "holds Python objects, such as a whole model, or is damaged; it is not unpickled"
    return f"is no file of weights: it begins with {opening!r}"


def _read_safetensors(file: Path, name: str) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            ours = "nbfinetune" in (opened.metadata() or {})
            tensors = {k: opened.get_tensor(k).clone() for k in opened.keys()}  # noqa: SIM118
    except Exception as error:  # SafetensorError, or what a wrong number type gives
        text = shortened(error)
        raise ValueError(f"{name} is no safetensors file, or is damaged: {text}") from None
    if ours:
        raise ValueError(f"{name} is a whole learner; open it with load_learner({str(file)!r})")
    return tensors


def _without_prefix(state: dict[str, Tensor], own: list[str], name: str) -> dict[str, Tensor]:
    """The tensors that have the network's names behind a prefix, under these names."""
    if own[0] in state:
        return state
    found = [k.removesuffix(own[0]) for k in state if k.endswith(own[0])]
    for prefix in sorted(found, key=len):
        if f"{prefix}{own[-1]}" not in state and not own[-1].endswith("num_batches_tracked"):
            continue  # before all are looked through, for each of many prefixes
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if set(own) <= set(inside):
            if left := [k for k in state if not k.startswith(prefix)]:
                warn(f"{name}: {_few(f'{len(left)} tensors are not used', left)}", stacklevel=2)
            return inside
    return state
