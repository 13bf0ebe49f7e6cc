"""The curves and the epoch table of runs, as plain values, as text and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nbfinetune.history.runs import SMOOTHING, Run
from nbfinetune.history.verdicts import verdict
from nbfinetune.rendering import axes, figures
from nbfinetune.rendering.downsampling import MOST_POINTS, downsample
from nbfinetune.rendering.names import html_text, printable
from nbfinetune.rendering.numbers import counted, minutes
from nbfinetune.rendering.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_HEIGHT = 3.7  # inches
_KEPT = " (kept)"
Line = tuple[Sequence[float], Sequence[float]]
X_BY = ("step", "epoch", "time")


def format_value(name: str, value: float) -> str:
    """A value of a row as the table shows it: fastai's six decimals, epochs whole, time mm:ss."""
    if name == "time":
        return minutes(value)
    return str(value) if name == "epoch" else f"{value:.6f}"


@dataclass(frozen=True)
class TrainingCurves:
    """What is drawn of the stages of a call, over the steps (or epochs, or seconds) of all of them.

    Parameters
    ----------
    losses, smooth : training loss of each step, and its moving average
    valid : validation loss at the end of each epoch
    metrics : name -> values at the end of each epoch
    lrs : rate of the last layer group at each step
    planned : rates still to come in the schedule that is on
    borders : (where it begins, name) of each stage
    events : (where, what) that was done by hand
    kept : (where, name) of the epoch whose weights were kept as the best
    """

    losses: Line
    smooth: Line
    valid: Line
    metrics: dict[str, Line]
    lrs: Line
    planned: Line
    borders: list[tuple[float, str]]
    events: list[tuple[float, str]]
    kept: tuple[float, str] | None = None


def curves_of(
    runs: Sequence[Run],
    planned: Line = ((), ()),
    *,
    x_by: str = "step",
    smoothing: float = SMOOTHING,
    most: int = MOST_POINTS,
) -> TrainingCurves:
    """The curves of runs, one after the other; values that are not finite are left out.

    Parameters
    ----------
    planned : steps after the last one, and the rates planned for them
    x_by : what lines are drawn over, one of `X_BY`; time is in seconds
    smoothing : of the moving average, 0 = none to below 1
    most : points of a line at most
    """
    losses, smooth, lrs, rows, borders, events, kept = [], [], [], [], [], [], None
    for run in runs:
        first = len(losses)
        borders.append((first, run.stage))
        events += [(first + step, what) for step, what in run.events]
        rows += [(first + s, row) for s, row in zip(run.row_steps, run.rows, strict=True)]
        losses += run.losses
        smooth += run.smooth if smoothing == SMOOTHING else _smoothed(run.losses, smoothing)
        lrs += [step[-1] for step in run.lrs]
    x, unit = _positions(runs, x_by)

    def line(steps: Sequence[int], values: Sequence[float], most: int) -> Line:
        at, values = downsample(steps, values, most)
        return x[at.astype(int)], values

    for step, row in rows:
        if row is runs[-1].kept:
            kept = step, f"kept: epoch {row['epoch']}"

    def at_epochs(name: str) -> Line:
        return line([step for step, _ in rows], [row[name] for _, row in rows], most)

    steps, lr_steps = range(1, len(losses) + 1), range(1, len(lrs) + 1)
    return TrainingCurves(
        line(steps, losses, most),
        line(steps, smooth, most // 2),
        at_epochs("valid_loss"),
        {name: at_epochs(name) for name in (runs[0].names[3:-1] if runs else ())},
        line(lr_steps, lrs, most // 2),
        ([float(x[len(lrs)]) + step * unit for step in planned[0]], list(planned[1])),
        [(float(x[step]), name) for step, name in borders],
        [(float(x[step]), what) for step, what in events],
        kept and (float(x[kept[0]]), kept[1]),
    )


def _smoothed(losses: Sequence[float], smoothing: float) -> list[float]:
    """The moving average as the recorder's, with another share of the past."""
    average, past, smooth = 0.0, 1.0, []
    for loss in losses:
        average = smoothing * average + (1 - smoothing) * loss
        past *= smoothing
        smooth.append(average / (1 - past))
    return smooth


def _positions(runs: Sequence[Run], x_by: str) -> tuple[np.ndarray, float]:
    """Where the begin and the end of each step are on the x axis, and how long the next one is."""
    parts, end, unit = [np.zeros(1)], 0.0, 1.0
    for run in runs:
        n = len(run.lrs)
        own = np.arange(1, n + 1, dtype=float)
        if x_by == "epoch":
            own, unit = own / run.n_iter, 1 / run.n_iter
        if x_by == "time":
            own = np.array(run.seconds[:n])
            unit = own[-1] / n if n else unit
        parts.append(end + own)
        end = parts[-1][-1] if n else end
    return np.concatenate(parts), unit


def metric_range(curves: TrainingCurves) -> tuple[float, float]:
    """The ends of the metrics' axis: 0 to 1, wider where a metric is beyond."""
    values = [value for line in curves.metrics.values() for value in line[1]]
    return min([0.0, *values]), max([1.0, *values])


def epoch_table(runs: Sequence[Run]) -> Table:
    """A row an epoch, under the names of the stages if there are several."""
    columns = runs[0].names if runs else []
    rows: list[list[str]] = []
    for run in runs:
        if run.stage:
            rows.append([f"{run.stage}, {counted(run.n_epoch, 'epoch')}"])
        for row in run.rows:
            values = [format_value(name, row[name]) for name in columns]
            rows.append([values[0] + _KEPT * (row is runs[-1].kept), *values[1:]])
    return Table("", columns, rows)


@dataclass(frozen=True)
class TrainingReport:
    """What is left of a training screen: curves, table and verdict, without a kernel.

    Parameters
    ----------
    runs : the stages of a call
    text : how it ended, if not as planned
    """

    runs: Sequence[Run] = field(repr=False)
    text: str = ""

    def __repr__(self) -> str:
        return "\n".join([repr(epoch_table(self.runs)), *self._lines()])

    def _repr_html_(self) -> str:
        below = "".join(f"<div>{html_text(line)}</div>" for line in self._lines())
        return self._picture() + epoch_table(self.runs)._repr_html_() + below

    @property
    def figure(self) -> "Figure | None":
        """The curves; None where no step was done."""
        curves = curves_of(self.runs)
        return training_figure(curves) if len(curves.losses[0]) else None

    def _picture(self) -> str:
        figure = self.figure
        if figure is None:
            return ""
        curves = curves_of(self.runs)
        lines = {"train_loss": curves.smooth, "valid_loss": curves.valid, **curves.metrics}
        last = [f"{name} {line[1][-1]:.4f}" for name, line in lines.items() if len(line[1])]
        text = f"training curves over {int(curves.losses[0][-1])} steps: {', '.join(last)}"
        return figures.figure_html(figure, text)

    def _lines(self) -> list[str]:
        """What stands below the table."""
        features = dict.fromkeys(run.features_text for run in self.runs)
        done = [f"after step {step:.0f}: {what}" for step, what in curves_of(self.runs).events]
        by_hand = f"by hand: {'; '.join(done)}" if done else ""
        ended = [f"{r.stage or r.name} ended early: {r.ended}" for r in self.runs if r.ended]
        notes = [note for run in self.runs for note in run.notes]
        lines = [*features, *notes, by_hand, *ended, self.text, verdict(self.runs)]
        return [printable(line) for line in lines if line]


def training_figure(curves: TrainingCurves) -> "Figure":
    """Losses and metrics over the steps, and the learning rate below.

    Parameters
    ----------
    curves : of one step or more
    """
    figure = figures.new_figure(figures.WIDTH, _HEIGHT)
    top, below = figure.subplots(2, height_ratios=(2.4, 1))
    lines = draw_losses(top, curves)
    lines |= _draw_metrics(top.twinx(), curves) if curves.metrics else {}
    axes.legend(top, list(lines.values()), list(lines))
    draw_rates(below, curves)
    borders = curves.borders if len(curves.borders) > 1 else []
    first = top.get_xlim()[0]
    marks = [(at or first, what, axes.SOFT) for at, what in [*borders, *curves.events]]
    marks += [(*curves.kept, axes.KEPT)] if curves.kept else []
    for at, _, colour in marks:
        axes.draw_mark(top, at, colour)
    axes.mark(below, marks)
    return figure


def draw_losses(ax: "Axes", curves: TrainingCurves) -> dict[str, "Line2D"]:
    """Raw losses as light points, their average and the validation losses as lines, by name."""
    xs, losses = curves.losses
    axes.style_axes(ax)
    ax.set_xlim(step_ends(curves))
    low, high = axes.loss_range([losses, curves.valid[1]])
    # However low it ends, where it began is seen.
    axes.scale_y(ax, (low, max(high, 1.05 * curves.smooth[1][0])), "loss")
    axes.draw_points(ax, xs, losses, axes.colour_of(0))
    lines = {"train_loss": axes.draw_line(ax, *curves.smooth, axes.colour_of(0))}
    if len(curves.valid[0]):
        lines["valid_loss"] = axes.draw_line(ax, *curves.valid, axes.colour_of(1), marker="s")
    return lines


def _draw_metrics(ax: "Axes", curves: TrainingCurves) -> dict[str, "Line2D"]:
    """The metrics over an axis on the right."""
    axes.style_axes(ax, spines="right")
    low, high = metric_range(curves)
    ax.set_xlim(step_ends(curves))
    axes.scale_y(ax, (low, low + (high - low) * 1.03), "metrics", right=True)
    return {
        name: axes.draw_line(ax, *line, axes.colour_of(k), marker="o", dashed=True)
        for k, (name, line) in enumerate(curves.metrics.items(), 2)
    }


def draw_rates(ax: "Axes", curves: TrainingCurves, name: str = "lr", *, low: float = 0.0) -> None:
    """The rates of the last layer group, or what is in their place, over an axis with steps."""
    axes.style_axes(ax)
    ax.set_xlim(step_ends(curves))
    axes.scale_y(ax, (low, max(curves.lrs[1]) * 1.08 - 0.08 * low or 1), name)
    axes.draw_line(ax, *curves.lrs, axes.colour_of(0))
    step_axis(ax)


def step_ends(curves: TrainingCurves) -> tuple[float, float]:
    """The ends of the axis of steps: with room for marks at the first and the last."""
    last = max(curves.losses[0][-1], 2)
    room = max(0.5, last / 80)
    return 1 - room, last + room


def step_axis(ax: "Axes") -> None:
    """The x axis of steps, which are whole."""
    values = [v for v in axes.linear_ticks(*ax.get_xlim(), most=8) if v == int(v)]
    axes.ticks(ax, "x", values, [f"{v:,.0f}" for v in values])
    ax.set_xlabel("step", **axes.font())
