"""Squares: the decoded pictures of a data set as a file of their bytes in the cache folder.

Its name is a digest of the bytes, and their shape. Processes of one host map it, so that they share
its memory.
"""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from math import prod
from pathlib import Path
from typing import BinaryIO
from weakref import ReferenceType, ref

import numpy as np
import torch
from torch import Tensor

from nbfinetune.runtime import room
from nbfinetune.runtime.memmap import cache_folder
from nbfinetune.runtime.own_files import make_folder, written_whole

CHUNK = 2**23  # bytes of a message
_ENDING = ".squares"
_BLOCK = 2**24  # bytes of which one thread takes a digest
_UNUSED = 7 * 86_400  # seconds without use after which a file is deleted
_names: dict[int, tuple[ReferenceType, int, str]] = {}  # of tensors, at their counts of changes
_whole: dict[Path, tuple[int, int]] = {}  # size and time of change when its digest was right


def folder() -> Path:
    """Where this process keeps such files."""
    return cache_folder() / "squares"


def flat(cache: Tensor) -> np.ndarray:
    """The bytes of decoded pictures [m, 3, side, side], uint8 [n]; copied only if they must be."""
    return cache.permute(0, 2, 3, 1).contiguous().view(-1).numpy()


def name_of(cache: Tensor) -> str:
    """The name of the file of decoded pictures [m, 3, side, side]."""
    known = _names.get(id(cache))
    if known is not None and known[0]() is cache and known[1] == cache._version:
        return known[2]
    shape = [cache.shape[i] for i in (0, 2, 3, 1)]
    name = f"{digest(flat(cache))}-{'x'.join(map(str, shape))}{_ENDING}"
    for key in [key for key, (there, _, _) in _names.items() if there() is None]:
        del _names[key]
    _names[id(cache)] = ref(cache), cache._version, name
    return name


def shape_of(name: str) -> list[int]:
    """The shape [m, side, side, 3] in the name of a file."""
    return [int(part) for part in name.removesuffix(_ENDING).partition("-")[2].split("x")]


def digest(content: np.ndarray) -> str:
    """A digest of bytes, by several threads."""
    blocks = [content[i : i + _BLOCK] for i in range(0, len(content), _BLOCK)]
    with ThreadPoolExecutor() as pool:
        parts = pool.map(lambda part: hashlib.blake2b(part, digest_size=16).digest(), blocks)
        return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()


def write(cache: Tensor) -> None:
    """Write the file of decoded pictures, if it is not there whole.

    Raises
    ------
    OSError
        If there is no room, or it cannot be written.
    """
    path = folder() / name_of(cache)
    if is_whole(path):
        return
    content = flat(cache)
    with _place(path, len(content)) as file:
        for i in range(0, len(content), CHUNK):
            file.write(content[i : i + CHUNK])


def _place(path: Path, n_bytes: int) -> AbstractContextManager[BinaryIO]:
    make_folder(path.parent)
    room.check_disk(n_bytes, path.parent)
    return written_whole(path)


def is_whole(path: Path) -> bool:
    """Whether a file is there and has the bytes that its name says.

    They are read once in a process, unless the file changes.
    """
    try:
        found = os.stat(path)
        stamp = (found.st_size, found.st_mtime_ns)
        if found.st_size != prod(shape_of(path.name)):
            return False
        if _whole.get(path) != stamp:
            if digest(_mapped(path, found.st_size).numpy()) != path.name.partition("-")[0]:
                return False
            _whole[path] = stamp
    except (OSError, RuntimeError):  # torch says so of files that it cannot map
        return False
    return True


def _mapped(path: Path, n_bytes: int) -> Tensor:
    # Not shared: what is written into it, by whatever mistake, is not written into the file.
    return torch.from_file(str(path), shared=False, size=n_bytes, dtype=torch.uint8)


def found(name: str, place: str) -> Path | None:
    """The file of this name, in the folder `place` or in that of this process; None without.

    It counts as used now.
    """
    both = (Path(place) / name, folder() / name)
    path = next((path for path in both if is_whole(path)), None)
    if path is not None:
        with suppress(OSError):  # of someone else
            os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))
    return path


def opened(name: str, place: str) -> Tensor:
    """The decoded pictures of a file, [m, 3, side, side], mapped.

    Raises
    ------
    OSError
        If it is not there, or damaged.
    """
    path = found(name, place)
    if path is None:
        raise OSError(f"{folder() / name} is gone or damaged; run it again: it is then sent anew")
    shape = shape_of(name)
    return _mapped(path, prod(shape)).view(shape).permute(0, 3, 1, 2)


class Arriving:
    """A file that comes in chunks, in their order; see `take`."""

    def __init__(self) -> None:
        self._name = ""
        self._next = 0
        self._file: BinaryIO | None = None
        self._stack = ExitStack()

    def take(self, name: str, i: int, chunk: bytes) -> None:
        """Take chunk i; the first one begins anew, the last one gives the file its name.

        Raises
        ------
        OSError
            If there is no room, a chunk is missing, or the bytes are not those that were sent.
        """
        path, n_bytes = folder() / name, prod(shape_of(name))
        if i == 0:
            self.drop()
            self._name, self._next = name, 0
            self._file = self._stack.enter_context(_place(path, n_bytes))
        if (name, i) != (self._name, self._next):
            raise OSError(f"chunk {i} of {name} came out of order; run it again")
        self._file.write(chunk)
        self._next += 1
        if i * CHUNK + len(chunk) < n_bytes:
            return
        self._file.flush()
        got = _mapped(Path(self._file.name), os.path.getsize(self._file.name))
        if digest(got.numpy()) != name.partition("-")[0]:
            self.drop()
            raise OSError(f"{path} was damaged on its way; run it again")
        self._stack.close()
        self._name = ""

    def drop(self) -> None:
        """Give up what came so far."""
        with suppress(_GivenUp, OSError), self._stack:
            raise _GivenUp
        self._stack, self._name = ExitStack(), ""


class _GivenUp(Exception):
    """Ends a file before it is whole."""


def sweep(unused: float = _UNUSED) -> None:
    """Delete the files that were not used for so many seconds.

    Those that processes have mapped stay readable for them, where the system can do that.
    """
    with suppress(OSError), os.scandir(folder()) as entries:
        for entry in entries:
            with suppress(OSError):  # in use, on Windows; or gone by now
                times = entry.stat()
                old = time.time() - max(times.st_atime, times.st_mtime) >= unused
                if entry.name.endswith(_ENDING) and old:
                    os.unlink(entry.path)
