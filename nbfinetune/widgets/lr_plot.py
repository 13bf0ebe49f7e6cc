"""LRPlot: the curve of a learning rate search, with a marker for the rate of the next run."""

import math
from collections.abc import Mapping, Sequence

import bqplot
import ipywidgets
import numpy as np
import traitlets

from nbfinetune.rendering.axes import loss_range
from nbfinetune.rendering.downsampling import downsample
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.rendering.ticks import decades, round_ticks
from nbfinetune.widgets.lr_handle import LRHandle
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status
from nbfinetune.widgets.theme import PAPER, series_colour
from nbfinetune.widgets.training.training_figure import show_range

_MARGIN = {"top": 48, "bottom": 44, "left": 64, "right": 32}  # above: legend, and marker's number
_ABOVE = 10  # heights of the axis up to which a blown-up loss is drawn
_POINTS = 400  # of a line on a screen of 600 px
_HEIGHT = "360px"
# A suggestion whose name alone does not say what it is.
_MEANINGS = {"bracket": "the middle of the usable range", "verified": "the best of the short runs"}


class LRPlot(Screen):
    """Streams the losses of a search; then the marker chooses the rate of the next run.

    Parameters
    ----------
    start_lr, end_lr : ends of the axis

    Attributes
    ----------
    lr : the rate of the next run, None before `finish`
    lr_mult : times that rate for the head, where layer groups have rates of their own
    """

    lr = traitlets.Float(None, allow_none=True)
    lr_mult = 1.0

    def __init__(self, start_lr: float, end_lr: float) -> None:
        self._x = bqplot.LogScale(min=start_lr, max=end_lr, allow_padding=False)
        self._y = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        scales = {"x": self._x, "y": self._y}
        blue = series_colour(0)
        self._band = bqplot.Lines(
            x=[], y=[], scales=scales, fill="between", colors=[blue, blue], opacities=[0.0, 0.0],
            fill_opacities=[0.2], fill_colors=[blue],
        )  # fmt: skip
        self._raw = bqplot.Scatter(
            x=[], y=[], scales=scales, colors=[blue], opacities=[0.7], default_size=10
        )
        self._line = bqplot.Lines(x=[], y=[], scales=scales, colors=[blue], stroke_width=2)
        self._losses = bqplot.Axis(
            scale=self._y, side="left", label="loss", label_offset="46px", grid_lines="none"
        )
        self._show_range(0.0, 1.0)
        self._figure = bqplot.Figure(
            marks=[self._band, self._raw, self._line],
            axes=[_rate_axis(self._x, start_lr, end_lr), self._losses],
            fig_margin=_MARGIN, layout={"width": "100%", "height": _HEIGHT}, animation_duration=0,
            background_style=PAPER, display_toolbar=False,
        )  # fmt: skip
        self._figure.add_class("nbft-plot")
        self._handle = LRHandle(min=start_lr, max=end_lr, margin=_MARGIN, legend=_legend())
        over = ipywidgets.Box([self._figure, self._handle])
        over.add_class("nbft-over")
        self.status = Status()
        self._marks, self._how, self._verdict, self._from = {}, "", "", None
        self._steps = [], [], []
        self._done = ipywidgets.Label("")
        super().__init__([over, self._done, self.status])
        self.add_class("nbft-lr-plot")
        self._handle.observe(lambda change: setattr(self, "lr", change["new"]), "value")
        self.observe(self._chosen, "lr")

    def _show_range(self, low: float, high: float) -> None:
        """Put the ends of the axis of losses, and round ticks on it."""
        values, written = round_ticks(low, high)
        texts = [f"{value:{written}}" for value in values]
        show_range(self._y, self._losses, low, high, values, texts)

    def draw(self, lrs: Sequence[float], losses: Sequence[float], smooth: Sequence[float]) -> None:
        """Show the curve so far."""
        x, y = (np.asarray(v, np.float32) for v in downsample(lrs, losses, _POINTS))
        if not len(y):
            return
        self._steps = lrs, losses, smooth
        line_x, line_y = (np.asarray(v, np.float32) for v in downsample(lrs, smooth, _POINTS))
        low, high = map(float, loss_range([y]))
        with self._raw.hold_sync(), self._line.hold_sync():
            self._show_range(low, high)
            self._raw.x, self._raw.y = x[y <= high], y[y <= high]
            # The figure cuts what is above its axis; a loss of 1e30 would be too far for a path.
            self._line.x, self._line.y = line_x, np.clip(line_y, low, high + _ABOVE * (high - low))

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
        marks : suggestions, name -> rate, the one that is used first
        usable : the usable range, shaded
        band : rates, lowest and highest losses of several sweeps
        lr : what the next run will use
        how : where it comes from, such as "bracket"
        verdict : what the curve is worth
        """
        low, high = self._y.min, self._y.max
        if band:
            rates, *edges = band
            with self._band.hold_sync():
                self._band.x, self._band.y = np.array(rates), np.clip(edges, low, high)
        names = _names(marks)
        self._marks, self._how, self._verdict, self._from = marks, how, verdict, lr
        with self._handle.hold_sync():
            self._handle.marks = [
                {"name": name, "lr": rate, "colour": series_colour(k)}
                for k, (name, rate) in enumerate(zip(names, marks.values(), strict=True), 1)
            ]
            self._handle.usable, self._handle.ends = list(usable or ()), [low, high]
            self._handle.legend = _legend(usable is not None, band is not None)
            self._handle.show_curve(*self._steps)
            self.lr = lr
        self._done.value = _facts(marks, usable)
        self._say()

    def _chosen(self, change: traitlets.Bunch) -> None:
        self._handle.value = change["new"]
        self._say()

    def _say(self) -> None:
        how = f"suggested rate: {_meant(self._how)}" if self._how in self._marks else self._how
        if self.lr != self._from:
            moved = f"moved from {rate_text(self._from)}"
            how = f"{how}; {moved}" if how else moved
        verdict = self._verdict[:1].upper() + self._verdict[1:]
        self.status.text = f"next run: {self.rate} ({how}). {verdict}"

    @property
    def rate(self) -> str:
        """The rate of the next run in words, from the first layer group to the head."""
        ends = [self.lr] if self.lr_mult == 1 else [self.lr, self.lr * self.lr_mult]
        return " to ".join(map(rate_text, ends))


def _rate_axis(scale: bqplot.Scale, low: float, high: float) -> bqplot.Axis:
    """Powers of ten, or other round rates where there are not two of these."""
    values = decades(low, high)
    if len(values) < 2:
        values, _ = round_ticks(low, high)
    written = next(w for w in (".0e", ".1e", ".6e") if all(float(f"{v:{w}}") == v for v in values))
    # d3 writes 1e+0; we write 1e0.
    labels = {f"{v:.0f}": f"1e{math.log10(v):.0f}" for v in values if v in (1, 10, 100)}
    return bqplot.Axis(
        scale=scale, label="learning rate", label_offset="32px", grid_lines="none",
        tick_values=np.array(values), tick_format=written, tick_labels=labels or None,
    )  # fmt: skip


def _legend(usable: bool = False, band: bool = False) -> list[list[str]]:
    """What is drawn: a sign, its name and its colour."""
    blue = series_colour(0)
    entries = [["dot", "loss", blue], ["line", "smoothed", blue]]
    if band:
        entries.append(["area", "sweeps", blue])
    if usable:
        entries.append(["area", "usable range", series_colour(2)])
    return entries


def _names(marks: Mapping[str, float]) -> list[str]:
    """What stands beside the lines: the rate that is used says so."""
    return [f"suggested rate ({name})" if k == 0 else name for k, name in enumerate(marks)]


def _meant(name: str) -> str:
    return f"{name}, {_MEANINGS[name]}" if name in _MEANINGS else name


def _facts(marks: Mapping[str, float], usable: tuple[float, float] | None) -> str:
    """All that is marked, in words."""
    parts = []
    if marks:
        rates = (f"{rate_text(rate)} ({_meant(name)})" for name, rate in marks.items())
        parts.append(f"suggested rate{'s' * (len(marks) > 1)} {', '.join(rates)}")
    if usable:
        parts.append(f"usable range {rate_text(usable[0])} to {rate_text(usable[1])}, shaded")
    return "; ".join(parts)
