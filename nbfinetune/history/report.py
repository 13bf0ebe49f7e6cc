"""The curves and the epoch table of runs, as plain values, as text and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nbfinetune.history.recorder import SMOOTHING, Run
from nbfinetune.rendering.downsampling import MOST_POINTS, downsample
from nbfinetune.rendering.names import html_text
from nbfinetune.rendering.svg import Plot, colour_of, figure, loss_range
from nbfinetune.rendering.tables import Table

Line = tuple[Sequence[float], Sequence[float]]
X_BY = ("step", "epoch", "time")


def format_value(name: str, value: float) -> str:
    """A value of a row as the table shows it: fastai's six decimals, epochs whole, time mm:ss."""
    if name == "time":
        return minutes(value)
    return str(value) if name == "epoch" else f"{value:.6f}"


def minutes(seconds: float) -> str:
    """Seconds as mm:ss, as fastai shows time."""
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def stage_of(run: Run) -> str:
    """The stage's part of a run's name, empty for a run of one stage."""
    return run.name.partition(": ")[2]


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
    """

    losses: Line
    smooth: Line
    valid: Line
    metrics: dict[str, Line]
    lrs: Line
    planned: Line
    borders: list[tuple[float, str]]
    events: list[tuple[float, str]]


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
    losses, smooth, lrs, rows, borders, events = [], [], [], [], [], []
    for run in runs:
        first = len(losses)
        borders.append((first, stage_of(run)))
        events += [(first + step, what) for step, what in run.events]
        rows += [(first + s, row) for s, row in zip(run.row_steps, run.rows, strict=True)]
        losses += run.losses
        smooth += run.smooth if smoothing == SMOOTHING else _smoothed(run.losses, smoothing)
        lrs += [step[-1] for step in run.lrs]
    x, unit = _positions(runs, x_by)

    def line(steps: Sequence[int], values: Sequence[float], most: int) -> Line:
        at, values = downsample(steps, values, most)
        return x[at.astype(int)], values

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


def calls_of(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of each call: those of several stages together."""
    calls: list[list[Run]] = []
    for run in runs:
        before = calls[-1] if calls else []
        same = before and run.name.partition(":")[0] == before[-1].name.partition(":")[0]
        if same and stage_of(run) and stage_of(run) not in map(stage_of, before):
            before.append(run)
        else:
            calls.append([run])
    return calls


def metric_range(curves: TrainingCurves) -> tuple[float, float]:
    """The ends of the metrics' axis: 0 to 1, wider where a metric is beyond."""
    values = [value for line in curves.metrics.values() for value in line[1]]
    return min([0.0, *values]), max([1.0, *values])


def epoch_table(runs: Sequence[Run]) -> Table:
    """A row an epoch, under the names of the stages if there are several."""
    columns = runs[0].names if runs else []
    rows: list[list[str]] = []
    for run in runs:
        if stage_of(run):
            rows.append([f"{stage_of(run)}, {_counted(run.n_epoch, 'epoch')}"])
        rows += [[format_value(name, row[name]) for name in columns] for row in run.rows]
    return Table("", columns, rows)


def kept_row(runs: Sequence[Run]) -> int | None:
    """The number of the row of the table whose weights the runs keep; None if they keep none."""
    kept, n = runs[-1].kept if runs else None, 0
    for run in runs:
        n += bool(stage_of(run))
        for row in run.rows:
            if row is kept:
                return n
            n += 1
    return None


@dataclass(frozen=True)
class TrainingReport:
    """What is left of a training screen: the curves and the table, without a kernel.

    Parameters
    ----------
    runs : the stages of a call
    text : how it ended, if not as planned
    """

    runs: Sequence[Run] = field(repr=False)
    text: str = ""

    def __repr__(self) -> str:
        lines = [repr(epoch_table(self.runs)), *self._notes(), self.text]
        return "\n".join(line for line in lines if line)

    def _repr_html_(self) -> str:
        below = "".join(f"<div>{html_text(line)}</div>" for line in (*self._notes(), self.text))
        drawn = training_picture(curves_of(self.runs)) if self.runs else ""
        return drawn + epoch_table(self.runs)._repr_html_() + below

    def _notes(self) -> list[str]:
        kept = dict.fromkeys(run.kept_text for run in self.runs if run.kept_text)
        done = [f"after step {step:.0f}: {what}" for step, what in curves_of(self.runs).events]
        return [*kept, *([f"by hand: {'; '.join(done)}"] if done else [])]


def training_picture(curves: TrainingCurves) -> str:
    """Losses and metrics over the steps, and the learning rate below, as an HTML figure."""
    xs, losses = curves.losses
    if not len(xs):
        return ""
    right = max(xs[-1], 2)
    plot = Plot(
        (1, right),
        loss_range([losses, curves.valid[1]]),
        (26, 206),
    )
    lines = {"train_loss": curves.smooth, "valid_loss": curves.valid, **curves.metrics}
    parts = plot.axes("loss") + plot.legend(list(lines))
    parts += plot.dots(xs, losses, colour_of(0)) + plot.line(*curves.smooth, colour_of(0))
    parts += plot.line(*curves.valid, colour_of(1), marked=True)
    share = Plot((1, right), metric_range(curves), plot.rows)
    parts += share.right_axis("metrics") if curves.metrics else []
    for k, line in enumerate(curves.metrics.values(), 2):
        parts += share.line(*line, colour_of(k), marked=True, dashed=True)
    below = Plot((1, right), (0, max(curves.lrs[1]) * 1.05 or 1), (222, 290))
    parts += below.axes("lr", "step") + below.line(*curves.lrs, colour_of(0))
    for row, (at, name) in enumerate([*curves.borders[1:], *curves.events]):
        parts += plot.mark(at, row % 12, name, colour_of(4))
    last = ", ".join(f"{name} {line[1][-1]:.4f}" for name, line in lines.items() if len(line[1]))
    return figure(parts, f"training curves over {int(xs[-1])} steps: {last}")
