"""Plots of an interpretation, with fastai's names: its matrix, and its pictures with their classes.

Each function but `show_results` is a method of `ClassificationInterpretation`; that is one of
`Learner`.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from nbfinetune.arguments import as_whole_number, check_number
from nbfinetune.interpretation.matrix_figure import matrix_figure, undrawable
from nbfinetune.interpretation.matrix_options import NORMALIZE
from nbfinetune.interpretation.matrix_view import LARGEST, matrix_view
from nbfinetune.interpretation.thumbnails import thumbnail
from nbfinetune.rendering import figures
from nbfinetune.rendering.names import html_text, printable, shown

if TYPE_CHECKING:
    from nbfinetune.interpretation.classification import ClassificationInterpretation

_SIDE = 150  # CSS px of a picture
_MOST_SIDE = 600
_MOST_INCHES, _MOST_DPI = 60, 600
_COLUMNS = 5
_RIGHT, _WRONG = "\u2713 right", "\u2717 wrong"


def plot_confusion_matrix(
    interp: "ClassificationInterpretation",
    normalize: bool | str = "none",
    *,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float | None = None,
    cmap: str | None = None,
    norm_dec: int = 2,
    plot_txt: bool = True,
) -> figures.Picture:
    """The confusion matrix as a picture: right ones blue by recall, errors orange by their number.

    Parameters
    ----------
    normalize : see `confusion_matrix`; True = "true", False = "none"
    title : above the matrix; default: items and accuracy
    figsize : width and height in inches; default: as large as the names need
    dpi : CSS px of an inch, 100 by default
    cmap : name of a colour map of matplotlib, such as "Blues", in place of blue and orange
    norm_dec : digits after the point of shares
    plot_txt : whether the numbers are written where there is room

    Raises
    ------
    ValueError
        For arguments out of range, or more than 2,000 classes.
    """
    normalize = {True: "true", False: "none"}.get(normalize) if isinstance(
        normalize, bool
    ) else normalize
    if not isinstance(normalize, str) or normalize not in NORMALIZE:
        raise ValueError(
            f"normalize is {shown(normalize)}; it is one of {', '.join(NORMALIZE)}, True, False"
        )
    if title is not None and not isinstance(title, str):
        raise ValueError(f"title is {shown(title)}; it must be text")
    if not isinstance(plot_txt, bool):
        raise ValueError(f"plot_txt is {shown(plot_txt)}; it must be True or False")
    look = _checked(figsize, dpi, cmap) | {"norm_dec": as_whole_number("norm_dec", norm_dec, 0, 6)}
    if len(interp.vocab) > LARGEST:
        raise ValueError(
            f"{len(interp.vocab):,} classes are too many to plot, {LARGEST:,} the most; "
            "%confusion_matrix shows parts of them"
        )
    view = matrix_view(interp, range(len(interp.vocab)), normalize=normalize)
    heading = view.title if title is None else title
    figure = matrix_figure(view, title=heading, plot_txt=plot_txt, **look)
    names = [f"class {k + 1}: {view.names[k]}" for k in undrawable(view)]
    return figures.Picture(figure, "; ".join([view.title, *names]))


def _checked(figsize: object, dpi: object, cmap: object) -> dict[str, object]:
    """Size and colours of a figure, for `matrix_figure`."""
    look: dict[str, object] = {"figsize": checked_figsize(figsize)}
    if dpi is not None:
        check_number("dpi", dpi, 10, _MOST_DPI + 1, such_as=100)
        look["dpi"] = float(dpi)
    if cmap is not None:
        from matplotlib import colormaps

        if not isinstance(cmap, str) or cmap not in colormaps:
            raise ValueError(
                f'cmap is {shown(cmap)}; it must be the name of a colour map, such as "Blues"'
            )
        look["cmap"] = cmap
    return look


def checked_figsize(figsize: object) -> tuple[float, float] | None:
    """Width and height in inches; None is left as it is."""
    if figsize is None:
        return None
    sides = list(figsize) if isinstance(figsize, (list, tuple)) else []
    if len(sides) != 2:
        raise ValueError(f"figsize is {shown(figsize)}; give width and height, such as (8, 8)")
    for name, side in zip(("width", "height"), sides, strict=True):
        check_number(f"the {name} in figsize", side, 1, _MOST_INCHES + 1, such_as=8)
    return float(sides[0]), float(sides[1])


def plot_top_losses(
    interp: "ClassificationInterpretation",
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
    if not isinstance(largest, bool):
        raise ValueError(f"largest is {shown(largest)}; it must be True or False")
    columns = columns_of(min(k, max(len(interp), 1)), nrows, ncols)
    size = checked_figsize(figsize)
    items = interp.top_losses(k, largest=largest)[1].tolist()
    side = _SIDE if size is None else min(round(size[0] * figures.DPI / columns) - 8, _MOST_SIDE)
    return PredictedPictures(interp, items, columns, max(side, 32))


def columns_of(n: int, nrows: int | None, ncols: int | None) -> int:
    """Columns of n pictures; rows alone give as many as they need."""
    if nrows is not None:
        nrows = as_whole_number("nrows", nrows, 1)
    if ncols is not None:
        return as_whole_number("ncols", ncols, 1)
    return min(n, _COLUMNS) if nrows is None else -(-n // nrows)


def print_classification_report(interp: "ClassificationInterpretation") -> None:
    """Print precision, recall, f1 and support of each class, as fastai does."""
    print(interp.report())


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

    interp: "ClassificationInterpretation" = field(repr=False)
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
            f"predicted {predicted}, p {interp.predicted_probs[i]:.2f}",
            f"loss {interp.losses[i]:.2f}",
        ]

    def __repr__(self) -> str:
        lines = [", ".join(map(printable, self._caption(i))) for i in self.items]
        return "\n".join([f"{len(lines)} picture{'s' * (len(lines) != 1)}", *lines])

    def _repr_html_(self) -> str:
        grid = f"display:grid;grid-template-columns:repeat({self.columns},{self.side}px);gap:12px 8px"
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
