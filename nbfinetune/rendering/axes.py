"""Axes: thin axes with round numbers, lines and names in one look, for plots by matplotlib."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from nbfinetune.rendering.names import printable
from nbfinetune.rendering.numbers import rate_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# Okabe and Ito's colours, for colour-blind eyes; the light ones darkened until text is readable.
COLOURS = ("#0072b2", "#c04f00", "#007a59", "#a8508a", "#555555")
INK, SOFT, KEPT = "#222222", "#555555", "#ad1457"
SMALL, NORMAL = 8, 9  # points: 11 and 12.5 px
_EM = 0.56  # width of a letter in these, on average
_SHARE = 0.84  # of a figure's width that axes have, about
_MARKED = 40  # points of a line that are marked; more run into each other
_ROWS = 6  # of names above axes
# The sans fonts of desktops, matplotlib's own, and those that have Chinese, Japanese and Korean.
_FONTS = (
    *("Segoe UI", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"),
    *("Malgun Gothic", "Apple SD Gothic Neo", "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic"),
    *("Microsoft YaHei", "PingFang SC", "Noto Sans CJK SC", "Noto Sans CJK JP", "Hiragino Sans"),
)


def style_axes(ax: "Axes", *, spines: str = "left bottom") -> None:
    """Thin axes at some sides, without a grid and without ticks so far."""
    ax.set_facecolor("white")
    ax.grid(False)
    for name, spine in ax.spines.items():
        spine.set(visible=name in spines, color=INK, linewidth=0.8)
    ax.tick_params(which="both", **dict.fromkeys(("top", "right", "bottom", "left"), False))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks([])
        axis.set_ticks([], minor=True)


def ticks(ax: "Axes", axis: str, values: Sequence[float], labels: Sequence[str]) -> None:
    """Ticks at values, with these labels.

    Parameters
    ----------
    axis : "x", "y", or "right" for the y axis of `twinx`
    """
    side = {"x": "bottom", "y": "left"}.get(axis, "right")
    of = "x" if axis == "x" else "y"
    shown = {side: True, f"label{side}": True, "length": 3.5, "width": 0.8, "pad": 3}
    ax.tick_params(of, direction="out", color=INK, labelrotation=0, **shown)
    getattr(ax, f"set_{of}ticks")(list(values), labels=list(labels), **font())


def scale_y(ax: "Axes", span: tuple[float, float], title: str, *, right: bool = False) -> None:
    """A linear y axis from one value to another, on the left or the right."""
    ax.set_ylim(span)
    values = linear_ticks(*span, most=6 if ax.get_subplotspec().rowspan.start == 0 else 4)
    ticks(ax, "right" if right else "y", values, number_texts(values))
    ax.set_ylabel(title, **font())


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values from low to high, 1, 2 or 5 times a power of ten apart."""
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high)
    slack = (high - low) * 1e-9
    return [float(v) for v in values if low - slack <= v <= high + slack]


def log_ticks(low: float, high: float) -> list[float]:
    """The powers of ten from low to high, and 2 and 5 times these if they are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**k for k in decades if low <= 10.0**k * (1 + 1e-9) and 10.0**k <= high * 1.000001]
    if len(tens) > 2:
        return tens
    return [m * 10.0**k for k in decades for m in (1, 2, 5) if low <= m * 10.0**k <= high]


def number_texts(values: Sequence[float]) -> list[str]:
    """The numbers of an axis, all in one form: 0.0, 0.5, 1.0 or 0, 5e-4, 1e-3 or 0, 500, 1,000."""
    if max(map(abs, values), default=1) < 0.01:
        return [rate_text(v).replace(".0e", "e") if v else "0" for v in values]
    digits = next((n for n in range(9) if all(abs(v - round(v, n)) < 1e-9 for v in values)), 9)
    return [f"{v:,.{digits}f}" for v in values]


def draw_line(
    ax: "Axes",
    xs: Sequence[float],
    ys: Sequence[float],
    colour: str,
    *,
    marker: str = "",
    dashed: bool = False,
) -> "Line2D":
    """A line, with a mark of matplotlib's at each point, such as "o", unless they are many."""
    [line] = ax.plot(
        xs,
        ys,
        color=colour,
        linewidth=1.7,
        linestyle=(0, (3, 1.5)) if dashed else "-",
        marker=marker if len(xs) <= _MARKED else "",
        **{"markersize": 4, "markeredgewidth": 0, "antialiased": True},
        **{"solid_capstyle": "round", "dash_capstyle": "butt", "solid_joinstyle": "round"},
    )
    return line


def draw_points(ax: "Axes", xs: Sequence[float], ys: Sequence[float], colour: str) -> None:
    """Light points."""
    look = {"linestyle": "none", "marker": ".", "markersize": 4.5, "markeredgewidth": 0}
    ax.plot(xs, ys, color=colour, alpha=0.35, antialiased=True, **look)


def font(size: float = NORMAL, colour: str = INK) -> dict[str, object]:
    """How a text looks; it is shown as it is, without formulas."""
    return {
        **{"fontfamily": _installed_fonts(), "fontsize": size, "color": colour},
        **{"fontstyle": "normal", "fontweight": "normal", "fontvariant": "normal"},
        **{"parse_math": False, "usetex": False},
    }


def legend(ax: "Axes", lines: Sequence, names: Sequence[str], *, below: bool = False) -> None:
    """The names of lines, in their colours, above the axes, or below all."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    shown = (ax.figure if below else ax).legend(
        lines,
        [shorter(name, 24) for name in names],
        **({"loc": "outside lower center"} if below else place),
        **{"ncols": 4, "frameon": False, "borderpad": 0.2, "handlelength": 2.2, "markerscale": 1},
        **{"handletextpad": 0.5, "columnspacing": 1.4, "labelspacing": 0.3, "fontsize": NORMAL},
    )
    for text, line in zip(shown.get_texts(), lines, strict=True):
        text.set(**font(colour=line.get_color()))


def draw_mark(ax: "Axes", x: float, colour: str) -> None:
    """A dashed line at a value of x."""
    look = {"linewidth": 1.2, "linestyle": (0, (4, 3)), "dash_capstyle": "butt"}
    ax.axvline(x, color=colour, marker="", antialiased=True, **look)


def mark(ax: "Axes", places: Sequence[tuple[float, str, str]]) -> None:
    """Dashed lines at values of x, and above the axes their names, none over another.

    Parameters
    ----------
    places : (x, name, colour)
    """
    width = _SHARE * ax.figure.get_size_inches()[0] * 72
    labels: list[_Label] = []
    names: dict[tuple[float, str], str] = {}
    for x, name, colour in places:
        earlier = names.get((x, colour))
        names[x, colour] = f"{earlier}, {name}" if earlier else name
    for (x, colour), name in sorted(names.items(), reverse=True):
        draw_mark(ax, x, colour)
        at = ax.transAxes.inverted().transform(ax.transData.transform((x, 0)))[0] * width
        name = shorter(name, 40)
        label = _free_place(labels, at, _EM * SMALL * len(name), width)
        if label is None:  # so many are not read; what is below the picture names them too
            continue
        labels.append(label)
        left = label.left >= at
        ax.annotate(
            name,
            (x, 1),
            (0, 4 + 1.4 * SMALL * label.row),
            xycoords=ax.get_xaxis_transform(),
            textcoords="offset points",
            ha="left" if left else "right",
            va="bottom",
            annotation_clip=False,
            arrowprops={
                **{"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0},
                **{"shrinkB": 0, "relpos": (0 if left else 1, 0)},
            },
            **font(SMALL, colour),
        )


@dataclass(frozen=True)
class _Label:
    """A text from left to right in a row, and the place that its line comes from, in points."""

    left: float
    right: float
    row: int
    at: float

    def clashes(self, other: "_Label") -> bool:
        """Whether texts overlap, or the line of one goes through the other."""
        if self.row == other.row:
            return self.left < other.right + SMALL and other.left < self.right + SMALL
        low, high = sorted((self, other), key=lambda label: label.row)
        return low.left - 2 < high.at < low.right + 2


def _free_place(labels: Sequence[_Label], at: float, long: float, width: float) -> _Label | None:
    """The lowest row with room on the right of a line, else on its left; None if there is none."""
    for left in (at, at - long):
        for row in range(_ROWS):
            label = _Label(left, left + long, row, at)
            fits = left >= 0 and left + long <= width
            if fits and not any(map(label.clashes, labels)):
                return label
    return None


def shorter(name: str, most: int) -> str:
    """A name in one line of at most so many characters; "?" for those that no font here has."""
    letters = _letters()
    text = "".join(c if ord(c) in letters else "?" for c in printable(name))
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def drawable(text: str) -> bool:
    """Whether the fonts of this machine have all letters of a text."""
    return all(ord(letter) in _letters() for letter in printable(text))


@cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset().union(*(get_font(findfont(f)).get_charmap() for f in _installed_fonts()))


@cache
def _installed_fonts() -> list[str]:
    """Those of `_FONTS` that there are: matplotlib complains of each other one."""
    from matplotlib.font_manager import fontManager

    there = {each.name for each in fontManager.ttflist}
    return [name for name in _FONTS if name in there]


def colour_of(k: int) -> str:
    """The colour of the k-th line."""
    return COLOURS[k % len(COLOURS)]


def loss_range(curves: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The finite losses that a plot shows: a blown-up end does not flatten the rest.

    Parameters
    ----------
    curves : finite losses, of some curve at least one
    """
    curves = [losses for losses in curves if len(losses)]
    low = min(min(losses) for losses in curves)
    typical = max(sorted(losses)[len(losses) // 2] for losses in curves)
    top = max(max(losses) for losses in curves)
    high = min(top, low + 3 * max(typical - low, abs(typical) / 3))
    margin = (high - low) * 0.05 or 0.5
    # No axis of losses that are positive goes below 0.
    return low - margin if low < 0 else max(low - margin, 0.0), high + margin
