"""TrainingPlot: the screen of a run while it goes on: what steers it, its curves and its epochs."""

from collections.abc import Sequence

import ipywidgets
import traitlets

from nbfinetune.history.report import Line
from nbfinetune.history.runs import Run
from nbfinetune.rendering.tables import Table
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status
from nbfinetune.widgets.training.run_buttons import RunButtons
from nbfinetune.widgets.training.scale_slider import ScaleSlider
from nbfinetune.widgets.training.training_figure import TrainingFigure

_ROWS = 10  # of the table; of more epochs the newest are shown
_ROW = 22  # px


class TrainingPlot(Screen):
    """Curves, epoch table, progress; Pause, Stop, Finish now and the scale of the rates.

    Parameters
    ----------
    metrics : names of the metrics
    earlier : runs of earlier calls, which can be laid under
    steers_rates : whether the run can scale its rates, and finish at once

    Attributes
    ----------
    request : the newest request, "pause", "resume", "stop" or "finish"; each is sent as an event
        (`observe`), also when it is the same again
    scale : factor on the learning rates
    """

    request = traitlets.Unicode("")
    scale = traitlets.Float(1.0)

    def __init__(
        self, metrics: Sequence[str], earlier: Sequence[Run] = (), *, steers_rates: bool = True
    ) -> None:
        self.buttons, self._slider = RunButtons(self._ask, finishes=steers_rates), ScaleSlider()
        self.figure = TrainingFigure(metrics, earlier)
        self._bar = ipywidgets.FloatProgress(0.0, min=0.0, max=1.0)
        self._done = ipywidgets.Label("")
        self._table = ipywidgets.HTML()
        self.status = Status()
        parts = [self.buttons, self._slider] if steers_rates else [self.buttons]
        steering = ipywidgets.Box(parts)
        steering.add_class("nbft-steering")
        self._bar.add_class("nbft-bar-done")
        progress = ipywidgets.Box([self._bar, self._done])
        progress.add_class("nbft-progress")
        self._table.add_class("nbft-epochs")
        both = ipywidgets.Box([self.figure, self._table])
        both.add_class("nbft-side-by-side")
        super().__init__([steering, progress, both, self.status])
        self.add_class("nbft-training")
        traitlets.link((self._slider, "value"), (self, "scale"))

    @property
    def paused(self) -> bool:
        """Whether the run waits."""
        return self.buttons.state == "paused"

    def _ask(self, what: str) -> None:
        if what == "stop":
            self.buttons.show("stopping", "stopping after this batch")
        if what == "finish":
            self.buttons.show("finishing", "finishing: the rate falls, then a last validation")
        self.request = ""  # the same request twice is two events
        self.request = what

    def show_paused(self, paused: bool) -> None:
        """Tell that the run waits, or goes on."""
        if paused:
            self.buttons.show("paused", "paused: nothing runs until Resume")
        elif self.paused:
            self.buttons.show("running")

    def show_ended(self, how: str) -> None:
        """Tell how a stage has ended."""
        self.buttons.show("ended", how)

    def begin(self) -> None:
        """A stage begins: it has a new schedule."""
        self.scale = 1.0
        self.buttons.show("running")

    def draw(self, runs: Sequence[Run], planned: Line = ((), ())) -> None:
        """Show the curves so far, and the rates planned for the steps to come."""
        self.figure.draw(runs, planned)

    @property
    def n_bytes(self) -> int:
        """What a draw sends, about."""
        return self.figure.n_bytes + len(self._table.value)

    def progress(self, done: float, text: str) -> None:
        """How far the run is, in [0, 1], and in words."""
        self._bar.value, self._done.value = done, text

    def rows(self, table: Table, text: str, n_planned: int = 0) -> None:
        """Show the epochs done, and speak `text`.

        Parameters
        ----------
        n_planned : rows of the whole table, for which there is room from the start
        """
        rows = list(table.rows)
        newest = rows[-_ROWS:]
        if left_out := len(rows) - len(newest):
            newest[0] = [f"{left_out + 1} rows above; all of them at the end"]
        html = Table("", table.columns, newest)._repr_html_()
        height = _ROW * (1 + min(max(n_planned, len(rows)), _ROWS))
        self._table.value = f'<div style="min-height:{height}px">{html}</div>'
        self.status.text = text
