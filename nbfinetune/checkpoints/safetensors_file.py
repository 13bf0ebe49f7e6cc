"""Safetensors files with a JSON header: written whole or not at all, never unpickled.

What a file says of itself is compared with what is there before any tensor is made: a small file
costs little, whatever it claims. A digest tells whether header and tensors are those written.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import torch
import torchvision
from safetensors.torch import save as save_bytes
from torch import Tensor

from nbfinetune.arguments import as_path
from nbfinetune.rendering.names import shortened
from nbfinetune.runtime.own_files import check_place, make_folder, write_whole
from nbfinetune.version import __version__

_ZIP, _PICKLE = b"PK\3\4", b"\x80"  # how files of torch.save and pickle begin
_OPENING = 9  # bytes; the last is the brace of a safetensors header
_LENGTH = 8  # bytes, of the length of the header of the format itself
_KEY = "nbfinetune"  # of the JSON text in the file's metadata
_DAMAGED = "is no safetensors file, or is damaged"
_DIGEST = "digest"  # in that text
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: what it is, and where its bytes are."""

    dtype: torch.dtype
    shape: torch.Size
    start: int
    stop: int


@dataclass(frozen=True)
class Content:
    """An open file of tensors.

    Parameters
    ----------
    name : of the file, for messages
    entries : its tensors, which are not read yet
    header : what was written beside them, less the digest
    """

    name: str
    entries: dict[str, Entry]
    header: dict
    _digest: object
    _opened: BinaryIO
    _first: int

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, each in memory of its own.

        Raises
        ------
        ValueError
            If they or the header are not what was written. Files of the version before have no
            digest that tells.
        """
        tensors = {name: self._read(name, entry) for name, entry in self.entries.items()}
        if self._digest is not None and _digest(self.header, tensors) != self._digest:
            raise ValueError(
                f"{self.name} is damaged, or was changed by something else: its digest is another "
                "one; copy or save it again"
            )
        return tensors

    def _read(self, name: str, entry: Entry) -> Tensor:
        content = torch.empty(entry.stop - entry.start, dtype=torch.uint8)
        self._opened.seek(self._first + entry.start)
        if self._opened.readinto(memoryview(content.numpy())) != len(content):
            raise ValueError(f"{self.name} is damaged: it became shorter while it was read")
        if entry.dtype == torch.bool and len(content) and content.max() > 1:
            raise ValueError(f"{self.name} is damaged: {shortened(name)} is neither True nor False")
        return content.view(entry.dtype).view(entry.shape)


def write(
    file: str | PathLike, tensors: Mapping[str, Tensor], header: dict, *, overwrite: bool
) -> Path:
    """Write tensors and header to `file`, all or nothing; returns the file's path.

    Raises
    ------
    FileExistsError
        If the file is there and `overwrite` is False.
    OSError
        If it cannot be written.
    """
    path = as_path(file, "file")
    check_place(path, overwrite=overwrite)
    versions = {
        "nbfinetune": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    header = json.loads(json.dumps(header | {"versions": versions}))  # as it will be read
    # Cloned: safetensors takes neither shared storage nor the channels-last layout.
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    text = json.dumps(header | {_DIGEST: _digest(header, plain)})
    make_folder(path.parent)
    write_whole(path, save_bytes(plain, metadata={_KEY: text}))
    return path


def _digest(header: dict, tensors: Mapping[str, Tensor]) -> str:
    """Of header, names, types, shapes and bytes."""
    digest = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def read(file: str | PathLike) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the header of a file that `write` wrote; see `opened` and `Content`."""
    with opened(file) as content:
        return content.tensors(), content.header


@contextmanager
def opened(file: str | PathLike) -> Iterator[Content]:
    """A file that `write` wrote, with what it says of itself checked, but no tensor read.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is no safetensors file, is damaged, or was not written here.
    """
    path = as_path(file, "file")
    name = shortened(path)
    if not os.path.isfile(path):  # False, too, for names that no file can have
        raise FileNotFoundError(f"no file {name}")
    try:
        with open(path, "rb") as stream:
            _refuse_pickles(stream.read(_OPENING), name)
            first, metadata, entries = _index(stream, name)
            header = _header(metadata, name)
            digest = header.pop(_DIGEST, None)
            yield Content(name, entries, header, digest, stream, first)
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror or error})") from None


def _refuse_pickles(opening: bytes, name: str) -> None:
    if opening.startswith((_ZIP, _PICKLE)) and not opening.endswith(b"{"):
        raise ValueError(
            f"{name} is no safetensors file but a pickle, of fastai's export or torch.save, and "
            "is not opened: it could run any code; write it with learn.export(FILE) of this "
            "package, or give its state dict to vision_learner(dls, arch, weights=FILE)"
        )


def _header(metadata: object, name: str) -> dict:
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    try:
        header = json.loads(text)
        header["vocab"], header["frozen"]
    except (TypeError, ValueError, KeyError, RecursionError):
        raise ValueError(
            f"{name} has no nbfinetune header; it was saved by something else"
        ) from None
    if not isinstance(header, dict):
        raise ValueError(f"{name} has no nbfinetune header; it was saved by something else")
    return header


def _index(stream: BinaryIO, name: str) -> tuple[int, object, dict[str, Entry]]:
    """Where the tensors begin, the metadata, and the tensors that fill the file from there on."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    length = int.from_bytes(stream.read(_LENGTH), "little")
    first = _LENGTH + length
    if size < _OPENING or first > size:
        raise ValueError(f"{name} {_DAMAGED}: it is shorter than it says")
    try:
        listed = json.loads(stream.read(length), object_pairs_hook=_each_once)
        metadata = listed.pop("__metadata__", None)
        entries = {key: _entry(value) for key, value in listed.items()}
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        text = f"its index cannot be read: {shortened(error)}"
        raise ValueError(f"{name} {_DAMAGED}: {text}") from None
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.start != end:
            raise ValueError(f"{name} {_DAMAGED}: its tensors lie over one another, or apart")
        end = entry.stop
    if first + end != size:
        room = f"its tensors have {end:,} bytes, it has {size - first:,} for them"
        raise ValueError(f"{name} {_DAMAGED}: {room}")
    return first, metadata, entries


def _each_once(pairs: list[tuple[str, object]]) -> dict:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _entry(value: dict) -> Entry:
    dtype, shape, (start, stop) = _DTYPES[value["dtype"]], value["shape"], value["data_offsets"]
    numbers = [*shape, start, stop]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("shapes and offsets are whole numbers from 0 up")
    if prod(shape) * dtype.itemsize != stop - start:
        raise ValueError(f"a tensor of shape {shape} has {stop - start:,} bytes")
    return Entry(dtype, torch.Size(shape), start, stop)
