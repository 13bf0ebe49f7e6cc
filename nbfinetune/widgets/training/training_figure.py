"""TrainingFigure: the curves of a run over steps, epochs or time, with legend and crosshair."""

import math
from collections.abc import Sequence
from threading import RLock

import bqplot
import ipywidgets
import numpy as np

from nbfinetune.history.plots import calls
from nbfinetune.history.report import Line, TrainingCurves, curves_of, metric_range
from nbfinetune.history.runs import Run
from nbfinetune.rendering.axes import loss_range
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.rendering.ticks import log_ticks, round_ticks
from nbfinetune.widgets.theme import PAPER, series_colour
from nbfinetune.widgets.training.crosshair import Crosshair
from nbfinetune.widgets.training.plot_options import PlotOptions

_POINTS = 400  # of a line on a screen of 600 px
_MARGIN = {"top": 8, "bottom": 10, "left": 64, "right": 56}
_LR_MARGIN = {"top": 8, "bottom": 42, "left": 64, "right": 56}
_HEIGHT, _LR_HEIGHT = "240px", "130px"
_LATE = 0.8  # share of the steps from which a name would not fit on the right
_MOST_EARLIER = 3  # calls
_MINUTES = 180  # s from which time is written in minutes


class TrainingFigure(ipywidgets.VBox):
    """Losses and metrics, the rate below them, and what chooses how they are shown.

    Parameters
    ----------
    metrics : names of the metrics
    earlier : runs of earlier calls, which can be laid under
    """

    def __init__(self, metrics: Sequence[str], earlier: Sequence[Run] = ()) -> None:
        self._earlier = calls([run for run in earlier if run.losses])[-_MOST_EARLIER:]
        self._shown: tuple[Sequence[Run], Line] = (), ((), ())
        self._lock = RLock()  # a choice may come in another thread, in the midst of a draw
        self._make_marks(metrics)
        self._make_axes(bool(metrics))
        marks = [*self._under, self._raw, self._smooth, self._valid, *self._metrics.values()]
        self._figure = _figure(marks, self._axes, _MARGIN, _HEIGHT)
        rates = [self._lrs, self._planned]
        self._lr_figure = _figure(rates, self._lr_axes, _LR_MARGIN, _LR_HEIGHT)
        self._marked: list[tuple[float, str]] = []
        self._marks: list[bqplot.Mark] = []
        lines = {"train_loss": self._raw, "smoothed": self._smooth, "valid_loss": self._valid}
        self._named = lines | self._metrics
        looks = ["dots", "line", "squares", *["dashes"] * len(metrics)]
        self.options = PlotOptions(
            series=[
                {"name": name, "colour": mark.colors[0], "look": look}
                for (name, mark), look in zip(self._named.items(), looks, strict=True)
            ],
            n_earlier=len(self._earlier),
        )
        kinds = ["loss"] * 3 + ["metric"] * len(metrics)
        told = zip([*self._named.items(), ("lr", self._lrs)], [*kinds, "rate"], strict=True)
        self._crosshair = Crosshair(
            x_scale=self._x.model_id,
            lines=[{"name": n, "mark": mark.model_id, "kind": kind} for (n, mark), kind in told],
        )
        over = ipywidgets.VBox([self._figure, self._lr_figure, self._crosshair])
        over.add_class("nbft-over")
        super().__init__([self.options, over])
        self.add_class("nbft-figure")
        self.options.observe(self._switch, "hidden")
        self.options.observe(self._redraw, ["x_by", "log", "smoothing", "earlier"])

    def _make_marks(self, metrics: Sequence[str]) -> None:
        self._x, self._y, self._lr_y, self._whole, self._share = (
            bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False) for _ in range(5)
        )
        loss, rate = {"x": self._x, "y": self._y}, {"x": self._x, "y": self._lr_y}
        share = {"x": self._x, "y": self._share}
        blue = series_colour(0)
        self._raw = bqplot.Scatter(
            x=[], y=[], scales=loss, colors=[blue], opacities=[0.35], default_size=10
        )
        self._smooth = _line(loss, blue)
        self._valid = _line(loss, series_colour(1), marker="square", marker_size=30)
        self._metrics = {
            name: _line(
                share, series_colour(k), marker="square", marker_size=30, line_style="dashed"
            )
            for k, name in enumerate(metrics, 2)
        }
        self._under = [_line(loss, series_colour(4), opacities=[0.5]) for _ in self._earlier]
        for mark in self._under:
            mark.stroke_width = 1
        self._lrs = _line(rate, blue)
        self._planned = _line(rate, blue, line_style="dotted")

    def _make_axes(self, with_metrics: bool) -> None:
        self._losses = _axis(self._y, side="left", label="loss", label_offset="48px")
        self._shares = _axis(self._share, side="right", label="metrics", label_offset="40px")
        above = _axis(self._x, num_ticks=0)
        self._axes = [self._losses, above, *([self._shares] if with_metrics else [])]
        self._rates = _axis(self._lr_y, side="left", label="lr", label_offset="48px")
        self._over = _axis(self._x, label="step", label_offset="30px")
        self._lr_axes = [self._rates, self._over]

    def draw(self, runs: Sequence[Run], planned: Line = ((), ())) -> None:
        """Show the runs of a call so far, and the rates planned for the steps after them."""
        with self._lock:
            self._shown = runs, planned
            if any(run.losses for run in runs):
                self._draw(runs, planned)

    def _redraw(self, change: object) -> None:
        self.draw(*self._shown)

    def _switch(self, change: object) -> None:
        for name, mark in self._named.items():
            mark.visible = name not in self.options.hidden
        self._crosshair.hidden = self.options.hidden

    def _draw(self, runs: Sequence[Run], planned: Line) -> None:
        how = {"x_by": self.options.x_by, "smoothing": self.options.smoothing, "most": _POINTS}
        curves = curves_of(runs, planned, **how)
        under = [curves_of(call, **how) for call in self._earlier] if self.options.earlier else []
        losses = [curves.losses, curves.smooth, curves.valid, *(u.smooth for u in under)]
        if self.options.log:
            losses = [_logarithms(line) for line in losses]
        width = _show_x(self._x, self._over, self.options.x_by, [curves, *under])
        self._show_losses([losses[0][1], *(ys for _, ys in losses[2:])])
        low, high = metric_range(curves)
        show_range(self._share, self._shares, low, high, *_written(low, high, 6))
        self._show_rates(max([*curves.lrs[1], *curves.planned[1]]) * 1.05 or 1.0)
        _set(self._raw, *losses[0])
        _set(self._smooth, *losses[1])
        _set(self._valid, *losses[2])
        for mark, line in zip(self._under, losses[3:] or [((), ())] * 3, strict=False):
            _set(mark, *line)
        for mark, line in zip(self._metrics.values(), curves.metrics.values(), strict=True):
            _set(mark, *line)
        _set(self._lrs, *curves.lrs)
        _set(self._planned, *curves.planned)
        self._mark_steps([*curves.borders[1:], *curves.events], width)
        self._tell(runs, how["x_by"])

    def _show_losses(self, lines: Sequence[Sequence[float]]) -> None:
        """Put the ends of the axis of losses."""
        lines = [ys for ys in lines if len(ys)] or [[0.0, 1.0]]
        if not self.options.log:
            low, high = map(float, loss_range(lines))
            show_range(self._y, self._losses, low, high, *_written(low, high, 8))
            return
        low, high = float(min(map(min, lines))) - 0.05, float(max(map(max, lines))) + 0.05
        values = log_ticks(10.0**low, 10.0**high)
        texts = [f"{v:.6g}" for v in values]
        show_range(self._y, self._losses, low, high, [math.log10(v) for v in values], texts)

    def _show_rates(self, high: float) -> None:
        values, _ = round_ticks(0.0, high, 5)
        texts = [rate_text(v) if v else "0" for v in values]
        show_range(self._lr_y, self._rates, 0.0, high, values, texts)

    def _mark_steps(self, steps: list[tuple[float, str]], width: float) -> None:
        """Vertical lines with names: stages, and what was done by hand."""
        if steps == self._marked:
            return
        kept = [mark for mark in self._figure.marks if mark not in self._marks]
        for mark in self._marks:
            mark.close()
        self._marked, self._marks = list(steps), []
        look = {"scales": {"x": self._x, "y": self._whole}, "colors": [series_colour(4)]}
        for k, (at, name) in enumerate(steps):
            row = 0.94 - 0.08 * (k % 11)
            # Near the right edge the name is on the left: there it is not cut.
            side = {"align": "end", "x_offset": -4} if at > _LATE * width else {"x_offset": 4}
            self._marks += [
                bqplot.Lines(x=[at, at], y=[0, 1], line_style="dashed", stroke_width=1, **look),
                bqplot.Label(x=[at], y=[row], text=[name], default_size=12, **side, **look),
            ]
        self._figure.marks = kept + self._marks

    def _tell(self, runs: Sequence[Run], x_by: str) -> None:
        """Give the crosshair what makes steps and epochs of x, and the epoch that is kept."""
        knots = _knots(runs, x_by)
        row = next((run.kept for run in reversed(runs) if run.kept), None)
        at = None
        for k, run in enumerate(runs):
            for step, own in zip(run.row_steps, run.rows, strict=True):
                if own is row:
                    at = float(np.interp(knots[k][1] + step, *np.array(knots).T[[1, 0]]))
        with self._crosshair.hold_sync():
            self._crosshair.ruler, self._crosshair.kept = knots, at
            self._crosshair.log = self.options.log

    @property
    def n_bytes(self) -> int:
        """What a draw sends, about: two float32 a point."""
        marks = (*self._named.values(), self._lrs, self._planned, *self._under)
        return 8 * sum(len(mark.x) for mark in marks)


def _knots(runs: Sequence[Run], x_by: str) -> list[list[float]]:
    """x, steps and epochs done at the begin and after each stage; in time at each epoch too."""
    knots = [[0.0, 0.0, 0.0]]
    for run in runs:
        x, step, epoch = knots[-1]
        ends = [*(run.row_steps[:-1] if x_by == "time" else ()), len(run.lrs)]
        for end in ends:
            done = end / run.n_iter
            own = {"step": end, "epoch": done, "time": run.seconds[end - 1] if end else 0}
            knots.append([x + own[x_by], step + end, epoch + done])
    return knots


def _logarithms(line: Line) -> Line:
    """10's, of what has one."""
    xs, ys = (np.asarray(v, float) for v in line)
    return xs[ys > 0], np.log10(ys[ys > 0])


def _show_x(
    scale: bqplot.Scale, axis: bqplot.Axis, x_by: str, curves: Sequence[TrainingCurves]
) -> float:
    """Put the end of the x axis, and whole steps, epochs, seconds or minutes on it."""
    ends = [end for c in curves for line in (c.losses, c.planned) if len(line[0])
            for end in [line[0][-1]]]  # fmt: skip
    end = float(max([*ends, 1.0 if x_by == "epoch" else 2.0]))
    unit = 60 if x_by == "time" and end > _MINUTES else 1
    values = [v for v in round_ticks(0.0, end / unit, 8)[0] if v == int(v) or x_by == "time"]
    axis.label = {"time": "minutes" if unit > 1 else "seconds"}.get(x_by, x_by)
    show_range(scale, axis, 0.0, end, [v * unit for v in values], [f"{v:.6g}" for v in values])
    return end


def _written(low: float, high: float, most: int) -> tuple[list[float], list[str]]:
    values, written = round_ticks(low, high, most)
    return values, [f"{v:{written}}" for v in values]


def show_range(
    scale: bqplot.Scale,
    axis: bqplot.Axis,
    low: float,
    high: float,
    values: Sequence[float],
    texts: Sequence[str],
) -> None:
    """Put the ends of an axis, and ticks with these texts on it."""
    if (scale.min, scale.max) != (low, high):
        with scale.hold_sync():
            scale.min, scale.max = low, high
    labels = dict(zip(map(_as_js, values), texts, strict=True))
    if labels != axis.tick_labels:
        # One after the other: in one message bqplot may write new ticks by the texts of the old.
        axis.tick_labels = labels
        axis.tick_values = np.array(values, float)


def _as_js(value: float) -> str:
    """A number as JavaScript writes it, by which bqplot finds its text."""
    if value == 0 or abs(value) >= 1e-6:  # 1e-7 and smaller have an exponent
        return np.format_float_positional(value, trim="-")
    return np.format_float_scientific(value, trim="-", exp_digits=1)


def _line(scales: dict, colour: str, **look) -> bqplot.Lines:
    return bqplot.Lines(x=[], y=[], scales=scales, colors=[colour], stroke_width=2, **look)


def _axis(scale: bqplot.Scale, **look) -> bqplot.Axis:
    return bqplot.Axis(scale=scale, grid_lines="none", **look)


def _figure(marks: list, axes: list, margin: dict, height: str) -> bqplot.Figure:
    figure = bqplot.Figure(
        marks=marks, axes=axes, fig_margin=margin, animation_duration=0, background_style=PAPER,
        layout={"width": "100%", "height": height}, display_toolbar=False,
    )  # fmt: skip
    figure.add_class("nbft-plot")
    return figure


def _set(mark: bqplot.Mark, x: object, y: object) -> None:
    """Both coordinates in one message; in-place changes would not be sent."""
    if len(y) or len(mark.y):
        with mark.hold_sync():
            mark.x, mark.y = np.asarray(x, np.float32), np.asarray(y, np.float32)
