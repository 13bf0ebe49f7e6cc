"""TrainingPlot: the curves of a run while it goes on, and the buttons that steer it."""

import bqplot
import ipywidgets
import numpy as np
import traitlets

from nbfinetune.history.report import TrainingCurves, metric_range
from nbfinetune.rendering.axes import loss_range
from nbfinetune.rendering.tables import Table
from nbfinetune.widgets.scale_slider import ScaleSlider
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status
from nbfinetune.widgets.theme import PAPER, series_colour

_WIDTH = "680px"
_MARGIN = {"top": 12, "bottom": 12, "left": 60, "right": 50}
_LR_MARGIN = {"top": 6, "bottom": 40, "left": 60, "right": 50}
_LATE = 0.8  # share of the steps from which a name would not fit on the right


class TrainingPlot(Screen):
    """Curves, epoch table, progress; Pause, Stop, Finish now and the scale of the rates.

    Parameters
    ----------
    metrics : names of the metrics

    Attributes
    ----------
    request : the newest request, "pause", "resume", "stop" or "finish"; each is sent as an event
        (`observe`), also when it is the same again
    scale : factor on the learning rates
    """

    request = traitlets.Unicode("")
    scale = traitlets.Float(1.0)

    def __init__(self, metrics: list[str]) -> None:
        self._x = bqplot.LinearScale(min=1.0, max=2.0, allow_padding=False)
        self._y = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        self._lr_y = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        self._whole = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        self._share = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        loss, rate = {"x": self._x, "y": self._y}, {"x": self._x, "y": self._lr_y}
        blue, orange = series_colour(0), series_colour(1)
        self._raw = bqplot.Scatter(
            x=[], y=[], scales=loss, colors=[blue], opacities=[0.3], default_size=10
        )
        self._smooth = self._named("train_loss", loss, blue)
        self._valid = self._named("valid_loss", loss, orange, marker="square")
        self._metrics = {
            name: self._named(
                name,
                {"x": self._x, "y": self._share},
                series_colour(k),
                marker="square",
                line_style="dashed",
            )
            for k, name in enumerate(metrics, 2)
        }
        self._lrs = bqplot.Lines(x=[], y=[], scales=rate, colors=[blue], stroke_width=2)
        self._planned = bqplot.Lines(
            x=[], y=[], scales=rate, colors=[blue], stroke_width=2, line_style="dotted"
        )
        self._marked: list[tuple[int, str]] = []
        self._marks: list[bqplot.Mark] = []
        axes = [
            bqplot.Axis(scale=self._y, side="left", label="loss", label_offset="44px",
                        num_ticks=5, grid_lines="none"),
            bqplot.Axis(scale=self._x, num_ticks=0, grid_lines="none"),
        ]  # fmt: skip
        if metrics:
            axes.append(
                bqplot.Axis(scale=self._share, side="right", label="metrics",
                            label_offset="34px", num_ticks=3, grid_lines="none")
            )  # fmt: skip
        self._figure = bqplot.Figure(
            marks=[self._raw, self._smooth, self._valid, *self._metrics.values()],
            axes=axes, fig_margin=_MARGIN, animation_duration=0, legend_location="top-right",
            legend_style={"stroke-width": 0}, layout=_size(260),
            background_style=PAPER,
        )  # fmt: skip
        self._lr_figure = bqplot.Figure(
            marks=[self._lrs, self._planned],
            axes=[
                bqplot.Axis(scale=self._lr_y, side="left", label="lr", label_offset="50px",
                            num_ticks=3, tick_format=".0e", grid_lines="none"),
                bqplot.Axis(scale=self._x, label="step", num_ticks=6, tick_format="d",
                            grid_lines="none"),
            ],
            fig_margin=_LR_MARGIN, animation_duration=0, layout=_size(130),
            background_style=PAPER,
        )  # fmt: skip
        for figure in (self._figure, self._lr_figure):
            figure.add_class("nbft-plot")
        self._pause = _button("Pause", "pause", "Wait after the batch at hand")
        self._stop = _button("Stop", "stop", "End after the batch at hand")
        self._finish = _button("Finish now", "flag-checkered", "Anneal the rate, validate and end")
        self._slider = ScaleSlider()
        self._bar = ipywidgets.FloatProgress(0.0, min=0.0, max=1.0, layout={"width": "160px"})
        self._done = ipywidgets.Label("")
        self._table = ipywidgets.HTML()
        self.status = Status()
        super().__init__(
            [
                ipywidgets.HBox([self._pause, self._stop, self._finish, self._slider]),
                self._figure,
                self._lr_figure,
                ipywidgets.HBox([self._bar, self._done]),
                self._table,
                self.status,
            ]
        )
        self.add_class("nbft-training")
        self._pause.on_click(lambda _: self._ask("resume" if self.paused else "pause"))
        self._stop.on_click(lambda _: self._ask("stop"))
        self._finish.on_click(lambda _: self._ask("finish"))
        traitlets.link((self._slider, "value"), (self, "scale"))

    def _named(self, name: str, scales: dict, colour: str, **kwargs) -> bqplot.Lines:
        return bqplot.Lines(
            x=[], y=[], scales=scales, colors=[colour], stroke_width=2, labels=[name],
            display_legend=True, **kwargs,
        )  # fmt: skip

    @property
    def paused(self) -> bool:
        """Whether the button says Resume."""
        return self._pause.description == "Resume"

    def _ask(self, what: str) -> None:
        if what in ("pause", "resume"):
            self.show_paused(what == "pause")
        if what in ("stop", "finish"):
            self.show_paused(False)
            self._stop.disabled = self._finish.disabled = what == "stop"
        self.request = ""  # the same request twice is two events
        self.request = what

    def show_paused(self, paused: bool) -> None:
        """Turn the button into Resume, or back."""
        self._pause.description = "Resume" if paused else "Pause"
        self._pause.icon = "play" if paused else "pause"

    def draw(self, curves: TrainingCurves) -> None:
        """Show the curves so far."""
        x, y = curves.losses
        if not len(y):
            return
        low, high = loss_range([y, curves.valid[1]])
        self._share.min, self._share.max = metric_range(curves)
        rates = [*curves.lrs[1], *curves.planned[1]]
        marks = [self._raw, self._smooth, self._valid, *self._metrics.values()]
        lines = [curves.losses, curves.smooth, curves.valid, *curves.metrics.values()]
        top = [high] * 3 + [self._share.max] * len(self._metrics)
        self._x.max = float(max(x[-1], *curves.planned[0], 2))
        self._y.min, self._y.max = low, high
        self._lr_y.max = max(rates) * 1.05 or 1.0
        for mark, (xs, ys), most in zip(marks, lines, top, strict=True):
            _set(mark, xs, np.minimum(ys, most))
        _set(self._lrs, *curves.lrs)
        _set(self._planned, *curves.planned)
        self._mark_steps([*curves.borders[1:], *curves.events])

    def _mark_steps(self, steps: list[tuple[int, str]]) -> None:
        """Vertical lines with names: stages, and what was done by hand."""
        if steps == self._marked:
            return
        kept = [mark for mark in self._figure.marks if mark not in self._marks]
        for mark in self._marks:
            mark.close()
        self._marked, self._marks = list(steps), []
        look = {"scales": {"x": self._x, "y": self._whole}, "colors": [series_colour(4)]}
        for k, (at, name) in enumerate(steps):
            row = 0.96 - 0.07 * (k % 12)
            # Near the right edge the name is on the left: there it is not cut.
            side = {"align": "end", "x_offset": -4} if at > _LATE * self._x.max else {"x_offset": 4}
            self._marks += [
                bqplot.Lines(x=[at, at], y=[0, 1], line_style="dashed", stroke_width=1, **look),
                bqplot.Label(x=[at], y=[row], text=[name], default_size=12, **side, **look),
            ]
        self._figure.marks = kept + self._marks

    @property
    def n_bytes(self) -> int:
        """What a draw sends, about: two float32 a point, and the table."""
        lines = (self._raw, self._smooth, self._lrs, self._planned, self._valid)
        return 8 * sum(len(m.x) for m in (*lines, *self._metrics.values())) + len(self._table.value)

    def progress(self, done: float, text: str) -> None:
        """How far the run is, in [0, 1], and in words."""
        self._bar.value, self._done.value = done, text

    def rows(self, table: Table, text: str) -> None:
        """Show the epochs done, and speak `text`."""
        # The class gives it the look of a table in JupyterLab's outputs.
        look = 'class="jp-RenderedHTMLCommon" style="line-height:1.4"'
        self._table.value = f"<div {look}>{table._repr_html_()}</div>"
        self.status.text = text


def _button(name: str, icon: str, tooltip: str) -> ipywidgets.Button:
    return ipywidgets.Button(description=name, icon=icon, tooltip=tooltip, layout={"width": "auto"})


def _size(height: int) -> ipywidgets.Layout:
    return ipywidgets.Layout(width=_WIDTH, height=f"{height}px", min_width=_WIDTH)


def _set(mark: bqplot.Mark, x: object, y: object) -> None:
    """Both coordinates in one message; in-place changes would not be sent."""
    if len(y) or len(mark.y):
        with mark.hold_sync():
            mark.x, mark.y = np.asarray(x, np.float32), np.asarray(y, np.float32)
