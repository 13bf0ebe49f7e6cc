"""Progress: the epoch table of a run, line by line while it trains, as text or as HTML."""

import sys
from dataclasses import dataclass
from html import escape
from time import monotonic
from typing import TYPE_CHECKING

from IPython.display import display

from nbfinetune.callbacks import Callback
from nbfinetune.reports import Table

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

_INTERVAL = 0.25  # seconds between two updates of the time left
_WIDTH = 10  # of a column in a terminal, at least


@dataclass(frozen=True)
class _Live:
    """The table so far, and under it how far the run is."""

    table: Table
    done: float | None
    text: str

    def __repr__(self) -> str:
        return "\n".join(part for part in (repr(self.table), self.text) if part)

    def _repr_html_(self) -> str:
        html = self.table._repr_html_()
        bar = ""
        if self.done is not None:
            bar = f'<progress value="{self.done:.3f}" max="1" aria-label="progress"></progress> '
        return html + (f"<div>{bar}{escape(self.text)}</div>" if self.text else "")


class EpochTable(Callback):
    """Shows epoch, train_loss, valid_loss, metrics and time of each epoch, and the time left.

    One instance shows all stages of a `fine_tune` as one table.

    Parameters
    ----------
    notebook : True updates an HTML table, False prints text; None = whether a kernel runs this

    Examples
    --------
    >>> learn.fine_tune(3, cbs=[EpochTable()])  # doctest: +SKIP
    """

    def __init__(self, notebook: bool | None = None) -> None:
        self.notebook = _kernel_runs() if notebook is None else notebook
        self.rows: list[list[str]] = []
        self.columns: list[str] = []
        self._handle = None

    @property
    def began(self) -> bool:
        """Whether a run got so far that it was shown."""
        return bool(self.columns)

    def before_fit(self, learn: "Learner") -> None:
        self._started, self._shown, self._batches = monotonic(), 0.0, 0
        self._first = learn.epoch
        if not self.columns:
            self.columns = list(learn.recorder.run.names)
            self._print(self.columns)
        stage = learn.run_name.partition(": ")[2]
        if stage:
            self._add([f"{stage}, {learn.n_epoch} epochs"])
        self._show(learn)

    def after_batch(self, learn: "Learner") -> None:
        self._batches += 1
        if monotonic() - self._shown >= _INTERVAL:
            self._show(learn)

    def after_epoch(self, learn: "Learner") -> None:
        row = learn.recorder.run.rows[-1]
        self._add([format_value(name, row[name]) for name in self.columns])
        self._show(learn)

    def after_fit(self, learn: "Learner") -> None:
        if not self.began:
            return  # refused before it began
        # Errors and interrupts speak for themselves under the table.
        text = ended_text(learn) if learn.status == "stopped" else ""
        if self.notebook:
            self._draw(_Live(self._table(), None, text))
        elif sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="\n" if text else "", flush=True)

    def _add(self, row: list[str]) -> None:
        self.rows.append(row)
        self._print(row)

    def _table(self) -> Table:
        return Table("", self.columns, self.rows)

    def _show(self, learn: "Learner") -> None:
        self._shown = monotonic()
        done, text = self._how_far(learn)
        if self.notebook:
            self._draw(_Live(self._table(), done, text))
        elif sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="", flush=True)

    def _how_far(self, learn: "Learner") -> tuple[float, str]:
        """Share of the stage's batches done, and that with the time left as a line."""
        per_epoch = learn.n_iter + len(learn.dls.valid)
        total = per_epoch * (learn.n_epoch - self._first)
        done = min(self._batches / total, 1.0)
        stage = learn.run_name.partition(": ")[2]
        where = f"{stage and stage + ': '}epoch {learn.epoch + 1} of {learn.n_epoch}"
        if not done:
            return done, where
        left = (monotonic() - self._started) * (1 - done) / done
        return done, f"{where}, {done:.0%}, {minutes(left)} left"

    def _draw(self, live: _Live) -> None:
        if self._handle is None:
            self._handle = display(live, display_id=True)
        else:
            self._handle.update(live)

    def _print(self, row: list[str]) -> None:
        if self.notebook:
            return
        widths = [max(_WIDTH, len(name)) for name in self.columns]
        cells = row if len(row) == 1 else map(str.rjust, row, widths)
        start = "\r\x1b[K" if sys.stdout.isatty() else ""
        print(start + "  ".join(cells), flush=True)


@dataclass(frozen=True)
class _Line:
    """A line of text that a notebook can replace."""

    text: str

    def __repr__(self) -> str:
        return self.text


class SearchProgress(Callback):
    """Shows how far a search of `num_it` steps is in one line, which `end` replaces.

    Parameters
    ----------
    num_it : steps of the search
    notebook : as in `EpochTable`
    """

    def __init__(self, num_it: int, notebook: bool | None = None) -> None:
        self.num_it = num_it
        self.notebook = _kernel_runs() if notebook is None else notebook
        self._handle = None
        self.began = False

    def before_fit(self, learn: "Learner") -> None:
        self.began = True
        self._started = self._shown = monotonic()

    def after_batch(self, learn: "Learner") -> None:
        if monotonic() - self._shown < _INTERVAL:
            return
        self._shown = monotonic()
        done = len(learn.recorder.run.lrs)
        left = (monotonic() - self._started) * (self.num_it / done - 1)
        self._show(f"step {done} of {self.num_it}, {minutes(left)} left at most")

    def _show(self, text: str) -> None:
        if not self.notebook:
            if sys.stdout.isatty():
                print(f"\r\x1b[K{text}", end="", flush=True)
        elif self._handle is None:
            self._handle = display(_Line(text), display_id=True)
        else:
            self._handle.update(_Line(text))

    def end(self, text: str) -> None:
        """Show the last line."""
        self._show(text)
        if not self.notebook:
            print("" if sys.stdout.isatty() else text, flush=True)


def _kernel_runs() -> bool:
    if "ipykernel" not in sys.modules:
        return False
    from ipykernel.kernelapp import IPKernelApp

    return IPKernelApp.initialized()


def minutes(seconds: float) -> str:
    """Seconds as mm:ss, as fastai shows time."""
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"


def format_value(name: str, value: float) -> str:
    """A value of a row as the table shows it: fastai's six decimals, epochs whole, time mm:ss."""
    if name == "time":
        return minutes(value)
    return str(value) if name == "epoch" else f"{value:.6f}"


def ended_text(learn: "Learner") -> str:
    """How a run ended that did not go on to its end, in one line."""
    steps = len(learn.recorder.run.lrs)
    where = f"in epoch {learn.epoch + 1} of {learn.n_epoch} after {steps} steps"
    last = "; the weights are those of the last step" if learn.status == "interrupted" else ""
    return f"{learn.status} {where}{last}"
