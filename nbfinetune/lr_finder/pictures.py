"""Pictures of searches: losses over learning rates, with what is suggested."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Protocol

from nbfinetune.rendering import axes, figures
from nbfinetune.rendering.downsampling import downsample
from nbfinetune.rendering.numbers import rate_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_HEIGHT = 3.6  # inches


class Curve(Protocol):
    """What is drawn of a search, see `LRFindResult`."""

    lrs: list[float]
    losses: list[float]
    low: float | None
    high: float | None
    centred: list[float]
    marks: dict[str, float]
    band: tuple[list[float], list[float]] | None


def lr_picture(results: Mapping[str, Curve], text: str) -> str:
    """Losses over learning rates as HTML, with `text` below; the text alone if none is finite."""
    results = {n: found for n, found in results.items() if any(map(math.isfinite, found.losses))}
    if not results:
        return f"<div>{escape(text)}</div>"
    return figures.figure_html(lr_figure(results), text, text)


def lr_figure(results: Mapping[str, Curve]) -> "Figure":
    """Losses over learning rates, of results with finite ones.

    Raw losses are light points, their average a line, suggestions marked and named, the usable
    rates of a single curve shaded; several curves have a legend and marks in their colours.
    """
    figure = figures.new_figure(figures.WIDTH, _HEIGHT)
    ax = figure.subplots()
    curves = list(results.values())
    _draw_axes(ax, curves)
    lines = [_draw_curve(ax, found, k) for k, found in enumerate(curves)]
    marks = [
        (lr, f"{name if i else f'suggested rate ({name})'} {rate_text(lr)}", k)
        for k, f in enumerate(curves)
        for i, (name, lr) in enumerate(f.marks.items())
    ]
    if len(curves) == 1:
        _draw_usable(ax, curves[0])
        marks = [(lr, text, 1 + k % 4) for k, (lr, text, _) in enumerate(marks)]
    else:
        axes.legend(ax, lines, list(results), below=True)
    axes.mark(ax, [(lr, text, axes.colour_of(k)) for lr, text, k in marks])
    return figure


def _draw_axes(ax: "Axes", curves: Sequence[Curve]) -> None:
    """Rates on a logarithmic axis, losses on a linear one."""
    ends = min(c.lrs[0] for c in curves), max(max(c.lrs[-1], c.lrs[0] * 10) for c in curves)
    axes.style_axes(ax)
    ax.set(xscale="log", xlim=ends)
    axes.style_axes(ax)
    rates = axes.log_ticks(*ends)
    axes.ticks(ax, "x", rates, [rate_text(lr).replace(".0e", "e") for lr in rates])
    ax.set_xlabel("learning rate", **axes.font())
    losses = [[loss for loss in c.losses if math.isfinite(loss)] for c in curves]
    axes.scale_y(ax, axes.loss_range(losses), "loss")


def _draw_curve(ax: "Axes", found: Curve, k: int) -> "Line2D":
    """Raw losses, their average and, of several sweeps, the band of their averages."""
    colour = axes.colour_of(k)
    if found.band:
        low, high = found.band
        ax.fill_between(found.lrs[: len(low)], low, high, color=colour, alpha=0.15, linewidth=0)
    axes.draw_points(ax, *downsample(found.lrs, found.losses), colour)
    return axes.draw_line(ax, *downsample(found.lrs, found.centred), colour)


def _draw_usable(ax: "Axes", found: Curve) -> None:
    """The rates between which training works, shaded and named."""
    if found.low is None:
        return
    green = axes.colour_of(2)
    ax.axvspan(found.low, found.high, facecolor=green, alpha=0.12, linewidth=0)
    ax.text(
        found.high,
        0.98,
        "usable range ",
        transform=ax.get_xaxis_transform(),
        ha="right",
        va="top",
        clip_on=False,
        **axes.font(axes.SMALL, green),
    )
