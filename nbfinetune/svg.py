"""Curves as SVG pictures within HTML: what a saved notebook shows without a kernel.

The SVG is the data of an <img>: JupyterLab strips <svg> from notebooks that it does not trust, such
as everyone else's.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 16, 44
_MOST_POINTS = 1000
_COLOURS = ("#d55e00", "#009e73", "#cc79a7", "#56b4e9")  # Okabe and Ito, for colour-blind eyes


def lr_curve(
    lrs: Sequence[float],
    losses: Sequence[float],
    smooth: Sequence[float],
    suggestions: Mapping[str, float],
    bracket: tuple[float, float] | None,
    text: str,
) -> str:
    """Loss over learning rate on a log axis, as a figure whose caption is `text`.

    Raw losses are light points, their average a line, suggestions marked and named, the bracket of
    usable rates shaded. Losses far above the rest are cut off.
    """
    finite = [i for i, loss in enumerate(losses) if math.isfinite(loss)][:_MOST_POINTS]
    if not finite:
        return f"<div>{escape(text)}</div>"
    low, high = _loss_range([losses[i] for i in finite])
    left, right = math.log10(lrs[0]), math.log10(max(lrs[-1], lrs[0] * 10))

    def x(lr: float) -> float:
        return _LEFT + (math.log10(lr) - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def y(loss: float) -> float:
        share = (min(max(loss, low), high) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    if bracket:
        a, b = x(bracket[0]), x(bracket[1])
        parts.append(
            f'<rect x="{a:.1f}" y="{_TOP}" width="{max(b - a, 1):.1f}" '
            f'height="{_HEIGHT - _TOP - _BOTTOM}" fill="#009e73" fill-opacity="0.12"/>'
        )
    parts += _axes(x, y, left, right, low, high)
    parts += [
        f'<circle cx="{x(lrs[i]):.1f}" cy="{y(losses[i]):.1f}" r="2" fill="#0072b2" '
        'fill-opacity="0.35"/>'
        for i in finite
    ]
    line = " ".join(f"{x(lrs[i]):.1f},{y(smooth[i]):.1f}" for i in finite)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#0072b2" stroke-width="2"/>')
    for k, (name, lr) in enumerate(suggestions.items()):
        if math.isfinite(lr):
            parts.append(_marker(x(lr), k, f"{name} {lr:.1e}"))
    return (
        f'<figure style="margin:0"><img src="data:image/svg+xml;base64,{_picture(parts)}" '
        f'alt="{escape(text)}" width="{_WIDTH}"><figcaption>{escape(text)}</figcaption></figure>'
    )


def _picture(parts: list[str]) -> str:
    """The parts as an SVG on white, which a dark page needs, in base64."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )
    return base64.b64encode(svg.encode()).decode()


def _loss_range(losses: list[float]) -> tuple[float, float]:
    """The losses shown: a blown-up end does not flatten the rest."""
    low = min(losses)
    typical = sorted(losses)[len(losses) // 2]
    high = min(max(losses), low + 3 * max(typical - low, abs(typical) / 3))
    margin = (high - low) * 0.05 or 0.5
    return low - margin, high + margin


def _axes(x, y, left: float, right: float, low: float, high: float) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    parts = [
        f'<path d="M{_LEFT},{_TOP}V{bottom}H{_WIDTH - _RIGHT}" fill="none" stroke="black"/>',
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" '
        'text-anchor="middle">learning rate</text>',
        f'<text x="14" y="{(_TOP + bottom) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(_TOP + bottom) / 2})">loss</text>',
    ]
    for decade in range(math.ceil(left - 1e-9), math.floor(right + 1e-9) + 1):
        at = x(10.0**decade)
        parts.append(f'<path d="M{at:.1f},{bottom}v5" stroke="black"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">1e{decade}</text>')
    for k in range(5):
        loss = low + (high - low) * k / 4
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.2f}</text>'
        )
    return parts


def _marker(at: float, k: int, label: str) -> str:
    colour = _COLOURS[k % len(_COLOURS)]
    anchor, shift = ("end", -4) if at > _WIDTH * 0.75 else ("start", 4)
    return (
        f'<path d="M{at:.1f},{_TOP}V{_HEIGHT - _BOTTOM}" stroke="{colour}" stroke-width="2" '
        'stroke-dasharray="5 3"/>'
        f'<text x="{at + shift:.1f}" y="{_TOP + 12 + 15 * k}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(label)}</text>'
    )
