"""Matrix report: a confusion matrix and its most confused pairs as text and as a picture."""

import base64
import io
from dataclasses import dataclass, field
from html import escape

import numpy as np
from PIL import Image

from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.matrix_view import WHOLE, MatrixView, matrix_view
from nbfinetune.rendering.names import html_text, printable
from nbfinetune.rendering.tables import Table

_PAIRS = 10  # pairs in a table
_PIXELS = 1000  # of the side of the picture of all classes
_SIDE = 600  # px of all cells
_NUMBERED = 22  # px of a cell that holds its number
_ERROR, _RIGHT = (213, 94, 0), (0, 114, 178)  # Okabe and Ito's: apart for colour-blind eyes
_LEAST = 0.12  # no cell that counts is white


def confused_table(interp: ClassificationInterpretation, min_val: int = 1) -> Table:
    """The most confused pairs, and what share of the actual class they are."""
    support = interp.scores()["support"]
    pairs = interp.confused_cells(min_val)
    rows = [
        (interp.vocab[i], interp.vocab[j], str(n), f"{n / support[i]:.1%}")
        for i, j, n in pairs[:_PAIRS]
    ]
    title = "most confused" if pairs else "nothing is confused"
    left = f"and {len(pairs) - _PAIRS} pairs more" if len(pairs) > _PAIRS else ""
    return Table(title, ("actual", "predicted", "times", "of the actual class"), rows, left)


@dataclass(frozen=True)
class MatrixReport:
    """What a confusion matrix leaves in a notebook without a kernel.

    Parameters
    ----------
    interp : the predictions
    view : what is drawn; above 60 classes all of them are, a pixel each
    min_val : pairs less frequent are left out
    note : a last line
    """

    interp: ClassificationInterpretation
    view: MatrixView = field(repr=False)
    min_val: int = 1
    note: str = ""

    @property
    def headline(self) -> str:
        """Size, accuracy and errors in one line."""
        interp = self.interp
        part = f" of {interp.n_planned:,} (stopped)" if len(interp) < interp.n_planned else ""
        return (
            f"{len(interp):,}{part} items of {len(interp.vocab):,} classes, accuracy "
            f"{interp.accuracy:.4f}, {interp.n_wrong:,} wrong"
        )

    def __repr__(self) -> str:
        table = repr(confused_table(self.interp, self.min_val))
        return "\n".join(line for line in (self.headline, table, self.note) if line)

    def _repr_html_(self) -> str:
        picture = _small(self.interp) if len(self.interp.vocab) > WHOLE else _large(self.view)
        alt = escape(f"confusion matrix: {self.headline}")
        image = f'<img src="{picture}" alt="{alt}" style="max-width:100%;background:white">'
        table = confused_table(self.interp, self.min_val)._repr_html_()
        above, below = (f"<div>{html_text(line)}</div>" for line in (self.headline, self.note))
        return above + image + table + below


def _colour(right: bool, shade: float) -> tuple[int, ...]:
    shade = _LEAST + (1 - _LEAST) * shade
    return tuple(round(255 + (c - 255) * shade) for c in (_RIGHT if right else _ERROR))


def _small(interp: ClassificationInterpretation) -> str:
    """All classes as PNG, a pixel a cell; above 1,000 classes the darkest cell of each pixel."""
    c = len(interp.vocab)
    view = matrix_view(interp, range(c))
    scale = -(-c // _PIXELS)
    side = -(-c // scale)
    rows, columns = view.numbers // c, view.numbers % c
    pixels = np.full((side, side, 3), 255, np.uint8)
    order = np.argsort(view.shades, kind="stable")  # the last one written stays
    base = np.where((rows == columns)[:, None], _RIGHT, _ERROR)
    shades = (_LEAST + (1 - _LEAST) * view.shades)[:, None]
    colours = np.round(255 + (base - 255) * shades)
    pixels[rows[order] // scale, columns[order] // scale] = colours[order]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _large(view: MatrixView) -> str:
    """The view with names and numbers, as SVG."""
    m, names = len(view.names), [printable(name) for name in view.names]
    cell = min(36.0, _SIDE / m)
    side = cell * m
    margin = min(140, 28 + 7 * max(map(len, names)))
    size = margin + side + 2
    font = max(9, min(12, cell - 1))
    parts = [f'<rect width="{size:.0f}" height="{size:.0f}" fill="white"/>']
    for number, count, share, shade in zip(
        view.numbers, view.counts, view.shares, view.shades, strict=True
    ):
        i, j = divmod(int(number), m)
        colour = "rgb({},{},{})".format(*_colour(i == j < m - view.others, shade))
        x, y = margin + j * cell, i * cell
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" '
            f'fill="{colour}"/>'
        )
        if cell >= _NUMBERED:
            text = str(count) if view.normalize == "none" else f"{share:.2f}".lstrip("0")
            ink = "white" if shade > 0.6 else "#222"
            parts.append(_text(x + cell / 2, y + cell / 2, text, "middle", ink, 12))
    lines = "".join(
        f"M{margin + k * cell:.1f},0V{side:.1f}M{margin:.1f},{k * cell:.1f}h{side:.1f}"
        for k in range(m + 1)
    )
    parts.append(f'<path d="{lines}" stroke="#ddd" fill="none"/>')
    most = int((margin - 28) / 6)
    for k, name in enumerate(names):
        short = name if len(name) <= most else name[: most - 1] + "\u2026"
        at = (k + 0.5) * cell
        parts.append(_text(margin - 4, at, short, "end", "#222", font))
        turn = f' transform="rotate(-90 {margin + at:.1f} {side + 5:.1f})"'
        parts.append(_text(margin + at, side + 5, short, "end", "#222", font, turn))
    parts.append(_text(margin + side / 2, size - 8, "predicted", "middle", "#444", 11))
    turn = f' transform="rotate(-90 8 {side / 2:.1f})"'
    parts.append(_text(8, side / 2, "actual", "middle", "#444", 11, turn))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size:.0f} {size:.0f}" '
        f'width="{size:.0f}" height="{size:.0f}" font-family="sans-serif">{"".join(parts)}</svg>'
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _text(
    x: float, y: float, text: str, anchor: str, colour: str, size: float, turn: str = ""
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" dominant-baseline="central" '
        f'fill="{colour}" font-size="{size:.0f}"{turn}>{escape(text)}</text>'
    )
