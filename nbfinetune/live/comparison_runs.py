"""Comparison runs: networks that a magic compares, with a screen that can stop it."""

from collections.abc import Callable
from time import monotonic

import ipywidgets
from IPython.display import display

from nbfinetune.comparison.comparing import compare
from nbfinetune.comparison.plan import Plan
from nbfinetune.comparison.progress import ComparisonScreen, PrintedComparison
from nbfinetune.comparison.results import NetworkComparison
from nbfinetune.learner import Learner
from nbfinetune.live.cell_errors import Interrupted, refused_in_one_line
from nbfinetune.live.display_hook import DisplayHook
from nbfinetune.live.displayed import Displayed
from nbfinetune.live.event_pump import EventPump
from nbfinetune.live.progress import Line, kernel_runs, static
from nbfinetune.live.screens import unless_closed
from nbfinetune.live.training_runs import shows_widgets
from nbfinetune.runtime.cpu_contention import one_thread_if_busy
from nbfinetune.training.control import RunControl
from nbfinetune.training.printing import say
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status

_INTERVAL = 0.5  # seconds between two draws


class _Terminal(PrintedComparison):
    """The lines of a script, and no more: the shell shows the result."""

    def close(self, instead: object) -> None:
        """Nothing: what is printed stays."""


class _Notebook(ComparisonScreen):
    """What is done by now in the output of a cell; with NBFINETUNE_STATIC once, at the end."""

    def __init__(self) -> None:
        self._handle = None

    def add(self, comparison: NetworkComparison) -> None:
        super().add(comparison)
        if not static():
            self._put(comparison.table())

    def _put(self, shown: object) -> None:
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def close(self, instead: object) -> None:
        """Show what was found."""
        self._put(instead)


class LiveComparison(ComparisonScreen):
    """A table that grows, how far it is, and a button that stops it.

    Parameters
    ----------
    poll : takes in clicks that wait
    """

    def __init__(self, poll: Callable[[], None]) -> None:
        self._poll, self._control, self._shown = poll, RunControl(), 0.0
        stop = ipywidgets.Button(description="Stop", icon="stop", layout={"width": "auto"})
        stop.tooltip = "end with the networks that are done"
        stop.on_click(lambda _: self._stop())
        self._bar = ipywidgets.FloatProgress(max=1.0, layout={"width": "10em"})
        self._label, self._table, self._newest = ipywidgets.Label(), ipywidgets.HTML(), Status()
        self._table.add_class("jp-RenderedHTMLCommon")  # as tables of outputs look there
        line = ipywidgets.HBox([stop, self._bar, self._label])
        self.plot = Screen([line, self._newest, self._table])
        self.plot.words = "comparing networks; what was found stays when it ends"
        self._displayed = Displayed(self.plot)

    def _stop(self) -> None:
        self.stopping = True
        self._control.stop()

    def before_batch(self, learn: Learner) -> None:
        self._control = learn.control
        self._control.poll = self._poll
        if self.stopping:
            self._control.stop()

    @unless_closed
    def show(self, done: float, text: str) -> None:
        if monotonic() - self._shown > _INTERVAL:
            self._shown = monotonic()
            self._bar.value, self._label.value = done, text

    def add(self, comparison: NetworkComparison) -> None:
        super().add(comparison)
        self._draw(comparison)

    @unless_closed
    def _draw(self, comparison: NetworkComparison) -> None:
        self._newest.text = comparison.newest
        self._table.value = comparison.table()._repr_html_()

    def close(self, instead: object) -> None:
        """Put what was found in the place of the screen."""
        self._displayed.end(instead)


def run_comparison(plan: Plan, *, no_widgets: bool, display_hook: DisplayHook) -> NetworkComparison:
    """Do what is planned with a screen; Stop and an interrupt keep on it what is done.

    Parameters
    ----------
    display_hook : gets the result, if it is on the screen already
    """
    with EventPump() as pump, one_thread_if_busy(plan.device) as text:
        say(text)
        screen = _screen(pump.poll, no_widgets)
        try:
            with refused_in_one_line():
                found = compare(plan, screen)
        except KeyboardInterrupt:
            screen.close(screen.found or Line(""))
            n = len(screen.found.networks) if screen.found else 0
            text = f"interrupted after {n} of {len(plan.jobs)}; nothing else was changed"
            raise Interrupted(text) from None
        except BaseException:
            screen.close(screen.found or Line(""))
            raise
        screen.close(found)
    if kernel_runs():
        display_hook.note(found)
    return found


def _screen(poll: Callable[[], None], no_widgets: bool) -> "_Terminal | _Notebook | LiveComparison":
    if not kernel_runs():
        return _Terminal()
    return LiveComparison(poll) if shows_widgets(no_widgets) else _Notebook()
