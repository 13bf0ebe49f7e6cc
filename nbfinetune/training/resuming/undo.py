"""`Learner.undo_fit`: the learner as it was before its last fit, bit for bit."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from safetensors import SafetensorError

from nbfinetune.rendering.numbers import counted
from nbfinetune.runtime.calls import Call
from nbfinetune.training.resuming.run_folder import RunFolder
from nbfinetune.training.resuming.runs_root import FOR_UNDO, runs_folder
from nbfinetune.training.snapshot import Snapshot
from nbfinetune.training.state import LearnerState

MOST_BYTES = 2**30  # of all that a learner keeps in memory for it
MOST_FITS = 50  # each takes some 40 kB beside its tensors
# Attributes: what freezing sets goes with `requires_grad`; others are of the call that is on.
_ALWAYS = ("frozen", "_lr", "chosen", "calls")
_NEVER = {"undoable", "keeper", "resumed", "place", "run_cbs"}


class FitsToUndo:
    """What a learner was before each of its fits, the newest last; it is `learn.undoable`."""

    def __init__(self) -> None:
        self.fits: list[tuple[str, Snapshot]] = []
        self.on_disk: list[tuple[str, Snapshot, str]] = []  # older ones, and their files
        self._folder: RunFolder | None = None
        self._n_written = 0

    @contextmanager
    def watching(self, learn: LearnerState, method: str, *, everything: bool) -> Iterator[None]:
        """A fit goes on inside; it can be taken back afterwards, however it ended."""
        n_bytes = sum(p.nbytes for p in learn.model.parameters())
        if n_bytes > MOST_BYTES:
            self.fits.clear()
            self.on_disk.clear()  # what was before cannot be put back over what comes now
            yield
            return
        before = Snapshot(learn, everything=everything, device="cpu")
        n_runs = len(learn.recorder.runs)
        name = f"{method} of {time.strftime('%H:%M:%S')}"
        try:
            yield
        finally:
            if len(learn.recorder.runs) > n_runs:
                before.keep_changed(learn, always=_ALWAYS, never=_NEVER)
                self.fits.append((name, before))
                self._make_room()

    def _make_room(self) -> None:
        """Older ones go to the disk, as far as there is room, and the oldest are given up."""
        while len(self.on_disk) + len(self.fits) > MOST_FITS:
            (self.on_disk or self.fits).pop(0)
        while sum(snapshot.n_bytes for _, snapshot in self.fits) > MOST_BYTES:
            name, snapshot = self.fits.pop(0)
            try:
                self.on_disk.append((name, snapshot, self._written(snapshot)))
            except OSError:
                self.on_disk.clear()  # what was before cannot be put back over what comes now

    def _written(self, snapshot: Snapshot) -> str:
        """Let the copies of a snapshot be in a file; returns its name."""
        root = runs_folder()
        if root is None:
            raise OSError("no files are wanted")
        if self._folder is None:
            self._folder = RunFolder.new(root)
            self._folder.write_record({"status": FOR_UNDO})
        copies = snapshot.copies()
        self._n_written += 1
        file = self._folder.write_tensors(f"undo-{self._n_written}.safetensors", copies)
        snapshot.take_copies(dict.fromkeys(copies, torch.empty(0)))
        return file

    def newest(self) -> tuple[str, Snapshot] | None:
        """The last fit, from the disk where it is there; None if nothing is left."""
        if not self.fits and self.on_disk:
            name, snapshot, file = self.on_disk[-1]
            try:
                snapshot.take_copies(self._folder.read_tensors(file))
            except (OSError, SafetensorError, KeyError):
                self.on_disk.clear()
                return None
            self.on_disk.pop()
            self.fits.append((name, snapshot))
        return self.fits[-1] if self.fits else None


def fits_to_undo(learn: LearnerState) -> FitsToUndo:
    """Those of a learner."""
    if learn.undoable is None:
        learn.undoable = FitsToUndo()
    return learn.undoable


def undo_fit(learn: LearnerState) -> str:
    """Take the last fit back: weights, optimizer, random numbers, history and rates, bit for bit.

    Called again it takes back the fit before, down to the 50th from the end. What was before the
    fits is kept in memory, up to 1 GB of it, and before that on the disk, with the checkpoints,
    until the process ends.

    Returns
    -------
    done : what was taken back, and how many fits are left to take back

    Raises
    ------
    ValueError
        If there is no fit to take back.
    """
    learn.check_idle()
    undoable: FitsToUndo | None = learn.undoable
    newest = undoable and undoable.newest()
    if newest is None:
        why = "no fit was done"
        if learn.recorder.runs:
            why = "what was before the last one is kept no longer"
        raise ValueError(f"there is no fit to take back: {why}")
    name, before = newest
    later = learn.calls
    before.put_back(learn)
    learn.calls += tuple(_left_as_set(later[len(learn.calls) :], len(learn.recorder.runs)))
    undoable.fits.pop()
    left = counted(len(undoable.fits) + len(undoable.on_disk), "fit")
    return f"{name} is taken back; {left} before it can be taken back too"


def _left_as_set(calls: Sequence[Call], n_runs: int) -> Iterator[Call]:
    """Settings among the calls since, which an undo leaves as they are, all but the rate."""
    for call in calls:
        if "" in call.arguments and call.name != "lr":
            yield replace(call, n_runs=n_runs)
