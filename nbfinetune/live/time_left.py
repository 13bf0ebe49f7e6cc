"""Time left: how far a run or a search is, and how long it will take, in one line."""

from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from math import inf, sqrt
from time import monotonic
from typing import TYPE_CHECKING

from nbfinetune.history.runs import Run
from nbfinetune.rendering.numbers import minutes

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

_HEAD_IS_FASTER = 50  # times, than body and head (48 to 144 measured)
_FACTOR = 2  # within which a time must be known to be said
_LEAST, _NEWEST = 3, 50  # batches that a mean is of
_ERROR = 0.25  # of a mean, at most: four standard errors are a factor of 2

_Kind = tuple[bool, bool]  # whether a batch trains, and whether it runs the body


class TimeLeft:
    """How far a stage is, how long it will take, and how many pictures a second it does.

    The time left is said once it is known within a factor of two, and only by measured speeds.
    There are four kinds of batches: of training or validation, through the whole network or with
    features that are kept. What one of a kind takes is known when at least three of them, the first
    not counted (it starts workers and takes memory), have a mean with a standard error of a quarter
    at most. Until then it takes something between nothing and the most that a known kind does which
    runs the body too, or does not; at most what one does that runs the body, if it does not itself.
    So the batches still to come take from `low` to `high` seconds; the middle is said if `high` is
    at most twice `low`.
    """

    def start(self, learn: "Learner") -> None:
        """The stage begins."""
        self._started = self._ticked = monotonic()
        self._batches, self._pictures = 0, 0.0
        self._first = learn.epoch
        self._times: dict[_Kind, deque[float]] = defaultdict(lambda: deque(maxlen=_NEWEST))
        self._seen: set[_Kind] = set()

    def tick(self, learn: "Learner") -> None:
        """A batch is done."""
        loader = learn.dls.train if learn.training else learn.dls.valid
        self._batches += 1
        with suppress(TypeError):  # a data set without a length
            self._pictures += len(getattr(loader, "dataset", ())) / len(loader)
        runs_body = learn.recorder.run.body_epochs is None or learn.features.computing is not None
        kind, now = (learn.training, runs_body), monotonic() - learn.control.waited
        if kind in self._seen:
            self._times[kind].append(now - self._ticked)
        self._seen.add(kind)
        self._ticked = now

    def how_far(self, learn: "Learner") -> tuple[float, str]:
        """Share of the stage's batches done, and that with the time left as a line."""
        run, per_epoch = learn.recorder.run, learn.n_iter + len(learn.dls.valid)
        slow = learn.n_epoch - self._first if run.body_epochs is None else run.body_epochs
        total = self._work(per_epoch * (learn.n_epoch - self._first), slow * per_epoch)
        done = min(self._work(self._batches, slow * per_epoch) / total, 1.0)
        if learn.features.computing:
            return done, _features_text(learn)
        stage = run.stage
        where = f"{stage and stage + ': '}epoch {learn.epoch + 1} of {learn.n_epoch}"
        if not done:
            return done, where
        text = f"{where}, {done:.0%}"
        if (left := self._seconds_left(learn)) is not None:
            text += f", {minutes(left)} left"
        if self._pictures:
            seconds = max(monotonic() - self._started - learn.control.waited, 1e-9)
            text += f", {self._pictures / seconds:.0f} pictures/s"
        return done, text + _kept(run)

    @staticmethod
    def _work(batches: int, slow: int) -> float:
        """Batches as time, in units of one; all after the first `slow` ones run the head alone."""
        if not slow:
            return batches
        return min(batches, slow) + max(batches - slow, 0) / _HEAD_IS_FASTER

    def _seconds_left(self, learn: "Learner") -> float | None:
        """None where it is not known within a factor of two."""
        known = {kind: mean for kind, t in self._times.items() if (mean := _known_mean(t))}
        low = high = 0.0
        for kind, n in self._to_come(learn).items():
            alike = [mean for (_, runs_body), mean in known.items() if runs_body == kind[1]]
            most = max(alike or ([inf] if kind[1] else known.values()), default=inf)
            low += n * known.get(kind, 0.0)
            high += n * known.get(kind, most) if n else 0.0
        return (low + high) / 2 if high <= _FACTOR * low else None

    def _to_come(self, learn: "Learner") -> dict[_Kind, int]:
        """How many batches of each kind are to come."""
        n_valid, body_epochs = len(learn.dls.valid), learn.recorder.run.body_epochs
        to_come: dict[_Kind, int] = defaultdict(int)
        for epoch in range(learn.epoch, learn.n_epoch):
            runs_body = body_epochs is None or epoch - self._first < body_epochs
            to_come[True, runs_body] += learn.n_iter
            to_come[False, runs_body] += n_valid
        done = self._batches - (learn.epoch - self._first) * (learn.n_iter + n_valid)
        runs_body = body_epochs is None or learn.epoch - self._first < body_epochs
        if learn.control.finishing:
            first, n_steps, _ = learn.control.finishing
            left = max(first + n_steps - len(learn.recorder.run.lrs), 0)
            return {(True, runs_body): left, (False, runs_body): n_valid}
        to_come[True, runs_body] -= min(done, learn.n_iter)
        to_come[False, runs_body] -= max(done - learn.n_iter, 0)
        return to_come


def _known_mean(times: Sequence[float]) -> float | None:
    """The mean of some times, None where it is not known well enough."""
    n = len(times)
    if n < _LEAST:
        return None
    mean = sum(times) / n
    deviation = sqrt(sum((t - mean) ** 2 for t in times) / (n - 1))
    return mean if deviation / sqrt(n) <= _ERROR * mean else None


def search_text(learn: "Learner", done: int, n_steps: int) -> str:
    """How far a search is, in one line; the time left is that of its steps, once it is known.

    It is known as that of a run (see `TimeLeft`), by the steps that have their features.
    """
    if learn.features.computing:
        return _features_text(learn)
    run = learn.recorder.run
    text = f"{learn.run_name}: step {done} of {n_steps}"
    alike = run.seconds[(run.body_epochs or 0) * run.n_iter :][-_NEWEST:]
    mean = _known_mean([end - start for start, end in pairwise(alike)])
    if mean is not None:
        text += f", {minutes(mean * (n_steps - done))} left at most"
    return text + _kept(run)


def _features_text(learn: "Learner") -> str:
    done, n = learn.features.computing
    return f"features: picture {done} of {n}" + ("" if learn.training else " held out")


def _kept(run: Run) -> str:
    """Short, as it stands on a line that is written over; the report says it in full."""
    return "" if run.body_epochs is None else ", features kept"
