"""Plots of a run that was, as fastai's recorder draws them: its losses, and its schedule."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import localtime, strftime
from typing import TYPE_CHECKING

from nbfinetune.history.report import (
    Line,
    TrainingCurves,
    curves_of,
    draw_losses,
    draw_rates,
    format_value,
    step_axis,
    step_ends,
)
from nbfinetune.history.runs import HEAD_STAGE, Run
from nbfinetune.history.verdicts import verdict
from nbfinetune.rendering import axes, figures
from nbfinetune.rendering.names import shown
from nbfinetune.rendering.numbers import counted, minutes, rate_text
from nbfinetune.rendering.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 3.4  # inches
_COLUMNS = ("method", "epochs", "status", "result", "time")


def loss_plot(runs: Sequence[Run], skip_start: int, with_valid: bool, log: bool) -> figures.Picture:
    """The losses of a call, from step `skip_start` + 1 on, but always the last step."""
    for name, value in (("with_valid", with_valid), ("log", log)):
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {shown(value)}; it must be True or False")
    if not isinstance(skip_start, int) or isinstance(skip_start, bool) or skip_start < 0:
        raise ValueError(f"skip_start is {shown(skip_start)}; it must be a whole number from 0 up")
    curves = _trained(runs)
    first = min(skip_start, int(curves.losses[0][-1]) - 1)
    curves = replace(
        curves,
        losses=_after(curves.losses, first),
        smooth=_after(curves.smooth, first),
        valid=_after(curves.valid, first) if with_valid else ((), ()),
    )
    figure = figures.new_figure(figures.WIDTH, _HEIGHT)
    ax = figure.subplots()
    lines = draw_losses(ax, curves)
    if log:
        _make_logarithmic(ax, curves)
    step_axis(ax)
    axes.legend(ax, list(lines.values()), list(lines))
    ends = [f"{name} {line.get_ydata()[-1]:.4f}" for name, line in lines.items()]
    return figures.Picture(figure, f"losses of {runs[0].method}, at the end {', '.join(ends)}")


def _after(line: Line, first: int) -> Line:
    kept = [(x, y) for x, y in zip(*line, strict=True) if x > first]
    return tuple(zip(*kept, strict=True)) or ((), ())


def _make_logarithmic(ax: "Axes", curves: TrainingCurves) -> None:
    """Losses over a logarithmic axis, if all are positive."""
    losses = [loss for line in (curves.losses, curves.valid) for loss in line[1]]
    if min(losses) <= 0:
        raise ValueError(f"log=True needs positive losses, and the lowest is {min(losses):.3g}")
    ends = min(losses) / 1.1, max(losses) * 1.1
    ax.set_yscale("log")
    ax.set_ylim(ends)
    ax.set_yticks([], minor=True)
    values = axes.log_ticks(*ends)
    axes.ticks(ax, "y", values, [f"{v:g}" for v in values])


def schedule_plot(runs: Sequence[Run]) -> figures.Picture:
    """The learning rate of the last layer group and the momentum of a call over its steps."""
    curves = _trained(runs)
    figure = figures.new_figure(figures.WIDTH, _HEIGHT)
    top, below = figure.subplots(2)
    draw_rates(top, curves)
    top.set_xlabel("")
    axes.ticks(top, "x", [], [])
    moms = [mom for run in runs for mom in run.moms]
    steps = range(1, len(moms) + 1)
    draw_rates(below, replace(curves, lrs=(steps, moms)), "momentum", low=min(moms) - 0.02)
    rates = curves.lrs[1]
    first, most, last = map(rate_text, (rates[0], max(rates), rates[-1]))
    text = f"lr of {runs[0].method} from {first} over {most} to {last}"
    return figures.Picture(figure, f"{text}, momentum {min(moms):.2f} to {max(moms):.2f}")


def _trained(runs: Sequence[Run]) -> TrainingCurves:
    curves = curves_of(runs)
    if not len(curves.losses[0]):
        raise ValueError("no step with a finite loss was done yet; train first: learn.fine_tune(1)")
    return curves


def calls(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs by the calls that made them: both stages of a `fine_tune` together."""
    found: list[list[Run]] = []
    for run in runs:
        last = found[-1][-1] if found else None
        goes_on = last and last.stage == HEAD_STAGE != run.stage
        if goes_on and last.method == run.method:
            found[-1].append(run)
        else:
            found.append([run])
    return found


def summary_of(stages: Sequence[Run]) -> dict[str, str]:
    """What a call was, how far it came, its result, its highest rate and how long it took."""
    done = " + ".join(
        f"{len(run.rows)}" if len(run.rows) == run.n_epoch else f"{len(run.rows)} of {run.n_epoch}"
        for run in stages
    )
    rates = [step[-1] for run in stages for step in run.lrs]
    return {
        "when": strftime("%d %b %H:%M", localtime(stages[0].when)) if stages[0].when else "",
        "method": stages[0].method,
        "trained": ", then ".join(dict.fromkeys(run.trained for run in stages if run.trained)),
        "rate": rate_text(max(rates)) if rates else "",
        "epochs": done,
        "status": stages[-1].status,
        "result": _result(stages),
        "time": minutes(sum(row["time"] for run in stages for row in run.rows)),
    }


def overlaid(named: Mapping[str, Sequence[Run]]) -> figures.Picture:
    """The averaged training losses of several calls as lines, and their validation losses dashed.

    Parameters
    ----------
    named : name of a call -> its stages
    """
    curves = {name: _trained(runs) for name, runs in named.items()}
    figure = figures.new_figure(figures.WIDTH, _HEIGHT)
    ax = figure.subplots()
    axes.style_axes(ax)
    longest = max(curves.values(), key=lambda one: one.losses[0][-1])
    ax.set_xlim(step_ends(longest))
    both = [part[1] for one in curves.values() for part in (one.smooth, one.valid)]
    low, high = axes.loss_range(both)
    axes.scale_y(ax, (low, high), "loss")
    lines = []
    for k, one in enumerate(curves.values()):
        lines.append(axes.draw_line(ax, *one.smooth, axes.colour_of(k)))
        if len(one.valid[0]):
            axes.draw_line(ax, *one.valid, axes.colour_of(k), marker="s", dashed=True)
    step_axis(ax)
    axes.legend(ax, lines, list(curves))
    ends = [f"{name} {one.smooth[1][-1]:.4f}" for name, one in curves.items()]
    text = f"train_loss of {', '.join(ends)} at the end; valid_loss dashed"
    return figures.Picture(figure, text)


def runs_table(runs: Sequence[Run]) -> Table:
    """A row for each call: what it was, how far it came, its result and how long it took.

    Below it, across all columns, stands its verdict, if it has one.
    """
    rows = []
    for number, stages in enumerate(calls(runs), 1):
        found = summary_of(stages)
        rows.append((str(number), *(found[key] for key in _COLUMNS)))
        if text := verdict(stages):
            rows.append((f"run {number}: {text}",))
    columns = ("run", *_COLUMNS)
    title = counted(len(calls(runs)), "run") if rows else "nothing was trained yet"
    return Table(title, columns, rows)


def _result(stages: Sequence[Run]) -> str:
    """The metrics of the epoch that was kept, else of the last, else the validation loss."""
    kept = stages[-1].kept
    rows = [kept] if kept else [row for run in stages for row in run.rows]
    names = stages[-1].names[3:-1] or ["valid_loss"]
    return (
        ", ".join(f"{name} {format_value(name, rows[-1][name])}" for name in names) if rows else ""
    )
