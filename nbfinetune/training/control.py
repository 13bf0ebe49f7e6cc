"""Control: requests to pause, stop, finish and scale a run, from any thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _nothing(paused: bool = False) -> None:
    """What nobody asked for; with a name, as a learner is pickled with it."""


_LOCK = threading.Lock()  # one thread gets a learner
_on: list["RunControl"] = []  # of calls that are on, the newest last
_LOOK = 0.05  # seconds between two looks whether a run still goes on


def calls_that_are_on() -> list["RunControl"]:
    """The controls of all calls that are on, of any learner in any thread, the newest last."""
    return list(_on)


class RunControl:
    """What is asked of the runs of a learner; it is `learn.control`.

    A request is a plain attribute, so any thread may make one; the run acts on it after the batch
    it is at, or after the part of one (see `Steering`): a step that is stopped is dropped whole,
    the weights are those of the step before. What was done by hand is in the `events` of the run.
    An interrupt acts at the same places, and keeps the same weights as `stop`.

    A copy is that of a learner that rests.

    Attributes
    ----------
    paused : whether the run waits
    scale : factor on the rates of the running schedule, from the next batch on; each stage of
        `fine_tune` begins with 1, and searches take no notice of it
    poll : called after each batch and part of one and while paused, to take in clicks that wait
    on_pause : called with True when a run begins to wait, with False when it goes on
    waited : seconds that the newest stage was paused
    thread : the one that runs, None if none does
    stopping : whether `stop` was called
    finish_in : what `finish` was called with, 0 for its default; None once it is acted on
    finished : whether the newest call was ended by `finish`
    finishing : first step, number of steps and rates of all parameter groups at the first, while
        the rate is annealed by `finish`
    scale_used : the factor that is in force
    scales_rates : whether the call that is on takes notice of `scale` and `finish`
    """

    def __init__(self) -> None:
        self.tell_nobody()
        self.thread: threading.Thread | None = None
        self._reset(scales_rates=True)

    def __reduce__(self) -> tuple:
        return RunControl, ()

    def tell_nobody(self) -> None:
        """Forget what was to be called."""
        self.poll: Callable[[], None] = _nothing
        self.on_pause: Callable[[bool], None] = _nothing

    def _reset(self, *, scales_rates: bool) -> None:
        self.paused = self.stopping = self.finished = False
        self.finish_in: int | None = None
        self.scales_rates = scales_rates
        self.begin_stage()

    def begin_stage(self) -> None:
        """Forget what was asked of the schedule of an earlier stage."""
        self.scale = self.scale_used = 1.0
        self.waited = 0.0
        self.finishing: tuple[int, int, list[float]] | None = None

    @contextmanager
    def claim(self, *, scales_rates: bool) -> Iterator[None]:
        """One call in this thread: a fit with all its stages, or a search."""
        me = threading.current_thread()
        if self.thread is me:  # a call within a call, such as that of a callback
            yield
            return
        with _LOCK:
            self.check_idle()
            self.thread = me
            _on.append(self)
        try:
            self._reset(scales_rates=scales_rates)
            yield
        finally:
            self.thread = None
            _on.remove(self)

    def check_idle(self) -> None:
        """Raise RuntimeError if a call is on in another thread."""
        if self.thread not in (None, threading.current_thread()):
            raise RuntimeError(
                "this learner is training in the background; wait for it, or stop it with %stop "
                "or learn.control.stop()"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """A call that is on in another thread waits inside, between two batches or parts."""
        if self.thread in (None, threading.current_thread()) or self.paused:
            yield
            return
        waits, goes_on, on_pause = threading.Event(), threading.Event(), self.on_pause

        def tell(paused: bool) -> None:
            on_pause(paused)
            (waits if paused else goes_on).set()

        self.on_pause, self.paused = tell, True
        try:
            while self.running and not self.stopping and not waits.wait(_LOOK):
                pass
            yield
        finally:
            self.paused = False
            # Until it has seen that: who holds it next must not take this wait for another one.
            while waits.is_set() and self.running and not (self.paused or goes_on.wait(_LOOK)):
                pass
            self.on_pause = on_pause

    @property
    def running(self) -> bool:
        """Whether a call is on, in any thread."""
        return self.thread is not None

    @property
    def ended(self) -> bool:
        """Whether the newest call was ended, or is to end, by `stop` or `finish`."""
        return self.finished or self.stopping

    def pause(self) -> None:
        """Wait after the batch, or part of one, at hand, until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Go on."""
        self.paused = False

    def stop(self) -> None:
        """End the call after the batch, or part of one, at hand; the history is kept.

        The weights are those of the last whole step, or of the best epoch where a call keeps it.
        """
        self.stopping = True

    def finish(self, n_steps: int | None = None) -> None:
        """Anneal the rate from where it is to almost zero, validate, and end the call.

        Parameters
        ----------
        n_steps : steps of that; default: a tenth of the run's, at least 10; at most those left
        """
        if n_steps is not None and n_steps < 1:
            raise ValueError(f"n_steps is {n_steps}; it must be a whole number from 1 up")
        self.finish_in = n_steps or 0
        self.paused = False
