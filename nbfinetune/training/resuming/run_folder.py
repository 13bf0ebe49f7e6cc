"""Run folders: what is on the disk of a run, its record and its two newest checkpoints.

A checkpoint is a JSON file and the safetensors files that it names; what has not changed since an
earlier one stays in the file of that. Each is written whole, the JSON last.
"""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes
from torch import Tensor

from nbfinetune.runtime.own_files import write_whole
from nbfinetune.training.resuming.packing import unpack

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

MOST_BYTES = 2 * 2**30  # of all runs; the oldest go first
_FREE = 2**30  # bytes of a disk that are left to others
_CHECKPOINTS = 2  # that stay of a run
_RECORD, _LOCK, _HISTORY = "run.json", "run.lock", "history"
_CHECKPOINT = re.compile(r"(\d{6})\.json")


class RunFolder:
    """The files of one run.

    Attributes
    ----------
    path : the folder; its name begins with the time
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BinaryIO | None = None

    @classmethod
    def new(cls, root: Path) -> "RunFolder":
        """A new folder, held by this process."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        now = time.time()
        begun = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}.{now % 1 * 1000:03.0f}"
        name = f"{begun}-{os.getpid()}-{secrets.token_hex(3)}"
        folder = cls(root / name)
        folder.path.mkdir(mode=0o700)
        folder.claim()
        return folder

    def claim(self) -> bool:
        """Hold the folder until `release`, or the end of the process; False if another has it."""
        if self.in_use():
            return False
        self._lock = open(self.path / _LOCK, "wb+")  # noqa: SIM115 (held)
        self._lock.write(str(os.getpid()).encode())
        self._lock.flush()
        if fcntl is not None:
            with suppress(OSError):  # some file systems have no locks
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True

    def release(self) -> None:
        """Hold it no longer."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            with suppress(OSError):
                (self.path / _LOCK).unlink()

    def in_use(self) -> bool:
        """Whether a living process holds it."""
        lock = self.path / _LOCK
        if fcntl is None:  # Windows deletes no open file
            with suppress(FileNotFoundError):
                try:
                    lock.unlink()
                except PermissionError:
                    return True
            return False
        try:
            with open(lock, "rb") as file:
                pid = file.read().decode()
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _lives(pid)  # a worker process of a dead one may hold it a while
        except OSError:
            pass
        return False

    def write_record(self, record: dict) -> None:
        """Write what is known of the run; not synced, as it costs little to lose."""
        path = self.path / _RECORD
        part = path.with_suffix(".part")
        part.write_text(json.dumps(record))
        os.replace(part, path)

    def record(self) -> dict:
        """What is known of the run; {} if that cannot be read."""
        with suppress(OSError, ValueError):
            record = json.loads((self.path / _RECORD).read_text())
            if isinstance(record, dict):
                return record
        return {}

    def write_checkpoint(
        self, state: dict, files: Mapping[str, Mapping[str, Tensor]], elsewhere: Mapping[str, str]
    ) -> dict[str, str]:
        """Write a checkpoint, and drop those before the last two.

        Parameters
        ----------
        state : plain values
        files : suffix of a file's name -> the tensors that it gets
        elsewhere : name of a tensor -> the file of an earlier checkpoint that has it

        Returns
        -------
        where : name of each tensor -> the file that has it

        Raises
        ------
        OSError
            If it cannot be written; the text says why.
        """
        number = max(self.checkpoints(), default=-1) + 1
        where = dict(elsewhere)
        for suffix, tensors in files.items():
            if not tensors:
                continue
            file = self.write_tensors(f"{number:06}{suffix}.safetensors", tensors)
            where |= dict.fromkeys(tensors, file)
        text = json.dumps({"state": state, "files": where})
        write_whole(self.path / f"{number:06}.json", text.encode())
        self._drop_before(number - _CHECKPOINTS + 1)
        return where

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        """Write a file of tensors; returns its name.

        Raises
        ------
        OSError
            If it cannot be written, or is too large.
        """
        # Cloned where it must be: safetensors takes neither shared storage nor channels-last.
        plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        self._check_room(sum(v.nbytes for v in plain.values()))
        write_whole(self.path / name, save_bytes(_unshared(plain)))
        return name

    def read_tensors(self, name: str) -> dict[str, Tensor]:
        """All tensors of a file."""
        with safe_open(self.path / name, framework="pt") as opened:
            return {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118

    def _check_room(self, n_bytes: int) -> None:
        if 3 * n_bytes > MOST_BYTES:  # two stay while the next is written
            raise OSError(f"a checkpoint of {n_bytes / 2**30:.1f} GB is too large to keep two")
        free = shutil.disk_usage(self.path).free
        if n_bytes + _FREE > free:
            raise OSError(f"{free / 2**30:.1f} GB free, of which 1 is left to others")

    def checkpoints(self) -> list[int]:
        """The numbers of those that are there, the oldest first."""
        with suppress(OSError):
            matches = [_CHECKPOINT.fullmatch(name) for name in os.listdir(self.path)]
            return sorted(int(match[1]) for match in matches if match)
        return []

    def read_checkpoints(self) -> Iterator[tuple[dict, dict[str, Tensor]]]:
        """State and tensors of those that can be read, the newest first."""
        for number in reversed(self.checkpoints()):
            with suppress(OSError, ValueError, TypeError, KeyError, SafetensorError):
                yield self._read(number)

    def _read(self, number: int) -> tuple[dict, dict[str, Tensor]]:
        read = self._manifest(number)
        tensors: dict[str, Tensor] = {}
        for file in set(read["files"].values()):
            if os.path.basename(file) != file:
                raise ValueError("a file of another folder")
            with safe_open(self.path / file, framework="pt") as opened:
                wanted = [name for name, of in read["files"].items() if of == file]
                tensors |= {name: opened.get_tensor(name).clone() for name in wanted}
        return read["state"], tensors

    def _manifest(self, number: int) -> dict:
        return json.loads((self.path / f"{number:06}.json").read_text())

    def _drop_before(self, first: int) -> None:
        """Delete older checkpoints, and the files that no newer one needs."""
        needed: set[str] = set()
        for number in self.checkpoints():
            if number < first:
                with suppress(OSError):
                    (self.path / f"{number:06}.json").unlink()
            else:
                with suppress(OSError, ValueError):
                    needed |= set(self._manifest(number)["files"].values())
        for file in self.path.glob("*.safetensors"):
            if file.name not in needed and file.stem != _HISTORY:
                with suppress(OSError):
                    file.unlink()

    def write_history(self, state: object, tensors: Mapping[str, Tensor]) -> None:
        """Write what the run did; not synced, as its record is not."""
        for suffix, content in (
            (".safetensors", save_bytes(dict(tensors))),
            (".json", json.dumps(state).encode()),
        ):
            part = self.path / f"{_HISTORY}.part"
            part.write_bytes(content)
            os.replace(part, self.path / f"{_HISTORY}{suffix}")

    def read_history(self) -> object:
        """What the run did, as packed; None if that cannot be read, or it is not over."""
        with suppress(OSError, ValueError, TypeError, SafetensorError):
            state = json.loads((self.path / f"{_HISTORY}.json").read_text())
            return unpack(state, self.read_tensors(f"{_HISTORY}.safetensors"))
        return None

    def drop_checkpoints(self) -> None:
        """Delete all of them; the record stays."""
        for file in [*self.path.glob("*.json"), *self.path.glob("*.safetensors")]:
            if file.name != _RECORD and file.stem != _HISTORY:
                with suppress(OSError):
                    file.unlink()

    @property
    def n_bytes(self) -> int:
        total = 0
        with suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(OSError):
                    total += entry.stat().st_size
        return total


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:  # another user's
        return True
    return True


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, each in memory of its own."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        start = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.nbytes
        own[name] = tensor if whole and start not in seen else tensor.clone()
        seen.add(start)
    return own
