"""Progress: the epoch table of a run, line by line while it trains, as text or as HTML."""

import os
import sys
from dataclasses import dataclass
from html import escape
from time import monotonic
from typing import TYPE_CHECKING

from IPython.display import display

from nbfinetune.history.report import (
    TrainingReport,
    epoch_table,
    minutes,
)
from nbfinetune.live.time_left import TimeLeft, search_text
from nbfinetune.lr_finder.results import LRFindComparison, LRFindResult, SearchReport
from nbfinetune.rendering.tables import Table
from nbfinetune.training.printing import PrintedTable, say, stopped_text
from nbfinetune.training.state import Callback

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

_INTERVAL = 0.25  # seconds between two updates of the time left


@dataclass(frozen=True)
class _Live:
    """The table so far, and under it how far the run is."""

    table: Table
    done: float
    text: str

    def __repr__(self) -> str:
        return f"{self.table!r}\n{self.text}"

    def _repr_html_(self) -> str:
        html = self.table._repr_html_()
        bar = f'<progress value="{self.done:.3f}" max="1" aria-label="progress"></progress>'
        return f"{html}<div>{bar} {escape(self.text)}</div>"


class EpochTable(PrintedTable):
    """Shows epoch, train_loss, valid_loss, metrics and time of each epoch, and the time left.

    One instance shows all stages of a `fine_tune` as one table. A run that is given one has no
    other screen.

    Parameters
    ----------
    notebook : True updates an HTML table, False prints text; None = whether a kernel runs this

    Examples
    --------
    >>> learn.fine_tune(3, cbs=[EpochTable()])  # doctest: +SKIP
    """

    def __init__(self, notebook: bool | None = None) -> None:
        super().__init__()
        self.notebook = kernel_runs() if notebook is None else notebook
        self._handle, self._time_left, self._said = None, TimeLeft(), ""

    def before_fit(self, learn: "Learner") -> None:
        self._shown = 0.0
        self._time_left.start(learn)
        if self.notebook and not self.began:
            say(learn.rate_note)
        super().before_fit(learn)
        self._show(learn)

    def after_batch(self, learn: "Learner") -> None:
        self._time_left.tick(learn)
        if monotonic() - self._shown >= _INTERVAL:
            self._show(learn)

    def after_part(self, learn: "Learner") -> None:
        if monotonic() - self._shown >= _INTERVAL:
            self._show(learn)

    def after_epoch(self, learn: "Learner") -> None:
        super().after_epoch(learn)
        self._show(learn)

    def after_fit(self, learn: "Learner") -> None:
        if not self.began:
            return  # refused before it began
        # Errors and interrupts speak for themselves under the table.
        text = self._said = stopped_text(learn) if learn.status == "stopped" else ""
        if self.notebook and not static():
            self._draw(TrainingReport(self.runs, text))
        elif sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="\n" if text else "", flush=True)

    def close(self, text: str = "") -> None:
        """Show how all of it ended, if that was not said yet."""
        if self.notebook and static() and self.began:
            display(TrainingReport(self.runs, text))
        elif not self.began or text in ("", self._said):
            return
        elif self.notebook:
            self._draw(TrainingReport(self.runs, text))
        else:
            super().close(text)

    def _show(self, learn: "Learner") -> None:
        self._shown = monotonic()
        done, text = self._time_left.how_far(learn)
        if self.notebook and static():
            return
        if self.notebook:
            self._draw(_Live(epoch_table(self.runs), done, text))
        elif sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="", flush=True)

    def _draw(self, live: _Live | TrainingReport) -> None:
        if self._handle is None:
            self._handle = display(live, display_id=True)
        else:
            self._handle.update(live)

    def _print(self, row: list[str]) -> None:
        if self.notebook:
            return
        if sys.stdout.isatty():
            print("\r\x1b[K", end="")
        super()._print(row)


@dataclass(frozen=True)
class Line:
    """A line of text that a notebook can replace."""

    text: str

    def __repr__(self) -> str:
        return self.text


class SearchProgress(Callback):
    """Shows how far a search of `n_steps` steps is in one line, which `close` replaces.

    Parameters
    ----------
    n_steps : training steps of all sweeps and short runs of the search
    cost : what these are for, said first
    notebook : as in `EpochTable`
    """

    runs_on = "console"

    def __init__(self, n_steps: int, cost: str = "", notebook: bool | None = None) -> None:
        self.n_steps, self.done, self.cost = n_steps, 0, cost
        self.notebook = kernel_runs() if notebook is None else notebook
        self._handle = None
        self.began = False

    def before_fit(self, learn: "Learner") -> None:
        if not self.began:
            self._shown = 0.0
            say(self.cost)
        self.began = True

    def after_part(self, learn: "Learner") -> None:
        self._look(learn)

    def after_batch(self, learn: "Learner") -> None:
        self.done += learn.training
        self._look(learn)

    def _look(self, learn: "Learner") -> None:
        if monotonic() - self._shown < _INTERVAL:
            return
        self._shown = monotonic()
        if static():
            return
        self._show(Line(search_text(learn, self.done, self.n_steps)))

    def _show(self, shown: "Line | SearchReport") -> None:
        if not self.notebook:
            if sys.stdout.isatty():
                print(f"\r\x1b[K{shown!r}", end="", flush=True)
        elif self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def close(self, text: str, found: LRFindResult | LRFindComparison | None = None) -> None:
        """Show the last line, if the search began; in a notebook with what it found."""
        if not self.began:
            return
        self._show(SearchReport(found, text) if found and self.notebook else Line(text))
        if not self.notebook:
            print("" if sys.stdout.isatty() else text, flush=True)


class InferenceProgress(Callback):
    """Shows how far a pass over some data is, in a line of a terminal that goes away again.

    Parameters
    ----------
    n_batches : of the whole pass, 0 = not known
    """

    runs_on = "console"

    def __init__(self, n_batches: int) -> None:
        self.n_batches, self.began, self._done = n_batches, False, 0

    def before_batch(self, learn: "Learner") -> None:
        if not self.began:
            self.began = True
            self._started = self._shown = monotonic()

    def after_batch(self, learn: "Learner") -> None:
        self._done += 1
        if monotonic() - self._shown >= _INTERVAL:
            self._shown = monotonic()
            text = f"batch {self._done}"
            if self.n_batches:
                left = (self._shown - self._started) * (self.n_batches / self._done - 1)
                text += f" of {self.n_batches}, {minutes(left)} left"
            self.show(learn, text)

    def show(self, learn: "Learner", text: str) -> None:
        """Show the line; only a terminal can take it away again."""
        if sys.stdout.isatty():
            print(f"\r\x1b[Kpredicting: {text}", end="", flush=True)

    def close(self) -> None:
        """The pass is over."""
        if self.began and sys.stdout.isatty():
            print("\r\x1b[K", end="", flush=True)


def static() -> bool:
    """Whether the environment asks for one final output and no updates of it, as nbval needs."""
    return bool(os.environ.get("NBFINETUNE_STATIC"))


def kernel_runs() -> bool:
    """Whether this is a Jupyter kernel."""
    if "ipykernel" not in sys.modules:
        return False
    from ipykernel.kernelapp import IPKernelApp

    return IPKernelApp.initialized()
