"""Live screens: callbacks that feed the plots from a run, and their buttons to its control."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING

import ipywidgets

from nbfinetune.history.report import TrainingReport, epoch_table
from nbfinetune.history.runs import Run
from nbfinetune.live.displayed import Displayed
from nbfinetune.live.event_pump import EventPump
from nbfinetune.live.progress import InferenceProgress, Line
from nbfinetune.live.time_left import TimeLeft, search_text
from nbfinetune.lr_finder.results import LRFindResult, SearchReport
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.runtime.cpu_contention import contention_text
from nbfinetune.runtime.interrupts import act_on_interrupt
from nbfinetune.training.control import RunControl
from nbfinetune.training.printing import say, stages_so_far
from nbfinetune.training.state import Callback
from nbfinetune.training.steering import rates_to_come
from nbfinetune.widgets.disposal import dispose, is_open
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status

if TYPE_CHECKING:
    from nbfinetune.learner import Learner
    from nbfinetune.widgets.lr_plot import LRPlot
    from nbfinetune.widgets.training_plot import TrainingPlot

_INTERVAL = 0.5  # seconds between two draws, at least
_PLANNED = 60  # points of the schedule to come
_BYTES_A_SECOND = 15_000  # so much may be sent: 0.9 MB a minute
_SHARE = 600  # a draw waits so many times its CPU time: threads that send take time too
_PATIENCE = 1.0  # seconds in which inference needs no progress
_RENDER_TIMEOUT = 2.0  # seconds in which a front end that shows widgets has answered


@contextmanager
def pumping_events(learn: "Learner") -> Iterator[EventPump]:
    """Clicks reach the learner's control while the body runs."""
    with EventPump() as pump:
        learn.control.poll = pump.poll
        try:
            yield pump
        finally:
            learn.control.tell_nobody()


class Throttle:
    """Says when to draw again."""

    def __init__(self) -> None:
        self._next = 0.0

    @contextmanager
    def drawing(self, n_bytes: Callable[[], int]) -> Iterator[None]:
        started = time.thread_time()  # on a busy machine the clock tells of others
        yield
        cost = time.thread_time() - started
        sending = n_bytes() / _BYTES_A_SECOND
        self._next = time.monotonic() + max(_INTERVAL, _SHARE * cost, sending)

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next


def unless_closed(show: Callable) -> Callable:
    """Lets a method of a screen do nothing once its widgets were closed; no run ends by that.

    Anyone may close them, in part and from any thread: `Widget.close_all()`.
    """

    @wraps(show)
    def call(self: "LiveTraining | LiveSearch | LiveInference", *args: object) -> None:
        if self.plot is not None and self.plot.comm is None:
            return
        try:
            show(self, *args)
        except Exception:
            if self.plot is None or is_open(self.plot):
                raise
            self.plot.close()

    return call


class LiveTraining(Callback):
    """Feeds a `TrainingPlot` with the stages of one call; its requests go to `learn.control`.

    Attributes
    ----------
    hint : said until the first epoch is done
    """

    runs_on = "console"

    def __init__(self) -> None:
        self.hint = ""
        self.plot: TrainingPlot | None = None
        self.runs: list[Run] = []
        self._clock, self._time_left, self._rows_shown = Throttle(), TimeLeft(), None

    @property
    def began(self) -> bool:
        """Whether a run got so far that it was shown."""
        return bool(self.runs)

    def before_fit(self, learn: "Learner") -> None:
        self.runs += stages_so_far(learn, self.runs)
        if self.plot is None:
            say(learn.rate_note)
            self.hint = ". ".join(filter(None, [self.hint, contention_text(learn.device)]))
            self._open(learn)
        learn.control.on_pause = self._show_paused
        self._time_left.start(learn)
        self._begin(learn)

    @unless_closed
    def _begin(self, learn: "Learner") -> None:
        self.plot.begin()
        self._draw(learn)

    @unless_closed
    def _show_paused(self, paused: bool) -> None:
        self.plot.show_paused(paused)

    def _open(self, learn: "Learner") -> None:
        from nbfinetune.widgets.training_plot import TrainingPlot  # brings bqplot, that pandas

        self.plot, control = (
            TrainingPlot(learn.metric_names, learn.recorder.runs[: -len(self.runs)]),
            learn.control,
        )
        self.plot.observe(lambda change: _obey(control, change["new"]), "request")
        self.plot.observe(lambda change: setattr(control, "scale", change["new"]), "scale")
        self.plot.words = "training; the curves and the table stay when it ends"
        self._displayed = Displayed(self.plot)

    def after_batch(self, learn: "Learner") -> None:
        self._time_left.tick(learn)
        if self._clock.due:
            self._draw(learn)

    def after_part(self, learn: "Learner") -> None:
        if self._clock.due:
            self._draw(learn)

    def after_epoch(self, learn: "Learner") -> None:
        if self._clock.due:  # epochs may be shorter than a draw
            self._draw(learn)

    @unless_closed
    def _draw(self, learn: "Learner") -> None:
        with self._clock.drawing(lambda: self.plot.n_bytes):
            learn.recorder.flush()
            self._draw_rows(learn)
            self.plot.draw(self.runs, rates_to_come(learn, _PLANNED))
            done, text = self._time_left.how_far(learn)
            if self.runs[-1].losses:
                text += f"; train_loss {learn.recorder.train_loss:.4f}"
                text += f", lr {rate_text(self.runs[-1].lrs[-1][-1])}"
            self.plot.progress(done, text)

    def _draw_rows(self, learn: "Learner") -> None:
        run = self.runs[-1]
        drawn = len(self.runs), len(run.rows), id(run.kept)
        if drawn == self._rows_shown:
            return
        self._rows_shown = drawn
        table = epoch_table(self.runs)
        text = ". ".join(filter(None, [f"epoch {learn.epoch + 1} of {learn.n_epoch}", self.hint]))
        if run.rows:
            row = run.rows[-1]
            values = [f"{name} {row[name]:.4f}" for name in table.columns[1:-1]]
            text = f"epoch {row['epoch'] + 1} of {learn.n_epoch}: {', '.join(values)}"
        first, last = run.first_epoch, len(run.rows)
        n_planned = len(table.rows) + run.n_epoch - first - last
        self.plot.rows(table, text, n_planned)

    def after_fit(self, learn: "Learner") -> None:
        learn.control.on_pause = lambda paused: None
        if self.plot is not None:  # not refused before it was shown
            self._draw(learn)
            self._show_ended(learn.status)

    @unless_closed
    def _show_ended(self, how: str) -> None:
        self.plot.show_ended(how)

    def close(self, text: str = "") -> None:
        """Put the picture and the table in the place of the screen, for good."""
        if self.plot is not None:
            self._displayed.end(TrainingReport(self.runs, text))


def _obey(control: RunControl, request: str) -> None:
    if request:
        getattr(control, request)()


class LiveInference(InferenceProgress):
    """The same as a widget with a button that stops the pass; for what takes more than a second."""

    def __init__(self, n_batches: int) -> None:
        super().__init__(n_batches)
        self.plot: Screen | None = None

    @unless_closed
    def show(self, learn: "Learner", text: str) -> None:
        if time.monotonic() - self._started < _PATIENCE:
            return
        if self.plot is None:
            self._label = ipywidgets.Label()
            stop = ipywidgets.Button(description="Stop", icon="stop", layout={"width": "auto"})
            stop.on_click(lambda _: learn.control.stop())
            self.plot = Screen([ipywidgets.HBox([stop, self._label])])
            self.plot.words = "predicting"
            self._displayed = Displayed(self.plot)
        self._label.value = f"predicting: {text}"

    def close(self) -> None:
        if self.plot is not None:
            self._displayed.end(Line(""))


def wait_until_rendered(status: Status, pump: EventPump) -> bool:
    """Whether a front end has shown the screen; True too where that cannot be known."""
    until = time.monotonic() + _RENDER_TIMEOUT
    while pump.works and not status.rendered and time.monotonic() < until:
        time.sleep(0.02)
        pump.poll()
        act_on_interrupt()
    return status.rendered or not pump.works


def keep(
    status: Status, pump: EventPump, stay: Callable, give_way: Callable, report: object
) -> None:
    """`stay` with the report where a front end shows the screen, else `give_way` to it."""
    try:
        rendered = wait_until_rendered(status, pump)
    except KeyboardInterrupt:
        give_way(report)
        raise
    (stay if rendered else give_way)(report)


def show_with_static_view(screen: Screen, report: object, status: Status) -> None:
    """Display a screen that stays, and under it a report of it for the time without a kernel.

    Parameters
    ----------
    status : of the screen; where no front end shows it, the report takes the screen's place
    """
    screen.words = repr(report)
    with EventPump() as pump:
        displayed = Displayed(screen)

        def give_way(report: object) -> None:
            displayed.give_way(report)
            dispose(screen)  # a page that does not show it would keep the data; see `Screen`

        keep(status, pump, displayed.stay, give_way, report)


class LiveSearch(Callback):
    """Feeds an `LRPlot` with the sweeps of one search.

    Parameters
    ----------
    start_lr, end_lr : ends of the axis
    n_steps : training steps of the whole search
    cost : what these are for, said first
    """

    runs_on = "console"

    def __init__(self, start_lr: float, end_lr: float, n_steps: int, cost: str = "") -> None:
        self.start_lr, self.end_lr, self.n_steps, self.cost = start_lr, end_lr, n_steps, cost
        self.plot: LRPlot | None = None
        self.done = 0
        self._clock = Throttle()

    @property
    def began(self) -> bool:
        """Whether the search got so far that it was shown."""
        return self.plot is not None

    def before_fit(self, learn: "Learner") -> None:
        if self.plot is None:
            from nbfinetune.widgets.lr_plot import LRPlot  # brings bqplot, that pandas

            say(self.cost)
            self.plot = LRPlot(self.start_lr, self.end_lr)
            self.plot.words = "searching for a learning rate; what it finds stays when it ends"
            self._displayed = Displayed(self.plot)

    @unless_closed
    def after_part(self, learn: "Learner") -> None:
        if self._clock.due:
            with self._clock.drawing(lambda: self.plot.n_bytes):
                self.plot.progress(search_text(learn, self.done, self.n_steps))

    def after_batch(self, learn: "Learner") -> None:
        self.done += learn.training
        if self._clock.due:
            self._draw(learn)

    @unless_closed
    def _draw(self, learn: "Learner") -> None:
        with self._clock.drawing(lambda: self.plot.n_bytes):
            learn.recorder.flush()
            run = learn.recorder.run
            if run.name == "lr_find":  # short runs have no curve of rates
                self.plot.draw([step[-1] for step in run.lrs], run.losses, run.smooth)
            self.plot.progress(search_text(learn, self.done, self.n_steps))

    def show(
        self,
        found: LRFindResult,
        lr: float,
        how: str,
        pump: EventPump,
        on_pick: Callable[[float], str],
    ) -> None:
        """Show what was found, and the marker at `lr`. The static view is displayed below.

        Where no front end answers, it takes the place of the plot.

        Parameters
        ----------
        how : where `lr` comes from
        on_pick : gets each rate that the marker is moved to; says why, if it is not used
        """
        self._found = found
        line = f"next run: {rate_text(lr)} ({how})"
        if not is_open(self.plot):
            self._end(SearchReport(found, line))
            return
        self.plot.draw(found.lrs, found.losses, found.centred)
        usable = (found.low, found.high) if found.low is not None else None
        band = (found.lrs[: len(found.band[0])], *found.band) if found.band else None
        self.plot.lr_mult = found.lr_mult if found.lr is not None else 1.0
        self.plot.finish(found.marks, usable, band, lr, how, found.verdict)
        self.plot.observe(lambda change: self._picked(on_pick(change["new"])), "lr")
        line = f"next run: {self.plot.rate} ({how})"
        self.plot.words = repr(SearchReport(found, line))
        report = SearchReport(found, line)
        keep(self.plot.status, pump, self._displayed.stay, self._end, report)

    def _picked(self, problem: str) -> None:
        if problem:
            self.plot.status.text = problem

    def retire(self) -> None:
        """Leave the static view: the marker of an older search would no longer choose the rate."""
        if self.plot is not None and self.plot.comm is not None:
            self._end(Line(repr(self._found)))

    def close(self, text: str) -> None:
        """Put a line in the place of a search that did not end, if it began."""
        if self.plot is not None:
            self._end(Line(text))

    def _end(self, instead: object) -> None:
        self._displayed.end(instead)
