"""Checkpoint relay: what an engine would write of a run is written by the notebook, in its folder.

The engine holds the newest checkpoint until the notebook has written it; those that a newer one
overtakes are dropped. So no file system has to be shared, and memory stays flat.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from nbfinetune.training.resuming.run_folder import RunFolder


@dataclass(frozen=True)
class SentCheckpoint:
    """A checkpoint on its way.

    Parameters
    ----------
    state : plain values
    where : name of each tensor -> the sheet that has it
    suffixes : sheet -> the suffix of its file
    sheets : those that the notebook has not written yet, with their tensors
    """

    state: dict
    where: dict[str, str]
    suffixes: dict[str, str]
    sheets: dict[str, dict[str, Tensor]]


class RelayFolder:
    """Takes the place of a `RunFolder` in an engine.

    Parameters
    ----------
    tell : called with the number of a new checkpoint, which can be fetched then

    Attributes
    ----------
    written : sheet -> file of all that the notebook has written
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._number = -1
        self._newest: SentCheckpoint | None = None
        self.written: dict[str, str] = {}

    def write_checkpoint(
        self, state: dict, files: Mapping[str, Mapping[str, Tensor]], elsewhere: Mapping[str, str]
    ) -> dict[str, str]:
        """As that of a `RunFolder`; sheets have the place of files."""
        number = self._number + 1
        sheets = {
            f"{number:06}{suffix}": {k: v.detach().to("cpu", copy=True) for k, v in tensors.items()}
            for suffix, tensors in files.items()
            if tensors
        }
        where = dict(elsewhere)
        for sheet, tensors in sheets.items():
            where |= dict.fromkeys(tensors, sheet)
        with self._lock:
            before = self._newest
            needed = set(where.values())
            if before is not None:
                sheets |= {s: t for s, t in before.sheets.items() if s in needed}
            suffixes = {sheet: sheet[6:] for sheet in needed}
            self._newest = SentCheckpoint(state, where, suffixes, sheets)
            self._number = number
        self._tell(number)
        return where

    def fetch(self, number: int) -> SentCheckpoint | None:
        """A checkpoint; None once there is a newer one."""
        with self._lock:
            return self._newest if number == self._number else None

    def acknowledge(self, number: int, written: Mapping[str, str]) -> None:
        """The notebook has written one, into these files: its tensors are no longer held."""
        with self._lock:
            self.written |= written
            if self._newest is not None:
                left = {s: t for s, t in self._newest.sheets.items() if s not in written}
                newest = self._newest
                self._newest = SentCheckpoint(newest.state, newest.where, newest.suffixes, left)

    def write_record(self, record: dict) -> None:
        """The notebook keeps the record."""

    def write_history(self, state: object, tensors: Mapping[str, Tensor]) -> None:
        """The notebook has the history."""

    def drop_checkpoints(self) -> None:
        """The notebook drops its own."""

    def release(self) -> None:
        """Nothing is held."""


def write_sent(
    folder: RunFolder, sent: SentCheckpoint, written: Mapping[str, str]
) -> dict[str, str]:
    """Write a checkpoint into the notebook's folder.

    Parameters
    ----------
    written : sheet -> file of what is there

    Returns
    -------
    written : the sheets that were written now, and their files

    Raises
    ------
    OSError
        If it cannot be written.
    """
    files: dict[str, dict[str, Tensor]] = {}
    for sheet, tensors in sent.sheets.items():
        own = {name: t for name, t in tensors.items() if sent.where.get(name) == sheet}
        files.setdefault(sent.suffixes[sheet], {}).update(own)
    elsewhere = {name: written[s] for name, s in sent.where.items() if s not in sent.sheets}
    where = folder.write_checkpoint(sent.state, files, elsewhere)
    return {sheet: where[name] for name, sheet in sent.where.items() if sheet in sent.sheets}
