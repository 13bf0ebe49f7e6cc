"""Time left: how far a run or a search is, and how long it will take, in one line."""

from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from nbfinetune.history.recorder import Run
from nbfinetune.history.report import minutes, stage_of

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

_HEAD_IS_FASTER = 50  # times, than body and head (48 to 144 measured)


class TimeLeft:
    """How far a stage is, how long it will take, and how many pictures a second it does."""

    def start(self, learn: "Learner") -> None:
        """The stage begins."""
        self._started, self._batches, self._pictures = monotonic(), 0, 0.0
        self._first = learn.epoch

    def tick(self, learn: "Learner") -> None:
        """A batch is done."""
        loader = learn.dls.train if learn.training else learn.dls.valid
        self._batches += 1
        with suppress(TypeError):  # a data set without a length
            self._pictures += len(getattr(loader, "dataset", ())) / len(loader)

    def how_far(self, learn: "Learner") -> tuple[float, str]:
        """Share of the stage's batches done, and that with the time left as a line."""
        run, per_epoch = learn.recorder.run, learn.n_iter + len(learn.dls.valid)
        slow = learn.n_epoch - self._first if run.body_epochs is None else run.body_epochs
        total = self._work(per_epoch * (learn.n_epoch - self._first), slow * per_epoch)
        done = min(self._work(self._batches, slow * per_epoch) / total, 1.0)
        stage = stage_of(run)
        where = f"{stage and stage + ': '}epoch {learn.epoch + 1} of {learn.n_epoch}"
        if not done:
            return done, where
        seconds = max(monotonic() - self._started - learn.control.waited, 1e-9)
        text = f"{where}, {done:.0%}, {minutes(seconds * (1 - done) / done)} left"
        if self._pictures:
            text += f", {self._pictures / seconds:.0f} pictures/s"
        return done, text + _kept(run)

    @staticmethod
    def _work(batches: int, slow: int) -> float:
        """Batches as time, in units of one; all after the first `slow` ones run the head alone."""
        if not slow:
            return batches
        return min(batches, slow) + max(batches - slow, 0) / _HEAD_IS_FASTER


def search_text(learn: "Learner", done: int, n_steps: int, started: float) -> str:
    """How far a search is that began at `started` on the monotonic clock, in one line."""
    left = (monotonic() - started) * (n_steps / max(done, 1) - 1)
    text = f"{learn.run_name}: step {done} of {n_steps}, {minutes(left)} left at most"
    return text + _kept(learn.recorder.run)


def _kept(run: Run) -> str:
    """Short, as it stands on a line that is written over; the report says it in full."""
    return "" if run.body_epochs is None else ", features kept"
