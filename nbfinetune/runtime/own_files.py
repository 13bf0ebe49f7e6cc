"""Own files: written whole or not at all, and by one process at a time where they are added to.

Whoever has a file of these in hand holds a lock on it, which the system lets go when the process
dies: so what dead processes left is known from what living ones are writing.
"""

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nbfinetune.rendering.names import shortened
from nbfinetune.runtime.interrupts import interrupts_held

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

_NAME = 40  # characters of a file's name in that of its temporary file: names end at 255 bytes
_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.part")
_PATIENCE = 20.0  # s; to add to a file of corrections takes a few ms
_PAUSE = 0.01  # s between two tries
_BLOCK = 2**24  # bytes written at once
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write line ends of its own
_LEFT = 3600.0  # s after which a file is taken for left behind where there are no locks


def write_whole(path: Path, content: bytes) -> None:
    """Write a file: all of it, or the one before stays as it is.

    It is on the disk, not in memory alone, before it takes its name. The rights of a file that is
    there are kept, and a link to it. What killed processes left of such writes in the folder is
    taken away. An interrupt acts when it is done.

    Raises
    ------
    OSError
        If it cannot be written; the text names the file and says why.
    """
    with interrupts_held(), written_whole(path) as file:
        for start in range(0, len(content), _BLOCK):
            file.write(memoryview(content)[start : start + _BLOCK])


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to piece by piece; as `write_whole` writes one, if no error ends it."""
    with _in_words(path):
        target = Path(os.path.realpath(path))
        rights = _rights(target)
        _sweep(target)
        with _temporary(target) as file:
            yield file
            file.flush()
            _give(file, rights)
            os.fsync(file.fileno())
            if fcntl is None:  # Windows renames no open file
                file.close()
            os.replace(file.name, target)
        _sync_folder(target.parent)


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError for a file that is there and may not be replaced."""
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(f"{shortened(path)} exists; take another name or pass overwrite=True")


def make_folder(path: Path) -> None:
    """Make a folder and those it is in, if they are not there; OSError says why it cannot be."""
    with _in_words(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(path: Path, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Keep other processes that use this from `path` inside: it is read, changed and written.

    Parameters
    ----------
    patience : seconds to wait for another

    Raises
    ------
    OSError
        If there is no end to waiting, or no lock can be made in the folder.
    """
    with _in_words(path):
        target = Path(os.path.realpath(path))
        lock = target.with_name(f".{target.name[:_NAME]}.lock")
        until = time.monotonic() + patience
        while (held := _claimed(lock)) is None:
            if _drop_left(lock):
                continue
            if time.monotonic() > until:
                raise OSError(
                    f"another process has been writing it for {patience:g} s; try again, or "
                    f"delete {shortened(lock)} if no other runs"
                )
            time.sleep(_PAUSE)
    try:
        yield
    finally:
        _unclaim(held, lock)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """One line that names the file, whatever the system says."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{shortened(path)} cannot be written ({error.strerror or error})") from None


def _rights(target: Path) -> os.stat_result | None:
    """Owner and mode of the file that is there, None without one."""
    try:
        rights = os.stat(target)
    except FileNotFoundError:
        return None
    if not os.path.isfile(target):
        raise OSError("it is a folder or a device")
    if not os.access(target, os.W_OK):
        raise OSError("it is read-only; take another name, or allow it: chmod u+w")
    return rights


def _give(file: BinaryIO, rights: os.stat_result | None) -> None:
    if rights is None or not hasattr(os, "fchmod"):
        return
    with suppress(OSError):  # only root may give files away
        os.fchown(file.fileno(), rights.st_uid, rights.st_gid)
    with suppress(OSError):  # some file systems have no rights
        os.fchmod(file.fileno(), rights.st_mode & 0o7777)


@contextmanager
def _temporary(target: Path) -> Iterator[BinaryIO]:
    """A new file beside the target; it is gone in the end if it was not renamed."""
    while True:
        unique = f"{os.getpid()}.{secrets.token_hex(4)}"
        path = target.with_name(f".{target.name[:_NAME]}.{unique}.part")
        if (file := _claimed(path)) is not None:
            break
    try:
        yield file
    finally:
        file.close()
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _claimed(path: Path) -> BinaryIO | None:
    """A new file under this name, with a lock; None if there is one already."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY, 0o666)
    except FileExistsError:
        return None
    file = open(path, "wb", opener=lambda *_: descriptor)  # noqa: SIM115 (given back)
    if fcntl is None:
        return file
    with suppress(OSError):  # some file systems have no locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if _is_there(path, descriptor):
        return file
    file.close()  # taken for left behind before it had its lock
    return None


def _unclaim(file: BinaryIO, path: Path) -> None:
    if fcntl is None:  # Windows deletes no open file
        file.close()
    with suppress(OSError):
        path.unlink(missing_ok=True)
    file.close()


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _drop_left(path: Path) -> bool:
    """Delete a file whose process is dead; returns whether it was."""
    try:
        with open(path, "rb+") as file:
            if not _is_left(file) or not _is_there(path, file.fileno()):
                return False
            if fcntl is not None:  # while its lock is held: it may be claimed anew
                path.unlink()
        path.unlink(missing_ok=True)
    except OSError:  # gone, or of someone else
        return False
    return True


def _is_left(file: BinaryIO) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no locks on this file system
            pass
        else:
            return True
    return time.time() - os.fstat(file.fileno()).st_mtime > _LEFT


def _sweep(target: Path) -> None:
    """Take away what dead processes left in the folder, of this version and of the one before."""
    before = re.compile(rf"\.{re.escape(target.name)}\.\d+\.part")
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) or before.fullmatch(entry.name):
                _drop_left(Path(entry.path))


def _sync_folder(folder: Path) -> None:
    """Let the new name outlast a power cut too, where the system knows how."""
    with suppress(OSError):  # Windows opens no folders, and some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
