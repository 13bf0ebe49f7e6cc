"""Interrupts: they act where nothing is half done.

Python raises KeyboardInterrupt between any two of its instructions, also where a context manager
gives something back: that is then lost for the session. So while a learner is at work in the main
thread an interrupt is noted, and acts at the next place that asks for it: between two batches, say.
A second one, should a step hang, acts at once, but never cuts what has to be whole.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import CodeType, FrameType

# What takes something or gives it back is never cut, whoever wrote it.
_TAKE_AND_GIVE = frozenset({"__enter__", "__exit__", "enter_context"})
_whole: set[CodeType] = set()
_block: "_Block | None" = None  # the outermost one that is on, of the main thread


def whole(function: Callable) -> Callable:
    """Marks a function that nothing cuts in two while interrupts are deferred; costs nothing."""
    _whole.add(function.__code__)
    return function


class _Block:
    """What comes between its begin and its end.

    Parameters
    ----------
    previous : the handler that was there, which acts in the end
    caller : the frame that the block is of
    """

    def __init__(self, previous: Callable, caller: FrameType) -> None:
        self.previous, self.caller = previous, caller
        self.depth, self.held = 1, 0  # blocks in it, and those of `interrupts_held`
        self.noted: list[tuple[int, FrameType | None]] = []
        self.acted = self.over = False

    def note(self, signum: int, frame: FrameType | None) -> None:
        """The handler: the first interrupt waits, a second one acts at once, where it may."""
        if self.over:  # a debugger has put this back too late
            self.previous(signum, frame)
            return
        self.noted.append((signum, frame))
        if len(self.noted) > 1 and not (self.held or self.acted or self._is_whole(frame)):
            self.act()

    def act(self) -> None:
        """Let the handler that was there do what it does with an interrupt, mostly raise."""
        noted, self.noted = self.noted, []
        self.acted = True  # while what is on is ended and given back nothing acts at once
        for signum, frame in noted:
            self.previous(signum, frame)
        self.acted = False

    def _is_whole(self, frame: FrameType | None) -> bool:
        while frame is not None and frame is not self.caller:
            if frame.f_code.co_name in _TAKE_AND_GIVE or frame.f_code in _whole:
                return True
            frame = frame.f_back
        return False


def _user_of(frame: FrameType) -> FrameType:
    """The function that a frame enters a block for: one of a context manager is not it."""

    def enters(frame: FrameType | None) -> bool:
        return frame is not None and frame.f_code.co_name in _TAKE_AND_GIVE

    while enters(frame) or enters(frame.f_back):
        frame = frame.f_back
    return frame


class interrupts_deferred:
    """In the block an interrupt waits for `act_on_interrupt`, or for the end of the block.

    A second one acts at once, but not while a context manager is entered or left, nor in a function
    that is `whole`, nor in `interrupts_held`; and once one acts, what it ends is left in peace. In
    a block within a block all waits for the outer one. What acts is the handler that was there
    before, which is there again afterwards. Outside the main thread, which alone gets interrupts,
    and where they are ignored or end the process, nothing is done.
    """

    def __enter__(self) -> _Block | None:
        global _block
        if threading.current_thread() is not threading.main_thread():
            return None
        if _block is not None:
            _block.depth += 1
            return _block
        previous = signal.getsignal(signal.SIGINT)
        if not callable(previous):  # ignored, the system's, or not of Python
            return None
        block = _Block(previous, _user_of(sys._getframe(1)))
        signal.signal(signal.SIGINT, block.note)
        _block = block
        return block

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        global _block
        block = _block
        if block is None or threading.current_thread() is not threading.main_thread():
            return
        block.depth -= 1
        if block.depth:
            return
        _block = None
        if signal.getsignal(signal.SIGINT) == block.note:  # else it is another's by now
            signal.signal(signal.SIGINT, block.previous)
        block.over = True
        if block.noted and not isinstance(error, KeyboardInterrupt):
            block.act()


def defers_interrupts(function: Callable) -> Callable:
    """Makes a call of the function a block of `interrupts_deferred`."""

    @wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        with interrupts_deferred():
            return function(*args, **kwargs)

    return call


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Interrupts act after the block, however many come: it must be whole, and it is short."""
    with interrupts_deferred() as block:
        if block is None:
            yield
            return
        block.held += 1
        try:
            yield
        finally:
            block.held -= 1


def act_on_interrupt() -> None:
    """Let an interrupt act that was noted: nothing is half done here."""
    block = _block
    if block is None or not (block.noted or block.acted):
        return
    if threading.current_thread() is threading.main_thread():
        block.acted = False  # one that did was caught: what goes on may be interrupted again
        if block.noted:
            block.act()
