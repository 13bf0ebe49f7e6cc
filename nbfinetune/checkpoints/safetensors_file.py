"""Safetensors files with a JSON header: written whole or not at all, never unpickled."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes
from torch import Tensor

from nbfinetune.arguments import as_path
from nbfinetune.rendering.names import shortened
from nbfinetune.version import __version__

_ZIP, _PICKLE = b"PK\3\4", b"\x80"  # how files of torch.save and pickle begin
_OPENING = 9  # bytes; the last is the brace of a safetensors header
_KEY = "nbfinetune"  # of the JSON text in the file's metadata


def write(
    file: str | PathLike, tensors: Mapping[str, Tensor], header: dict, *, overwrite: bool
) -> Path:
    """Write tensors and header to `file`, under a temporary name first; returns the file's path.

    Raises
    ------
    FileExistsError
        If the file is there and `overwrite` is False.
    """
    path = as_path(file, "file")
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(f"{path} exists; take another name or pass overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)
    versions = {
        "nbfinetune": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    text = json.dumps(header | {"versions": versions})
    # Cloned: safetensors takes neither shared storage nor the channels-last layout.
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # Not save_file: its files can be read by their owner only, whatever the umask.
        temporary.write_bytes(save_bytes(plain, metadata={_KEY: text}))
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{shortened(path)} cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):  # a name too long for the system was none of a file either
            temporary.unlink(missing_ok=True)
    return path


def read(file: str | PathLike) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the header of a file that `write` wrote.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is no safetensors file, is damaged, or was not written here.
    """
    path = as_path(file, "file")
    if not os.path.isfile(path):  # False, too, for names that no file can have
        raise FileNotFoundError(f"no file {shortened(path)}")
    with open(path, "rb") as opened:
        opening = opened.read(_OPENING)
    if opening.startswith((_ZIP, _PICKLE)) and not opening.endswith(b"{"):
        raise ValueError(
            f"{path} is no safetensors file but a pickle, of fastai's export or torch.save, and "
            "is not opened: it could run any code; write it with learn.export(FILE) of this "
            "package, or give its state dict to vision_learner(dls, arch, weights=FILE)"
        )
    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(_KEY)
            # Cloned: the tensors would go on living in the file.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged: {error}") from None
    try:
        header = json.loads(text)
        header["vocab"], header["frozen"]
    except (TypeError, ValueError, KeyError):
        raise ValueError(
            f"{path} has no nbfinetune header; it was saved by something else"
        ) from None
    return tensors, header
