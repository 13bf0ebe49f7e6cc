"""Out of memory: which errors tell of it, and how all that they keep is let go."""

import gc
import sys
import traceback

import torch

# Of CUDA, MPS, the allocator of CPUs (in two wordings), cuBLAS and cuDNN, and C++.
_TEXTS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "ALLOC_FAILED",
    "std::bad_alloc",
)


class OutOfMemory(MemoryError):
    """Not even the smallest part fits into memory; a notebook shows it as one line."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error tells that memory has run out, and something smaller might fit."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return not isinstance(error, OutOfMemory)
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def let_go(error: BaseException) -> None:
    """Free what an error keeps by its traceback, and give what is cached back to the device.

    So is what the last error of the session keeps, which Python and IPython hold for a debugger.
    """
    for kept in (error, getattr(sys, "last_value", None)):
        while kept is not None:
            traceback.clear_frames(kept.__traceback__)  # frames that still run stay as they are
            kept = kept.__context__
    error.__traceback__ = error.__context__ = None
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
