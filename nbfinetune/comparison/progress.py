"""Progress: how far a comparison is, how long it will take, and who is told."""

import sys
from time import monotonic
from typing import TYPE_CHECKING

from nbfinetune.comparison.plan import Plan
from nbfinetune.learner import Learner
from nbfinetune.rendering.numbers import minutes
from nbfinetune.training.state import Callback

if TYPE_CHECKING:
    from nbfinetune.comparison.results import NetworkComparison

_INTERVAL = 0.25  # seconds between two lines of a terminal


class ComparisonScreen:
    """Is told how far a comparison is; this one shows nothing.

    Attributes
    ----------
    stopping : whether it is to end with what it has
    found : what is done by now, None before the first network is
    """

    stopping = False
    found: "NetworkComparison | None" = None

    def before_batch(self, learn: Learner) -> None:
        """A network is about to be run on some pictures; `learn.control` takes requests."""

    def show(self, done: float, text: str) -> None:
        """A share of all is done; `text` says at what it is, and the time left."""

    def add(self, comparison: "NetworkComparison") -> None:
        """One more network is done."""
        self.found = comparison


class PrintedComparison(ComparisonScreen):
    """Prints a line for each network that is done, and in a terminal how far the next one is."""

    def __init__(self) -> None:
        self._shown = 0.0

    def show(self, done: float, text: str) -> None:
        if sys.stdout.isatty() and monotonic() - self._shown > _INTERVAL:
            self._shown = monotonic()
            print(f"\r\x1b[K{text}", end="", flush=True)

    def add(self, comparison: "NetworkComparison") -> None:
        super().add(comparison)
        start = "\r\x1b[K" if sys.stdout.isatty() else ""
        print(f"{start}{comparison.newest}", flush=True)


class Progress(Callback):
    """Follows a comparison batch by batch, and tells a screen.

    A network takes time by the area of its pictures; one that was not run yet is taken to need the
    mean of those that were.
    """

    runs_on = "console"

    def __init__(self, plan: Plan, screen: ComparisonScreen) -> None:
        self._screen, self._to_come = screen, plan.jobs
        self._n_jobs, self._began = len(plan.jobs), monotonic()
        self._rates: dict[str, float] = {}  # of a network: seconds for a pixel of all pictures

    def begin(self, name: str, size: int) -> None:
        """A network is next."""
        self._to_come = self._to_come[self._to_come.index((name, size)) + 1 :]
        self._at, self._share, self._started = (name, size), 0.0, monotonic()
        self._show()

    def lose(self, name: str) -> None:
        """A network will not be run at any size."""
        self._to_come = [job for job in self._to_come if job[0] != name]

    def end(self) -> None:
        """The network is done."""
        name, size = self._at
        self._rates[name] = (monotonic() - self._started) / size**2

    def before_batch(self, learn: Learner) -> None:
        self._screen.before_batch(learn)

    def after_part(self, learn: Learner) -> None:
        self._show()

    def after_batch(self, learn: Learner) -> None:
        self._share = (learn.iter + 1) / len(learn.dls.train)
        self._show()

    def _show(self) -> None:
        (name, size), passed = self._at, monotonic() - self._began
        number = self._n_jobs - len(self._to_come)
        text = f"{name} at {size} px, {number} of {self._n_jobs}"
        left = self._seconds_left()
        if left is None:
            self._screen.show(0.0, text)
        else:
            self._screen.show(passed / (passed + left), f"{text}, {minutes(left)} left")

    def _seconds_left(self) -> float | None:
        """None while no network is known."""
        (name, size), rates = self._at, dict(self._rates)
        spent = monotonic() - self._started
        if name not in rates and self._share:
            rates[name] = spent / self._share / size**2
        if not rates:
            return None
        mean = sum(rates.values()) / len(rates)
        here = max(rates.get(name, mean) * size**2 - spent, 0.0)
        return here + sum(rates.get(name, mean) * px**2 for name, px in self._to_come)
