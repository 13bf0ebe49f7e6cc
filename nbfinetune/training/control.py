"""Control: pause, stop, finish and scale a run while it goes on, from any thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from math import ceil
from typing import TYPE_CHECKING

from nbfinetune.training.callbacks import Callback, CancelFit, CancelTrain
from nbfinetune.training.schedules import cos

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

_NAP = 0.02  # seconds between two looks at a paused run
_NOTABLE = 0.005  # a slider gives back 1.0 as 0.9999
_ONE_DRAG = 25  # steps: changes of the scale that are nearer than this are one
_FINISH = 0.1  # share of the run's steps in which "finish" anneals, when not told how many
_LEAST_FINISH = 10  # steps
_DIV_FINAL = 1e5  # the rate ends at this fraction, as that of a cycle (fastai's)


class RunControl(Callback):
    """What steers the runs of a learner; it is `learn.control`.

    A request is a plain attribute, so any thread may make one; the run acts on it after the batch
    it is at. What was done by hand is in the `events` of the recorded run.

    Attributes
    ----------
    paused : whether the run waits
    scale : factor on the rates of the running schedule, from the next batch on; each stage of
        `fine_tune` begins with 1, and searches take no notice of it
    poll : called after each batch and while paused, to take in the clicks that wait
    on_pause : called with True when a run begins to wait, with False when it goes on
    waited : seconds that the newest stage was paused
    thread : the one that runs, None if none does
    """

    def __init__(self) -> None:
        self.poll: Callable[[], None] = lambda: None
        self.on_pause: Callable[[bool], None] = lambda paused: None
        self.thread: threading.Thread | None = None
        self._reset(steers=True)

    def _reset(self, *, steers: bool) -> None:
        self.paused, self._stop, self._finish_in, self._ended = False, False, None, False
        self._steers = steers
        self._reset_stage()

    def _reset_stage(self) -> None:
        self.scale = self._scale_used = 1.0
        self.waited = 0.0
        self._scaled_at = -_ONE_DRAG
        self._finish: tuple[int, int, list[float]] | None = None

    @contextmanager
    def on(self, *, steers: bool) -> Iterator[None]:
        """One call: a fit with all its stages, or a search, which `steers` no rate."""
        if self.running:  # a call within a call, such as that of a callback
            yield
            return
        self._reset(steers=steers)
        self.thread = threading.current_thread()
        try:
            yield
        finally:
            self.thread = None

    @property
    def running(self) -> bool:
        """Whether a call is on, in any thread."""
        return self.thread is not None

    @property
    def ended(self) -> bool:
        """Whether the newest call was ended, or is to end, by `stop` or `finish`."""
        return self._ended or self._stop

    def pause(self) -> None:
        """Wait after the batch at hand, until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Go on."""
        self.paused = False

    def stop(self) -> None:
        """End the call after the batch at hand; the history is kept.

        The weights are those of the last step, or of the best epoch where the call keeps these.
        """
        self._stop = True

    def finish(self, n_steps: int | None = None) -> None:
        """Anneal the rate from where it is to almost zero, validate, and end the call.

        Parameters
        ----------
        n_steps : steps of that; default: a tenth of the run's, at least 10; at most those left
        """
        if n_steps is not None and n_steps < 1:
            raise ValueError(f"n_steps is {n_steps}; it must be a whole number from 1 up")
        self._finish_in = n_steps or 0
        self.paused = False

    def before_fit(self, learn: "Learner") -> None:
        self._reset_stage()

    def before_batch(self, learn: "Learner") -> None:
        if not learn.training or not self._steers:
            return
        step = len(learn.recorder.run.lrs)
        if abs(self.scale - self._scale_used) > _NOTABLE * self._scale_used:
            self._note_scale(learn, step)
        if self._finish_in is not None:
            self._begin_to_finish(learn, step)
        for i, group in enumerate(learn.opt.param_groups):
            if self._finish:
                first, n_steps, lrs = self._finish
                group["lr"] = cos(lrs[i], lrs[i] / _DIV_FINAL)((step - first) / n_steps)
            group["lr"] *= self._scale_used

    def _note_scale(self, learn: "Learner", step: int) -> None:
        events = learn.recorder.run.events
        text = f"learning rate times {self.scale:.3g}"
        if events and step - self._scaled_at < _ONE_DRAG and "times" in events[-1][1]:
            events[-1] = (events[-1][0], text)
        else:
            self._note(learn, text)
        self._scale_used, self._scaled_at = self.scale, step

    def _begin_to_finish(self, learn: "Learner", step: int) -> None:
        if self._finish is None:
            left = learn.n_epoch * learn.n_iter - (learn.epoch * learn.n_iter + learn.iter)
            share = max(round(_FINISH * learn.n_epoch * learn.n_iter), _LEAST_FINISH)
            wanted = ceil((self._finish_in or share) / learn.accumulate) * learn.accumulate
            n_steps = min(wanted, left)
            self._finish = (step, n_steps, [group["lr"] for group in learn.opt.param_groups])
            self._note(learn, f"finishing in {n_steps} steps")
        self._finish_in = None

    def rates_to_come(self, learn: "Learner", most: int) -> tuple[list[int], list[float]]:
        """Steps from now on, and the rate that the last layer group will have there.

        Parameters
        ----------
        most : points at most, about
        """
        run = learn.recorder.run
        done = len(run.lrs)
        if self._finish:
            first, n_steps, lrs = self._finish
            rate, end = cos(lrs[-1], lrs[-1] / _DIV_FINAL), first + n_steps
            ahead = range(max(end - done, 0))
            rates = [rate((done + i - first) / n_steps) for i in ahead]
        else:
            total = run.n_epoch * run.n_iter
            position = run.first_epoch * run.n_iter + done
            ahead = range(0, max(total - position, 0), max((total - position) // most, 1))
            rates = [learn.lr_schedules[-1]((position + i) / total) for i in ahead]
        return [i + 1 for i in ahead], [self._scale_used * lr for lr in rates]

    def after_batch(self, learn: "Learner") -> None:
        self.poll()
        if self.paused and not self._stop:
            self._wait(learn)
        if self._stop:
            self._note(learn, "stopped")
            raise CancelFit
        if learn.training and self._finished(learn):
            raise CancelTrain

    def after_epoch(self, learn: "Learner") -> None:
        if self._finished(learn):
            self._ended = True
            raise CancelFit

    def _finished(self, learn: "Learner") -> bool:
        if self._finish is None:
            return False
        first, n_steps, _ = self._finish
        return len(learn.recorder.run.lrs) >= first + n_steps

    def _wait(self, learn: "Learner") -> None:
        self._note(learn, "paused")
        started = time.monotonic()
        self.on_pause(True)
        while self.paused and not self._stop:
            time.sleep(_NAP)
            self.poll()
        self.on_pause(False)
        self.waited += time.monotonic() - started

    def _note(self, learn: "Learner", what: str) -> None:
        runs = learn.recorder.runs
        if runs and runs[-1].status == "running":  # else a validation alone is on
            runs[-1].events.append((len(runs[-1].lrs), what))


def steered(*, steers: bool) -> Callable[[Callable], Callable]:
    """Makes a method of the learner one call: it is refused while another thread is in one."""

    def decorate(method: Callable) -> Callable:
        @wraps(method)
        def call(learn: "Learner", *args, **kwargs) -> object:
            learn.check_idle()
            with learn.control.on(steers=steers):
                return method(learn, *args, **kwargs)

        return call

    return decorate
