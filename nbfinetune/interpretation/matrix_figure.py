"""Matrix figure: a confusion matrix as a picture."""

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from nbfinetune.arguments import as_figsize, as_whole_number, check_bool, check_number
from nbfinetune.interpretation.confusion import Predicted
from nbfinetune.interpretation.matrix_options import NORMALIZE
from nbfinetune.interpretation.matrix_view import LARGEST, MatrixView, matrix_view
from nbfinetune.rendering import axes, figures
from nbfinetune.rendering.names import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, apart for colour-blind eyes; a darker blue: most numbers on it are white.
_ERROR, _RIGHT = (213, 94, 0), (0, 90, 150)
_LEAST = 0.12  # no cell that counts is white
_PIXELS = 1000  # of the side of the picture of all classes
_CELL, _SIDE = 0.44, 6.0  # inches of a cell, and of all of them, at most
_NUMBERED = 15  # CSS px of a cell that holds its number
_NAMED = 9  # CSS px of a row that has its name
_NAME, _TITLE = 24, 100  # characters of a name, and of the title, at most
_MIDDLE = 0.179  # luminance at which white and black numbers are read equally well (WCAG 2)
_MOST_DPI = 600


def plot_confusion_matrix(
    interp: Predicted,
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
    if isinstance(normalize, bool):
        normalize = "true" if normalize else "none"
    if not isinstance(normalize, str) or normalize not in NORMALIZE:
        raise ValueError(
            f"normalize is {shown(normalize)}; it is one of {', '.join(NORMALIZE)}, True, False"
        )
    if title is not None and not isinstance(title, str):
        raise ValueError(f"title is {shown(title)}; it must be text")
    check_bool(plot_txt=plot_txt)
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
    look: dict[str, object] = {"figsize": as_figsize(figsize)}
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


def matrix_figure(
    view: MatrixView,
    *,
    figsize: tuple[float, float] | None = None,
    dpi: float = figures.DPI,
    title: str = "",
    cmap: str | None = None,
    norm_dec: int = 2,
    plot_txt: bool = True,
) -> "Figure":
    """The view with names and, where there is room, numbers.

    Parameters
    ----------
    figsize : inches of all of it; default: as large as is readable
    cmap : name of a colour map of matplotlib for all cells, in place of blue and orange
    norm_dec : digits after the point of shares
    plot_txt : whether cells have numbers
    """
    title = axes.shorter(title, _TITLE)
    m = max(len(view.names), 1)
    long = min(max(map(len, view.names), default=1), _NAME)
    if figsize is None:
        side = min(max(_CELL * m, 1.5), _SIDE)
        room = 0.5 + 0.08 * long
        figsize = max(side + room, 0.08 * len(title)), side + room + (0.3 if title else 0)
    figure = figures.new_figure(*figsize, dpi)
    ax = figure.subplots()
    axes.style_axes(ax, spines="")
    image = matrix_pixels(view) if cmap is None else _values(view)
    kwargs = {} if cmap is None else {"cmap": cmap, "vmin": 0}
    ax.imshow(image, interpolation="nearest", origin="upper", aspect="equal", **kwargs)
    ax.set(xlim=(-0.5, m - 0.5), ylim=(m - 0.5, -0.5))
    ax.set_xlabel("predicted", **axes.font())
    ax.set_ylabel("actual", **axes.font())
    if title:
        figure.suptitle(title, **axes.font(axes.NORMAL + 1))  # over the names too: it may be long
    cell = min(figsize[0] - 0.3 - 0.08 * long, figsize[1] - 0.3 - 0.08 * long) * dpi / m
    if cell >= _NAMED:
        _draw_names(ax, view, min(axes.NORMAL, cell * 72 / dpi * 0.9))
    if plot_txt and cell >= _NUMBERED:
        _draw_numbers(ax, view, norm_dec, cell * 72 / dpi)
    return figure


def undrawable(view: MatrixView) -> list[int]:
    """The rows whose names the fonts of this machine cannot draw, as Korean on many servers.

    In the picture row k is called "class k + 1".
    """
    return [k for k, name in enumerate(view.names) if not axes.drawable(name)]


def matrix_png(view: MatrixView) -> bytes:
    """The view as PNG, a pixel a cell; above 1,000 rows the darkest cell of each pixel."""
    m = len(view.names)
    scale = -(-m // _PIXELS)
    side = -(-m // scale)
    i, j = view.numbers // m, view.numbers % m
    pixels = np.full((side, side, 3), 255, np.uint8)
    order = np.argsort(view.shades, kind="stable")  # the last one written stays
    pixels[i[order] // scale, j[order] // scale] = _colours(view)[order]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return out.getvalue()


def matrix_pixels(view: MatrixView) -> np.ndarray:
    """The colour of each cell, uint8 [m, m, 3]."""
    m = len(view.names)
    pixels = np.full((max(m, 1), max(m, 1), 3), 255, np.uint8)
    pixels.reshape(-1, 3)[view.numbers] = _colours(view)
    return pixels


def _colours(view: MatrixView) -> np.ndarray:
    """Of each cell that counts, [cells, 3]: the right ones blue, those of the others' row not."""
    m = max(len(view.names), 1)
    right = (view.numbers // m == view.numbers % m) & (view.numbers // m < m - view.others)
    base = np.where(right[:, None], _RIGHT, _ERROR)
    shades = (_LEAST + (1 - _LEAST) * view.shades)[:, None]
    return np.round(255 + (base - 255) * shades)


def _values(view: MatrixView) -> np.ndarray:
    """Counts or shares, [m, m]."""
    m = max(len(view.names), 1)
    values = np.zeros(m * m)
    values[view.numbers] = view.counts if view.normalize == "none" else view.shares
    return values.reshape(m, m)


def _draw_names(ax: "Axes", view: MatrixView, size: float) -> None:
    names = [axes.shorter(name, _NAME) for name in view.names]
    for k in undrawable(view):
        names[k] = f"class {k + 1}"
    places = range(len(names))
    for axis in "xy":
        axes.ticks(ax, axis, places, names)
    ax.tick_params("both", length=0, pad=3)
    ax.tick_params("x", labelrotation=90)
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set_fontsize(size)
    edges = np.arange(len(names) + 1) - 0.5
    look = {"color": "#dddddd", "linewidth": 0.5, "zorder": 1.5, "linestyle": "-"}
    ax.hlines(edges, edges[0], edges[-1], clip_on=False, **look)
    ax.vlines(edges, edges[0], edges[-1], clip_on=False, **look)


def _draw_numbers(ax: "Axes", view: MatrixView, norm_dec: int, cell: float) -> None:
    """What each cell that counts says, in cells of so many points."""
    m = len(view.names)
    [image] = ax.get_images()
    colours = image.to_rgba(image.get_array())[..., :3].reshape(-1, 3)
    for number, count, share in zip(view.numbers, view.counts, view.shares, strict=True):
        i, j = divmod(int(number), m)
        text = f"{count:,}" if view.normalize == "none" else f"{share:.{norm_dec}f}"
        text = text.removeprefix("0") if text.startswith("0.") else text
        size = min(axes.NORMAL, 0.6 * cell, 1.4 * cell / len(text))
        ink = "white" if _luminance(colours[number]) < _MIDDLE else "black"
        look = axes.font(size, ink)
        ax.text(j, i, text, ha="center", va="center_baseline", in_layout=False, **look)


def _luminance(colour: np.ndarray) -> float:
    """The relative luminance of a colour (WCAG 2)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
