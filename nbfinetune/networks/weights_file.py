"""Weights files: state dicts as others write them, in a network, or refused in one line."""

from collections.abc import Mapping
from pathlib import Path
from warnings import catch_warnings, warn

import torch
from safetensors import safe_open
from torch import Tensor, nn

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
    state = {name.replace(_COMPILED, ""): value for name, value in _read(file).items()}
    own = network.state_dict()
    state = _without_prefix(state, list(own), file)
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    state = {k: v for k, v in state.items() if k in own or not k.startswith(besides)}
    unknown = [k for k in state if k not in own]
    shapes = [
        f"{k} is {list(state[k].shape)} there but {list(v.shape)} in the network"
        for k, v in own.items()
        if k in state and isinstance(v, Tensor) and v.shape != state[k].shape
    ]
    texts = [_few(f"{len(missing)} missing", missing), _few(f"{len(unknown)} unknown", unknown)]
    if wrong := "; ".join([text for text in (*texts, "; ".join(shapes[:_NAMED])) if text]):
        raise ValueError(
            f"the weights in {file} do not fit {type(network).__name__}: {wrong}; "
            "pass the arch that they were trained with"
        )
    own.update(state)  # not the state itself: networks look for the versions that theirs has
    network.load_state_dict(own)


def _few(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{what}: {', '.join(names[:_NAMED])}{more}" if names else ""


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors in a file by name."""
    with open(file, "rb") as opened:
        opening = opened.read(_OPENING)
    if not opening:
        raise ValueError(f"{file} is empty; copy or download it again")
    if opening.endswith(b"{") or file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        with catch_warnings(action="ignore"):  # of torch, about a file that it then refuses
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes make of it
        raise ValueError(f"{file} {_why_not(opening)}; {_HOW}") from error
    for _ in range(2):  # {"model": {"state_dict": ...}}
        inside = [k for k in _INSIDE if isinstance(content, Mapping) and k in content]
        if inside and isinstance(content[inside[0]], Mapping):
            content = content[inside[0]]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{file} holds a {type(content).__name__}, not a state dict; {_HOW}")
    if odd := [str(k) for k, v in content.items() if not isinstance(v, Tensor)]:
        raise ValueError(f"{file} holds no state dict: {_few('no tensors are', odd)}; {_HOW}")
    return {str(k): v for k, v in content.items()}


def _why_not(opening: bytes) -> str:
    if opening[:1] == b"\x80" or opening[:2] == b"PK":
        return "holds Python objects, such as a whole model, or is damaged; it is not unpickled"
    return f"is no file of weights: it begins with {opening!r}"


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            ours = "nbfinetune" in (opened.metadata() or {})
            tensors = {k: opened.get_tensor(k).clone() for k in opened.keys()}  # noqa: SIM118
    except Exception as error:  # SafetensorError, or what a wrong number type gives
        raise ValueError(f"{file} is no safetensors file, or is damaged: {error}") from None
    if ours:
        raise ValueError(f"{file} is a whole learner; open it with load_learner({str(file)!r})")
    return tensors


def _without_prefix(state: dict[str, Tensor], own: list[str], file: Path) -> dict[str, Tensor]:
    """The tensors that have the network's names behind a prefix, under these names."""
    if own[0] in state:
        return state
    found = [k.removesuffix(own[0]) for k in state if k.endswith(own[0])]
    for prefix in sorted(found, key=len):
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if set(own) <= set(inside):
            if left := [k for k in state if not k.startswith(prefix)]:
                warn(f"{file}: {_few(f'{len(left)} tensors are not used', left)}", stacklevel=2)
            return inside
    return state
