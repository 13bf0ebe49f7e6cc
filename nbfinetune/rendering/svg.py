"""Plots as SVG pictures within HTML: what a saved notebook shows without a kernel.

The SVG is the data of an <img>: JupyterLab strips <svg> from notebooks that it does not trust, such
as everyone else's.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nbfinetune.rendering.names import html_text, printable

WIDTH, HEIGHT = 640, 330
_LEFT, _RIGHT = 56, 584
_ROW = 15  # px of a line of text
# Okabe and Ito's colours, for colour-blind eyes; the light ones darkened until text is readable.
COLOURS = ("#0072b2", "#c04f00", "#007a59", "#a8508a", "#555555")


@dataclass(frozen=True)
class Plot:
    """A pair of axes, and what is drawn in it; each method gives SVG elements.

    Parameters
    ----------
    x_range, y_range : values at the ends of the axes
    rows : px of the upper and the lower end
    log_x : whether the x axis is logarithmic
    """

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    rows: tuple[int, int]
    log_x: bool = False

    def x(self, value: float) -> float:
        """Where a value is, in px; beyond the ends it is at the end."""
        low, high = self.x_range
        if self.log_x:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        share = (value - low) / (high - low)
        return _LEFT + min(max(share, 0), 1) * (_RIGHT - _LEFT)

    def y(self, value: float) -> float:
        """Where a value is, in px; beyond the ends it is at the end."""
        low, high = self.y_range
        top, bottom = self.rows
        return bottom - min(max((value - low) / (high - low), 0), 1) * (bottom - top)

    def axes(self, y_title: str, x_title: str = "") -> list[str]:
        """Both axes; the x axis has labels if it has a title."""
        top, bottom = self.rows
        middle = (top + bottom) / 2
        parts = [
            f'<path d="M{_LEFT},{top}V{bottom}H{_RIGHT}" fill="none" stroke="black"/>',
            f'<text x="12" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 12 {middle})">{escape(y_title)}</text>',
        ]
        low, high = self.y_range
        n = 4 if bottom - top > 100 else 2
        for k in range(n + 1):
            value = low + (high - low) * k / n
            text = f"{value:.2f}" if high >= 0.1 else f"{value:.0e}".replace("e-0", "e-")
            text = text if value else "0"
            parts.append(_text(_LEFT - 6, self.y(value) + 4, text, "end"))
        if x_title:
            parts.append(_text((_LEFT + _RIGHT) / 2, bottom + 34, x_title, "middle"))
            for value, text in self._ticks():
                at = self.x(value)
                parts.append(f'<path d="M{at:.1f},{bottom}v5" stroke="black"/>')
                parts.append(_text(at, bottom + 18, text, "middle"))
        return parts

    def _ticks(self) -> list[tuple[float, str]]:
        low, high = self.x_range
        if self.log_x:
            first, last = math.log10(low) - 1e-9, math.log10(high) + 1e-9
            return [(10.0**k, f"1e{k}") for k in range(math.ceil(first), math.floor(last) + 1)]
        return [
            (v, f"{v:.0f}") for v in sorted({round(low + (high - low) * k / 4) for k in range(5)})
        ]

    def right_axis(self, y_title: str) -> list[str]:
        """A second y axis."""
        top, bottom = self.rows
        at = WIDTH - 8
        parts = [
            f'<path d="M{_RIGHT},{top}V{bottom}" stroke="black"/>',
            f'<text x="{at}" y="{(top + bottom) / 2}" text-anchor="middle" '
            f'transform="rotate(90 {at} {(top + bottom) / 2})">{escape(y_title)}</text>',
        ]
        low, high = self.y_range
        for value in (low, (low + high) / 2, high):
            parts.append(_text(_RIGHT + 6, self.y(value) + 4, f"{value:.1f}", "start"))
        return parts

    def dots(self, xs: Sequence[float], ys: Sequence[float], colour: str) -> list[str]:
        """Light points."""
        return [
            f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="2" fill="{colour}" '
            'fill-opacity="0.35"/>'
            for x, y in zip(xs, ys, strict=True)
        ]

    def line(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        colour: str,
        *,
        marked: bool = False,
        dashed: bool = False,
    ) -> list[str]:
        """A line, with a square at each point if `marked`."""
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        parts = [
            f'<polyline points="{self._points(xs, ys)}" fill="none" stroke="{colour}" '
            f'stroke-width="2"{dash}/>'
        ]
        if marked:
            parts += [
                f'<rect x="{self.x(x) - 3:.1f}" y="{self.y(y) - 3:.1f}" width="6" height="6" '
                f'fill="{colour}"/>'
                for x, y in zip(xs, ys, strict=True)
            ]
        return parts

    def band(
        self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str
    ) -> list[str]:
        """The area between two lines."""
        points = f"{self._points(xs, low)} {self._points(xs[::-1], high[::-1])}"
        return [f'<polygon points="{points}" fill="{colour}" fill-opacity="0.15"/>']

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))

    def shade(self, low: float, high: float, colour: str) -> list[str]:
        """The stretch between two values of x."""
        top, bottom = self.rows
        a, b = self.x(low), self.x(high)
        return [
            f'<rect x="{a:.1f}" y="{top}" width="{max(b - a, 1):.1f}" height="{bottom - top}" '
            f'fill="{colour}" fill-opacity="0.12"/>'
        ]

    def mark(self, value: float, row: int, label: str, colour: str) -> list[str]:
        """A vertical line at a value of x, its label in text row `row`."""
        top, bottom = self.rows
        at = self.x(value)
        anchor, shift = ("end", -4) if at > WIDTH * 0.7 else ("start", 4)
        return [
            f'<path d="M{at:.1f},{top}V{bottom}" stroke="{colour}" stroke-width="2" '
            'stroke-dasharray="5 3"/>',
            _text(at + shift, top + 12 + _ROW * row, label, anchor, colour),
        ]

    def legend(self, names: Sequence[str]) -> list[str]:
        """The names in the order of `COLOURS`, in a line above the plot."""
        parts, at = [], _LEFT
        for k, name in enumerate(names):
            parts.append(_text(at, self.rows[0] - 8, f"\u25cf {name}", "start", colour_of(k)))
            at += 24 + 7 * len(name)
        return parts


def colour_of(k: int) -> str:
    """The colour of the k-th line."""
    return COLOURS[k % len(COLOURS)]


def figure(parts: Sequence[str], alt: str, caption: str = "") -> str:
    """The elements as an HTML figure: a picture on white, which a dark page needs."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )
    data = base64.b64encode(svg.encode()).decode()
    below = f"<figcaption>{html_text(caption)}</figcaption>" if caption else ""
    return (
        f'<figure style="margin:0"><img src="data:image/svg+xml;base64,{data}" '
        f'alt="{escape(printable(alt))}" width="{WIDTH}">{below}</figure>'
    )


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


def _text(x: float, y: float, text: str, anchor: str, colour: str = "black") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(printable(text))}</text>"
    )
