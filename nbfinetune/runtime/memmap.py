"""Memory maps: large tensors, in memory or in files without a name in the cache folder."""

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nbfinetune.runtime import room

_BLOCK = 2**24  # bytes written at once


def cache_folder() -> Path:
    """The folder of `NBFINETUNE_CACHE`, else `nbfinetune` in the user's cache folder.

    Raises
    ------
    OSError
        If neither is known, as the user has no home folder.
    """
    chosen = os.environ.get("NBFINETUNE_CACHE")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nbfinetune"
    except RuntimeError:
        asked = f"NBFINETUNE_CACHE is {chosen}, and its" if chosen else "the"
        raise OSError(
            f"{asked} home folder is not known; set NBFINETUNE_CACHE to a folder, in full"
        ) from None


def allocate(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor to be filled: up to 2 GB in memory, a larger one in a file in the cache folder.

    That file has no name, or, on Windows, one that is deleted when the process ends: nothing is
    left behind, however it ends.

    Raises
    ------
    OSError
        If there is no room; the text says how much is needed, and where there is too little.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    if room.in_memory(n_bytes):
        return torch.empty(*shape, dtype=dtype)
    place: Path | str = "a file"
    try:
        place = cache_folder()
        return _in_file(n_bytes, place).view(dtype).view(*shape)
    except OSError as error:
        raise OSError(
            f"{n_bytes / 2**30:.1f} GB, too much to keep in memory or in {place} "
            f"({error.strerror or error}); set NBFINETUNE_CACHE to a folder with more room"
        ) from None


def _in_file(n_bytes: int, folder: Path) -> Tensor:
    """Bytes in a file, in a folder, that is mapped into memory."""
    folder.mkdir(parents=True, exist_ok=True)
    room.check_disk(n_bytes, folder)
    with tempfile.TemporaryFile(dir=folder) as file:
        # All room is taken now: a disk that is full when a page is written kills the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            for start in range(0, n_bytes, _BLOCK):
                file.write(bytes(min(_BLOCK, n_bytes - start)))
            file.flush()
        return torch.frombuffer(mmap.mmap(file.fileno(), n_bytes), dtype=torch.uint8)
