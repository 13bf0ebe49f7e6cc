r"""Tables: tables and picture sheets that show themselves as text and as HTML.

Every cell, title and caption is untrusted text: it is escaped in HTML, and what cannot be printed
is written out, such as \n.
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from nbfinetune.rendering.names import printable

_THUMBNAIL = 128  # px
_JPEG_QUALITY = 85


# Hebrew, Arabic and their neighbours, and the marks that turn text around.
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]"
)


def bidi_isolated(name: str) -> str:
    """A name that leaves the numbers around it in their order, whatever way it is written."""
    return f"\u2068{name}\u2069" if _RIGHT_TO_LEFT.search(name) else name


@dataclass(frozen=True)
class Table:
    """Rows under columns, between a title and a footer.

    Parameters
    ----------
    title : line above, may be empty
    columns : the headings
    rows : texts, one for each column; a row of one text is a line across all columns
    footer : line below, may be empty
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    footer: str = ""

    def __repr__(self) -> str:
        rows = [[printable(cell) for cell in row] for row in (self.columns, *self.rows)]
        full = [row for row in rows if len(row) == len(self.columns)]
        widths = [max(len(cell) for cell in column) for column in zip(*full, strict=True)]
        lines = [self.title, *(_text_row(row, widths) for row in rows), self.footer]
        return "\n".join(printable(line) for line in lines if line)

    def _repr_html_(self) -> str:
        n = len(self.columns)
        head = "".join(f"<th>{_html(c)}</th>" for c in self.columns)
        body = "".join(
            f'<tr><td colspan="{n}" style="text-align:left"><b>{_html(row[0])}</b></td></tr>'
            if len(row) == 1 < n
            else "<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        title = f"<div>{_html(self.title)}</div>" if self.title else ""
        footer = f"<div>{_html(self.footer)}</div>" if self.footer else ""
        return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{footer}"


def _html(text: str) -> str:
    return escape(printable(text))


def _text_row(row: Sequence[str], widths: Sequence[int]) -> str:
    if len(row) == 1 < len(widths):
        return row[0]
    first, *rest = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]).rstrip()


@dataclass(frozen=True)
class StaticView:
    """What a live screen is without a kernel; hidden while the screen above it is live.

    Parameters
    ----------
    shown : shows itself as text and as HTML
    """

    shown: object

    def __repr__(self) -> str:
        return repr(self.shown)

    def _repr_html_(self) -> str:
        return f'<div class="nbft-static-view">{self.shown._repr_html_()}</div>'


@dataclass(frozen=True)
class PictureSheet:
    """Pictures with a caption under each.

    Parameters
    ----------
    pictures : RGB, of any size; shown as thumbnails
    captions : one for each picture, also its alternative text
    """

    pictures: Sequence[Image.Image]
    captions: Sequence[str]

    def __repr__(self) -> str:
        return f"{len(self.pictures)} pictures: {', '.join(map(printable, self.captions))}"

    def _repr_html_(self) -> str:
        return "".join(map(_figure, self.pictures, self.captions))


def _figure(picture: Image.Image, caption: str) -> str:
    thumbnail = picture.copy()
    thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure style="display:inline-block;margin:4px;width:{_THUMBNAIL}px">'
        f'<img src="data:image/jpeg;base64,{data}" alt="{_html(caption)}">'
        f'<figcaption style="overflow-wrap:anywhere">{_html(caption)}</figcaption></figure>'
    )
