"""Figures: plots by matplotlib in one look, and as pictures within HTML for saved notebooks.

A figure is a PNG in an <img>: JupyterLab strips <svg> from notebooks that it does not trust, and
GitHub shows no SVG in an <img>. Nothing of matplotlib that is global is used or changed (pyplot,
back end, rcParams), so the user's settings stay, and play no part: all that they say is said here.
"""

import base64
import io
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from nbfinetune.rendering.names import html_text, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, DPI = 6.4, 100  # inches and CSS px of an inch
_DENSITY = 2  # pixels of a CSS px: sharp on displays of today
_MOST_PIXELS = 4000  # a side at that density
_PALETTE = 128  # colours of a PNG: a plot has few, and is a third as large
# No white slab on a dark page: light and dark change places and colours keep their hue. Where
# styles are stripped (GitHub, notebooks that are not trusted) the picture stays on white paper.
_DARK = (
    '<style>body[data-jp-theme-light="false"] .nbft-picture,body.vscode-dark .nbft-picture'
    "{filter:invert(0.93) hue-rotate(180deg)}</style>"
)


@dataclass(frozen=True)
class Picture:
    """A figure that shows itself, in words too; `figure.savefig("plot.pdf")` saves it.

    Parameters
    ----------
    figure : matplotlib's
    text : what it shows
    """

    figure: "Figure" = field(repr=False)
    text: str

    def __repr__(self) -> str:
        return printable(self.text)

    def _repr_html_(self) -> str:
        return figure_html(self.figure, self.text)


def new_figure(width: float, height: float, dpi: float = DPI) -> "Figure":
    """An empty figure on white.

    Parameters
    ----------
    width, height : in inches
    dpi : CSS px of an inch on a page
    """
    from matplotlib.figure import Figure  # only once something is drawn: it takes 0.4 s

    return Figure((width, height), dpi, facecolor="white", linewidth=0, layout="constrained")


def figure_html(figure: "Figure", alt: str, caption: str = "") -> str:
    """A figure as HTML, on white paper that a dark theme turns dark."""
    width, _ = figure.get_size_inches() * figure.dpi
    return picture_html(png(figure), alt, round(width), caption)


def picture_html(data: bytes, alt: str, width: int | None = None, caption: str = "") -> str:
    """A PNG as HTML, which a dark theme turns dark.

    Parameters
    ----------
    alt : what it shows
    width : CSS px; default: a px each pixel
    """
    source = base64.b64encode(data).decode()
    wide = f' width="{width}"' if width else ""
    below = f"<figcaption>{html_text(caption)}</figcaption>" if caption else ""
    return (
        f'{_DARK}<figure style="margin:0"><img class="nbft-picture" '
        f'src="data:image/png;base64,{source}" alt="{escape(printable(alt))}"{wide} '
        f'style="max-width:100%;background:white">{below}</figure>'
    )


def png(figure: "Figure") -> bytes:
    """A figure in a palette of its colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    longest = max(figure.get_size_inches()) * figure.dpi
    density = min(_DENSITY, max(_MOST_PIXELS / longest, 1))
    dpi, canvas = figure.dpi, FigureCanvasAgg(figure)
    figure.set_dpi(dpi * density)
    try:
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    finally:
        figure.set_dpi(dpi)
    few = Image.fromarray(np.ascontiguousarray(pixels)).quantize(
        _PALETTE, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
    )
    palette, paper = few.getpalette(), few.getpixel((0, 0))
    palette[3 * paper : 3 * paper + 3] = (
        255,
        255,
        255,
    )  # in a palette it is a mean with what is near
    few.putpalette(palette)
    out = io.BytesIO()
    few.save(out, "PNG")
    return out.getvalue()
