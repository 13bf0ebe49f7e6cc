"""LRPlot: the curve of a learning rate search, with a marker for the rate of the next run."""

import math
from collections.abc import Mapping, Sequence

import bqplot
import ipywidgets
import numpy as np
import traitlets

from nbfinetune.rendering.downsampling import downsample
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.rendering.svg import loss_range
from nbfinetune.widgets.lr_handle import LRHandle
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status
from nbfinetune.widgets.theme import PAPER, series_colour

_MARGIN = {"top": 16, "bottom": 46, "left": 60, "right": 20}
_POINTS = 400  # of a line on a screen of 600 px
_SIZE = {"width": "680px", "height": "340px", "min_width": "680px"}


class LRPlot(Screen):
    """Streams the losses of a search; then the marker chooses the rate of the next run.

    Parameters
    ----------
    start_lr, end_lr : ends of the axis

    Attributes
    ----------
    lr : the rate of the next run, None before `finish`
    """

    lr = traitlets.Float(None, allow_none=True)

    def __init__(self, start_lr: float, end_lr: float) -> None:
        self._x = bqplot.LogScale(min=start_lr, max=end_lr, allow_padding=False)
        self._y = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        scales = {"x": self._x, "y": self._y}
        blue, green = series_colour(0), series_colour(2)
        self._usable = bqplot.Lines(
            x=[], y=[], scales=scales, fill="bottom", colors=[green], opacities=[0.0],
            fill_opacities=[0.15], fill_colors=[green],
        )  # fmt: skip
        self._band = bqplot.Lines(
            x=[], y=[], scales=scales, fill="between", colors=[blue, blue], opacities=[0.0, 0.0],
            fill_opacities=[0.2], fill_colors=[blue],
        )  # fmt: skip
        self._raw = bqplot.Scatter(
            x=[], y=[], scales=scales, colors=[blue], opacities=[0.35], default_size=14
        )
        self._line = bqplot.Lines(x=[], y=[], scales=scales, colors=[blue], stroke_width=2)
        first, last = math.ceil(math.log10(start_lr)), math.floor(math.log10(end_lr))
        decades = 10.0 ** np.arange(first, last + 1)
        ticks = decades if len(decades) > 1 else np.array([start_lr, end_lr])
        self._figure = bqplot.Figure(
            marks=[self._usable, self._band, self._raw, self._line],
            axes=[
                bqplot.Axis(scale=self._x, label="learning rate", tick_format=".0e",
                            tick_values=ticks, grid_lines="none"),
                bqplot.Axis(scale=self._y, side="left", label="loss", label_offset="44px",
                            num_ticks=5, grid_lines="none"),
            ],
            fig_margin=_MARGIN, layout=_SIZE, animation_duration=0,
            background_style=PAPER,
        )  # fmt: skip
        self._figure.add_class("nbft-plot")
        self._handle = LRHandle(min=start_lr, max=end_lr, margin=_MARGIN)
        over = ipywidgets.Box([self._figure, self._handle], layout=_SIZE)
        over.add_class("nbft-over")
        self._field = ipywidgets.BoundedFloatText(
            min=start_lr, max=end_lr, step=None, description="learning rate",
            style={"description_width": "initial"}, layout={"width": "220px", "display": "none"},
        )  # fmt: skip
        self.status = Status()
        self._how = ""
        self._done = ipywidgets.Label("")
        super().__init__([over, self._done, self._field, self.status])
        self.add_class("nbft-lr-plot")
        self._handle.observe(self._moved, "value")
        self._field.observe(self._moved, "value")
        self.observe(self._chosen, "lr")

    def draw(self, lrs: Sequence[float], losses: Sequence[float], smooth: Sequence[float]) -> None:
        """Show the curve so far."""
        x, y = (np.asarray(v, np.float32) for v in downsample(lrs, losses, _POINTS))
        if not len(y):
            return
        line_x, line_y = (np.asarray(v, np.float32) for v in downsample(lrs, smooth, _POINTS))
        low, high = map(float, loss_range([y]))
        with self._raw.hold_sync(), self._line.hold_sync(), self._y.hold_sync():
            self._raw.x, self._raw.y = x[y <= high], y[y <= high]
            self._line.x, self._line.y = line_x, np.clip(line_y, low, high)
            self._y.min, self._y.max = low, high

    @property
    def n_bytes(self) -> int:
        """What a draw sends, about: two float32 a point."""
        return 8 * (len(self._raw.x) + len(self._line.x))

    def progress(self, text: str) -> None:
        """How far the search is, in words."""
        self._done.value = text

    def finish(
        self,
        marks: Mapping[str, float],
        usable: tuple[float, float] | None,
        band: tuple[Sequence[float], ...] | None,
        lr: float,
        how: str,
        verdict: str,
    ) -> None:
        """Show what was found, and the marker.

        Parameters
        ----------
        marks : suggestions, name -> rate
        usable : the usable range, shaded
        band : rates, lowest and highest losses of several sweeps
        lr : what the next run will use
        how : where it comes from, such as "bracket"
        verdict : what the curve is worth
        """
        low, high = self._y.min, self._y.max
        if usable:
            with self._usable.hold_sync():
                self._usable.x, self._usable.y = np.array(usable), np.array([high, high])
        if band:
            rates, *edges = band
            with self._band.hold_sync():
                self._band.x, self._band.y = np.array(rates), np.clip(edges, low, high)
        self._figure.marks = [*self._figure.marks, *self._ticks(marks, low, high)]
        self._how, self._verdict, self._from = how, verdict, lr
        self._handle.shown, self._field.layout.display = True, ""
        facts = ", ".join(f"{name} {rate_text(rate)}" for name, rate in marks.items())
        between = (
            f"; usable {rate_text(usable[0])} to {rate_text(usable[1])}, shaded" if usable else ""
        )
        self._done.value = facts + between
        self.lr = lr
        self._say()

    def _ticks(self, marks: Mapping[str, float], low: float, high: float) -> list[bqplot.Mark]:
        scales = {"x": self._x, "y": self._y}
        parts: list[bqplot.Mark] = []
        for k, (name, lr) in enumerate(marks.items()):
            colour = series_colour(k + 1)
            at = high - (high - low) * (0.03 + 0.07 * k)
            line = bqplot.Lines(
                x=[lr, lr], y=[low, high], scales=scales, colors=[colour], line_style="dashed"
            )
            text = bqplot.Label(
                x=[lr], y=[at], text=[f"{name} {rate_text(lr)}"], scales=scales, colors=[colour],
                default_size=13, x_offset=5,
            )  # fmt: skip
            parts += [line, text]
        return parts

    def _moved(self, change: traitlets.Bunch) -> None:
        # Before there is a rate the field has a value. A rate that is beyond the axis, or that the
        # field shows rounded, stays what it is.
        if self.lr is not None and change["new"] not in (self._on_axis(self.lr), self._rounded()):
            self.lr = change["new"]

    def _rounded(self) -> float:
        return float(f"{self._on_axis(self.lr):.3g}")

    def _on_axis(self, lr: float) -> float:
        return min(max(lr, self._handle.min), self._handle.max)

    def _chosen(self, change: traitlets.Bunch) -> None:
        self._handle.value = self._on_axis(change["new"])
        self._field.value = self._rounded()
        self._say()

    def _say(self) -> None:
        how = self._how
        if self.lr != self._from:
            how = (
                f"{how}; moved from {rate_text(self._from)}"
                if how
                else f"moved from {rate_text(self._from)}"
            )
        self.status.text = f"next run: {rate_text(self.lr)} ({how}). {self._verdict}"
