"""Termination: SIGTERM, with which spot machines and Slurm announce the end of a process."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

_PATIENCE = 20  # seconds for the checkpoints of runs in other threads; Slurm kills 30 s after it

_elsewhere: list["Termination"] = []  # of the runs that are on in other threads


class Termination:
    """Holds a SIGTERM until `pass_on`, for whoever handled it before; a second one acts at once.

    Parameters
    ----------
    on_signal : called when one comes

    Attributes
    ----------
    came : whether one waits
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        self.came = False
        self._on_signal = on_signal
        self._acted = threading.Event()
        self._before: Any = None
        self._frame: Any = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside it is held; in other threads than the main one by `tell_runs_elsewhere`."""
        if threading.current_thread() is not threading.main_thread():
            _elsewhere.append(self)
            try:
                yield
            finally:
                _elsewhere.remove(self)
                self._acted.set()
            return
        before = signal.getsignal(signal.SIGTERM)
        if before is None:  # not of Python: it could not be put back
            yield
            return
        self._before = before
        signal.signal(signal.SIGTERM, self._hold)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            if self.came:
                self.pass_on()

    def _hold(self, signum: int, frame: Any) -> None:
        if self.came:
            self.pass_on()
            return
        self.came, self._frame = True, frame
        self._on_signal()

    def pass_on(self) -> None:
        """Let it act as it would have; the process may live on."""
        self.came = False
        self._acted.set()
        if self not in _elsewhere:
            _act(self._before, self._frame)


def tell_runs_elsewhere() -> None:
    """Let a SIGTERM wait until the runs of other threads have written a checkpoint.

    To be called in the main thread; Python lets no other one handle signals.
    """
    before = signal.getsignal(signal.SIGTERM)
    told = before is None or getattr(before, "tells_runs_elsewhere", False)
    if told or threading.current_thread() is not threading.main_thread():
        return

    def tell(signum: int, frame: Any) -> None:
        runs = list(_elsewhere)
        again = any(run.came for run in runs)
        until = monotonic() + (0 if again else _PATIENCE)
        for run in runs:
            run._acted.clear()
            run.came = True
            run._on_signal()
        for run in runs:
            run._acted.wait(max(0.0, until - monotonic()))
        _act(before, frame)

    tell.tells_runs_elsewhere = True
    signal.signal(signal.SIGTERM, tell)


def _act(handler: Any, frame: Any) -> None:
    """What a SIGTERM does by this handler."""
    if callable(handler):
        handler(signal.SIGTERM, frame)
    elif handler == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
