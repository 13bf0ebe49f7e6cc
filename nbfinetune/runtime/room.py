"""Room: how much of memory and disk large tensors may take."""

import shutil
from pathlib import Path

_MEMORY = 2 * 2**30  # bytes of a tensor in memory; 10,000 squares at 224 px
_FREE = 2**30  # bytes of a disk that are left to others


def in_memory(n_bytes: int) -> bool:
    """Whether a tensor of so many bytes is small enough to be kept in memory."""
    return n_bytes <= _MEMORY


def check_disk(n_bytes: int, folder: Path) -> None:
    """Raise OSError unless a file of so many bytes leaves room on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if n_bytes + _FREE > free:
        raise OSError(
            f"{free / 2**30:.1f} GB free, of which {_FREE / 2**30:.0f} are left to others"
        )
