"""Squares: decoded pictures as one uint8 tensor, in memory or in a file without a name."""

import mmap
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

_MEMORY = 2 * 2**30  # bytes of squares that are kept in memory; 10,000 at 224 px
_FREE = 2**30  # bytes of a disk that are left to others
_BLOCK = 2**24  # bytes written at once


def cache_folder() -> Path:
    """The folder of `NBFINETUNE_CACHE`, else `nbfinetune` in the user's cache folder."""
    if chosen := os.environ.get("NBFINETUNE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nbfinetune"


def room_for_squares(n: int, side: int) -> Tensor | None:
    """Room for n squares: uint8, shape [n, side, side, 3]; None, with a warning, if there is none.

    Up to 2 GB in memory, more in a file in the cache folder. That file has no name, or, on Windows,
    one that is deleted when the process ends: nothing is left behind, however it ends.
    """
    n_bytes = n * side * side * 3
    if n_bytes <= _MEMORY:
        return torch.empty(n, side, side, 3, dtype=torch.uint8)
    try:
        return _in_file(n_bytes).view(n, side, side, 3)
    except OSError as error:
        warnings.warn(
            f"{n:,} pictures of {side} px are {n_bytes / 2**30:.1f} GB, too much to keep in memory "
            f"or in {cache_folder()} ({error.strerror or error}): each is decoded anew in each "
            "epoch; set NBFINETUNE_CACHE to a folder with more room",
            stacklevel=4,
        )
        return None


def keep_square(square: Tensor, place: Tensor) -> None:
    """Copy a square [3, side, side] to its place [side, side, 3]."""
    # In this thread: torch would copy with some of its own, and that in each that decodes.
    place.numpy()[:] = square.permute(1, 2, 0).numpy()


def _in_file(n_bytes: int) -> Tensor:
    """Bytes in a file that is mapped into memory."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if n_bytes + _FREE > free:
        raise OSError(
            f"{free / 2**30:.1f} GB free, of which {_FREE / 2**30:.0f} are left to others"
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        # All room is taken now: a disk that is full when a page is written kills the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            for start in range(0, n_bytes, _BLOCK):
                file.write(bytes(min(_BLOCK, n_bytes - start)))
            file.flush()
        return torch.frombuffer(mmap.mmap(file.fileno(), n_bytes), dtype=torch.uint8)
