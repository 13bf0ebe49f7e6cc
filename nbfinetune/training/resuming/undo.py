"""`Learner.undo_fit`: the learner as it was before its last fit, bit for bit."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from nbfinetune.rendering.numbers import counted
from nbfinetune.training.snapshot import Snapshot
from nbfinetune.training.state import LearnerState

MOST_BYTES = 2**30  # of all that a learner keeps in memory for it
# Attributes: what freezing sets goes with `requires_grad`; others are of the call that is on.
_ALWAYS = ("frozen", "_lr", "chosen")
_NEVER = {"undoable", "searches", "keeper", "resumed", "place", "run_cbs"}


class FitsToUndo:
    """What a learner was before each of its fits, the newest last; it is `learn.undoable`."""

    def __init__(self) -> None:
        self.fits: list[tuple[str, Snapshot]] = []

    @contextmanager
    def watching(self, learn: LearnerState, method: str, *, everything: bool) -> Iterator[None]:
        """A fit goes on inside; it can be taken back afterwards, however it ended."""
        n_bytes = sum(p.nbytes for p in learn.model.parameters())
        if n_bytes > MOST_BYTES:
            self.fits.clear()  # what was before cannot be put back over what comes now
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
                self._forget_oldest()

    def _forget_oldest(self) -> None:
        while sum(snapshot.n_bytes for _, snapshot in self.fits) > MOST_BYTES:
            del self.fits[0]


def fits_to_undo(learn: LearnerState) -> FitsToUndo:
    """Those of a learner."""
    if learn.undoable is None:
        learn.undoable = FitsToUndo()
    return learn.undoable


def undo_fit(learn: LearnerState) -> str:
    """Take the last fit back: weights, optimizer, random numbers, history and rates, bit for bit.

    Called again it takes back the fit before. What was before the fits is kept in memory, up to
    1 GB of it; older fits cannot be taken back.

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
    if undoable is None or not undoable.fits:
        why = "no fit was done"
        if learn.recorder.runs:
            why = "what was before the last one is not in memory (1 GB is kept)"
        raise ValueError(f"there is no fit to take back: {why}")
    name, before = undoable.fits[-1]
    before.put_back(learn)
    undoable.fits.pop()
    left = counted(len(undoable.fits), "fit")
    return f"{name} is taken back; {left} before it can be taken back too"
