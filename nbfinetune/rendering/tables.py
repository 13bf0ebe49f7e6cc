"""Tables: tables and picture sheets that show themselves as text and as HTML.

Every cell, title and caption is untrusted text: it is escaped in HTML.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from nbfinetune.rendering.names import bidi_isolated, html_text, printable, shortened
from nbfinetune.rendering.numbers import counted

_THUMBNAIL = 128  # px
_JPEG_QUALITY = 85
_LONGEST = 120  # characters of a cell; a file name has 255 at most


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

    def _shown(self, row: Sequence[str]) -> list[str]:
        """The cells of a row in one line each, long ones shortened; a line across stays whole."""
        if len(row) == 1 < len(self.columns):
            return [printable(row[0])]
        return [shortened(cell, _LONGEST) for cell in row]

    def __repr__(self) -> str:
        columns, *rows = (self._shown(row) for row in (self.columns, *self.rows))
        full = [columns, *(row for row in rows if len(row) == len(columns))]
        widths = [max(len(cell) for cell in column) for column in zip(*full, strict=True)]
        lines = [_text_row(row, widths) for row in (columns, *rows)]
        return "\n".join(
            line for line in (printable(self.title), *lines, printable(self.footer)) if line
        )

    def _repr_html_(self) -> str:
        n = len(self.columns)
        head, *body = ([*map(html_text, self._shown(row))] for row in (self.columns, *self.rows))
        rows = "".join(
            f'<tr><td colspan="{n}" style="text-align:left"><b>{row[0]}</b></td></tr>'
            if len(row) == 1 < n
            else "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
            for row in body
        )
        titles = "".join(f"<th>{c}</th>" for c in head)
        above, below = (
            f"<div>{html_text(line)}</div>" if line else "" for line in (self.title, self.footer)
        )
        return f"{above}<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>{below}"


def _text_row(row: Sequence[str], widths: Sequence[int]) -> str:
    if len(row) == 1 < len(widths):
        return row[0]
    spaces = [" " * (width - len(cell)) for cell, width in zip(row, widths, strict=True)]
    first, *rest = map(bidi_isolated, row)
    cells = [first + spaces[0], *(s + c for s, c in zip(spaces[1:], rest, strict=True))]
    return "  ".join(cells).rstrip()


# Without a kernel JupyterLab has a line in the place of the screen above, "Loading widget..." or an
# error. It is known by what it lacks: a widget, and the mark of all other kinds of output.
_NO_GHOST = (
    "<style>.jp-OutputArea-child:has(> .jp-OutputArea-output:not([data-mime-type]))"
    ":not(:has(.widget-container)):has(+ .jp-OutputArea-child .nbft-static-view)"
    "{display:none}</style>"
)


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
        return f'{_NO_GHOST}<div class="nbft-static-view">{self.shown._repr_html_()}</div>'


@dataclass(frozen=True)
class PictureSheet:
    """Pictures with a caption under each.

    Parameters
    ----------
    pictures : RGB, of any size; shown as thumbnails
    captions : one for each picture, also its alternative text
    columns : pictures in a row; None = as many as there is room for
    """

    pictures: Sequence[Image.Image]
    captions: Sequence[str]
    columns: int | None = None

    def __repr__(self) -> str:
        captions = ", ".join(shortened(caption, _LONGEST) for caption in self.captions)
        return f"{counted(len(self.pictures), 'picture')}: {captions}"

    def _repr_html_(self) -> str:
        jpegs = map(_as_jpeg, self.pictures)
        captions = ([caption] for caption in self.captions)
        return picture_row(zip(jpegs, self.captions, captions, strict=True), self.columns)


def _as_jpeg(picture: Image.Image) -> bytes:
    thumbnail = picture.copy()
    thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def picture_row(
    pictures: Iterable[tuple[bytes | str, str, Sequence[str]]], columns: int | None = None
) -> str:
    """Pictures side by side as HTML, in boxes of one size: a long caption moves no picture.

    Parameters
    ----------
    pictures : JPEG, or a text where there is none; alternative text; lines of the caption
    columns : pictures in a row; None = as many as there is room for
    """
    figures = "".join(_figure(*picture) for picture in pictures)
    layout = "display:flex;flex-wrap:wrap;align-items:flex-start"
    if columns is not None:
        layout = f"display:grid;grid-template-columns:repeat({columns},max-content);overflow-x:auto"
    return f'<div style="{layout};gap:8px">{figures}</div>'


def _figure(picture: bytes | str, alt: str, caption: Sequence[str]) -> str:
    if isinstance(picture, str):
        inside = f'<span style="overflow-wrap:anywhere">{html_text(picture)}</span>'
    else:
        data = base64.b64encode(picture).decode()
        inside = (
            f'<img src="data:image/jpeg;base64,{data}" alt="{escape(printable(alt))}" '
            'style="max-width:100%;max-height:100%">'
        )
    box = f"width:{_THUMBNAIL}px;height:{_THUMBNAIL}px;display:flex;align-items:center"
    return (
        f'<figure style="margin:4px;width:{_THUMBNAIL}px">'
        f'<div style="{box};justify-content:center;overflow:hidden">{inside}</div>'
        '<figcaption style="overflow-wrap:anywhere;font-size:12px;line-height:1.3">'
        f"{'<br>'.join(map(_breakable, caption))}</figcaption></figure>"
    )


def _breakable(text: str) -> str:
    """A name as HTML that breaks between its words before it breaks anywhere."""
    return html_text(text).replace("_", "_<wbr>")
