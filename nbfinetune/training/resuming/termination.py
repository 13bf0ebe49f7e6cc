"""Termination: SIGTERM, with which spot machines and Slurm announce the end of a process."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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
        self._before: Any = None
        self._frame: Any = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside it is held; outside the main thread, which alone can hold it, nothing is."""
        if threading.current_thread() is not threading.main_thread():
            yield
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
        if callable(self._before):
            self._before(signal.SIGTERM, self._frame)
        elif self._before == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
