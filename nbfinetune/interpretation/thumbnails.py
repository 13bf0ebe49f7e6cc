"""Thumbnails: pictures of an interpretation's items as JPEG, and sheets of them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from PIL import Image
from torchvision.transforms.v2 import functional as F

from nbfinetune.arguments import as_columns, as_figsize, as_whole_number, check_bool
from nbfinetune.interpretation.confusion import Predicted
from nbfinetune.rendering import axes, figures
from nbfinetune.rendering.names import html_text, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE, _LEAST_SIDE, _MOST_SIDE = 150, 32, 600  # CSS px of a picture on a sheet
_GAP = 8  # px between two
_RIGHT, _WRONG = "\u2713 right", "\u2717 wrong"
_COLOURS = (  # 4.5:1 and more on light and on dark pages
    "<style>.nbft-right{color:#00694c}.nbft-wrong{color:#b03a00}"
    'body[data-jp-theme-light="false"] .nbft-right,body.vscode-dark .nbft-right{color:#3ecf9f}'
    'body[data-jp-theme-light="false"] .nbft-wrong,body.vscode-dark .nbft-wrong{color:#ffa057}'
    "</style>"
)
_QUALITY = 80  # a thumbnail of 112 px is about 5 kB


def thumbnail(interp: Predicted, i: int, side: int) -> bytes:
    """Item i as the data set keeps it decoded, else its whole picture; see `as_jpeg`."""
    decoded = interp.dataset.cached_image(i) if interp.dataset is not None else None
    return as_jpeg(interp.image(i) if decoded is None else F.to_pil_image(decoded), side)


def as_jpeg(image: Image.Image, side: int) -> bytes:
    """A picture of at most `side` px a side."""
    small = image.copy()
    small.thumbnail((side, side))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def plot_top_losses(
    interp: Predicted,
    k: int = 9,
    *,
    largest: bool = True,
    nrows: int | None = None,
    ncols: int | None = None,
    figsize: tuple[float, float] | None = None,
) -> "PredictedPictures":
    """The pictures with the largest losses, with actual and predicted class, loss and p.

    Parameters
    ----------
    k : how many
    largest : False for the smallest losses
    nrows, ncols : of the pictures; default: up to 5 columns
    figsize : inches of all of them, 100 CSS px each; default: 150 px a picture
    """
    k = as_whole_number("k", k, 1)
    check_bool(largest=largest)
    columns = as_columns(min(k, max(len(interp), 1)), nrows, ncols)
    size = as_figsize(figsize)
    items = interp.top_losses(k, largest=largest)[1].tolist()
    side = _SIDE if size is None else round(size[0] * figures.DPI / columns) - _GAP
    return PredictedPictures(interp, items, columns, min(max(side, _LEAST_SIDE), _MOST_SIDE))


@dataclass(frozen=True)
class PredictedPictures:
    """Pictures with their actual and predicted classes, wrong ones marked in words and colour.

    Parameters
    ----------
    interp : the predictions
    items : numbers of the items
    columns : pictures in a row
    side : CSS px of a picture
    """

    interp: Predicted = field(repr=False)
    items: Sequence[int]
    columns: int
    side: int = _SIDE

    def _caption(self, i: int) -> list[str]:
        interp = self.interp
        actual, predicted = (interp.vocab[k] for k in (interp.targets[i], interp.predicted[i]))
        right = interp.targets[i] == interp.predicted[i]
        return [
            _RIGHT if right else _WRONG,
            f"actual {actual}",
            f"predicted {predicted}",
            f"p {interp.predicted_probs[i]:.2f}, loss {interp.losses[i]:.2f}",
        ]

    def __repr__(self) -> str:
        lines = [", ".join(map(printable, self._caption(i))) for i in self.items]
        return "\n".join([f"{len(lines)} picture{'s' * (len(lines) != 1)}", *lines])

    @property
    def figure(self) -> "Figure":
        """The same as a figure of matplotlib, which can be saved."""
        rows = max(-(-len(self.items) // self.columns), 1)
        side = self.side / figures.DPI
        figure = figures.new_figure(self.columns * (side + 0.2), rows * (side + 0.85))
        for ax in figure.subplots(rows, self.columns, squeeze=False).flat:
            ax.set_axis_off()
        for ax, i in zip(figure.axes, self.items, strict=False):
            verdict, *lines = self._caption(i)
            ax.imshow(Image.open(io.BytesIO(thumbnail(self.interp, i, 2 * self.side))))
            text = "\n".join(axes.shorter(line, 26) for line in (verdict[2:], *lines))
            colour = axes.COLOURS[2] if verdict == _RIGHT else axes.COLOURS[1]
            ax.set_title(text, pad=4, **axes.font(axes.SMALL, colour))
        return figure

    def _repr_html_(self) -> str:
        columns = f"grid-template-columns:repeat({self.columns},{self.side}px)"
        grid = f"display:grid;{columns};gap:12px {_GAP}px"
        cells = "".join(map(self._cell, self.items))
        return f'{_COLOURS}<div style="{grid};max-width:100%;overflow-x:auto">{cells}</div>'

    def _cell(self, i: int) -> str:
        verdict, *lines = self._caption(i)
        try:
            data = base64.b64encode(thumbnail(self.interp, i, 2 * self.side)).decode()
        except ValueError as error:
            picture = f"<div>{html_text(str(error))}</div>"
        else:
            box = f"width:{self.side}px;height:{self.side}px;object-fit:contain;margin:0"
            alt = escape(printable(", ".join(lines)))
            picture = f'<img src="data:image/jpeg;base64,{data}" alt="{alt}" style="{box}">'
        kind = "right" if verdict == _RIGHT else "wrong"
        texts = "<br>".join(map(html_text, lines))
        return (
            f'<figure style="margin:0">{picture}<figcaption style="overflow-wrap:anywhere;'
            f'font-size:12px;line-height:1.35"><b class="nbft-{kind}">{verdict}</b><br>{texts}'
            "</figcaption></figure>"
        )
