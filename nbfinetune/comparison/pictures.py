"""Pictures of comparisons: errors with their standard errors over the time that they cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbfinetune.comparison.probe import ComparedNetwork
from nbfinetune.rendering import axes, figures
from nbfinetune.rendering.ticks import log_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 3.6  # inches
_MARKERS = "osD^vPX"  # where colours come again, they differ
_BESIDE = 5  # points from a mark to its text, in a corner of each network's own
_CORNERS = (("right", "top"), ("left", "bottom"), ("left", "top"), ("right", "bottom"))


def comparison_figure(
    networks: Sequence[ComparedNetwork], best: ComparedNetwork, unit: str
) -> "Figure":
    """Errors over a logarithmic axis of time: a line for each network, a mark for each size.

    Parameters
    ----------
    networks : at least one
    best : is ringed
    unit : of the time
    """
    figure = figures.new_figure(figures.WIDTH, _HEIGHT)
    ax = figure.subplots()
    _draw_axes(ax, networks, unit)
    names = list(dict.fromkeys(sorted(one.name for one in networks)))
    lines = []
    for k, name in enumerate(names):
        sizes = sorted((one for one in networks if one.name == name), key=lambda one: one.size)
        xs, ys = [one.seconds for one in sizes], [one.error for one in sizes]
        colour = axes.colour_of(k)
        marker = _MARKERS[k // len(axes.COLOURS) % len(_MARKERS)]
        lines.append(axes.draw_line(ax, xs, ys, colour, marker=marker))
        ends = [(one.error - one.standard_error, one.error + one.standard_error) for one in sizes]
        ax.vlines(xs, *zip(*ends, strict=True), color=colour, alpha=0.5, linewidth=1.2)
        for one in sizes:
            _name_size(ax, one, colour, _CORNERS[k % len(_CORNERS)])
    ring = {"marker": "o", "markersize": 12, "fillstyle": "none", "markeredgewidth": 1.4}
    ax.plot([best.seconds], [best.error], color=axes.INK, linestyle="none", **ring)
    axes.legend(ax, lines, names, below=len(names) > 4)
    return figure


def _draw_axes(ax: "Axes", networks: Sequence[ComparedNetwork], unit: str) -> None:
    times = [one.seconds for one in networks]
    ends = min(times) / 1.3, max(times) * 1.3
    axes.style_axes(ax)
    ax.set(xscale="log", xlim=ends)
    axes.style_axes(ax)
    values = log_ticks(*ends)
    axes.ticks(ax, "x", values, [f"{v:g}" for v in values])
    ax.set_xlabel(unit, **axes.font())
    low = min(one.error - one.standard_error for one in networks)
    high = max(one.error + one.standard_error for one in networks)
    margin = (high - low) * 0.06 or 0.05
    axes.scale_y(ax, (max(low - margin, 0.0), high + margin), "error")


def _name_size(ax: "Axes", one: ComparedNetwork, colour: str, corner: tuple[str, str]) -> None:
    """The size at a mark; `corner` is that of the text which is nearest."""
    across, up = corner
    ax.annotate(
        f"{one.size} px",
        (one.seconds, one.error),
        (_BESIDE if across == "left" else -_BESIDE, _BESIDE if up == "bottom" else -_BESIDE),
        textcoords="offset points",
        ha=across,
        va=up,
        annotation_clip=False,
        **axes.font(axes.SMALL, colour),
    )
