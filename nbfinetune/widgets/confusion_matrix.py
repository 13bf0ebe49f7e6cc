"""ConfusionMatrix: a matrix whose cells open the pictures behind them."""

from collections.abc import Sequence

import ipywidgets
import traitlets

from nbfinetune.data.corrections import Corrections
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.confusion import Comparison, confused_text
from nbfinetune.interpretation.matrix_view import (
    LARGEST,
    WHOLE,
    items_of,
    matrix_view,
    ordered_classes,
)
from nbfinetune.widgets.image_grid import ImageGrid
from nbfinetune.widgets.matrix_canvas import MatrixCanvas
from nbfinetune.widgets.panel_place import pair_text, split
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status

_PAGE = 30  # classes of a page, above 60


class ConfusionMatrix(Screen):
    """The matrix, above 60 classes a page of it; beside or below it the pictures of a cell.

    Parameters
    ----------
    interp : the predictions
    corrections : takes the marks made on pictures
    normalize, order, min_val : see `matrix_view` and `ordered_classes`
    top : classes of a page; default: all up to 60 classes, else 30
    change : what changed from an earlier model, opened by buttons
    size : px of the side of the whole matrix; 0 = what the window has room for

    Attributes
    ----------
    selected : (actual, predicted) as class indices, None before the first choice
    interp : the predictions
    view : the part of the matrix that is shown
    """

    selected = traitlets.Tuple(default_value=None, allow_none=True)

    def __init__(
        self,
        interp: ClassificationInterpretation,
        corrections: Corrections,
        *,
        normalize: str = "none",
        order: str | None = None,
        top: int | None = None,
        min_val: int = 1,
        change: Comparison | None = None,
        size: int = 0,
    ) -> None:
        c = len(interp.vocab)
        self.interp = interp
        self._options = {"normalize": normalize, "min_val": min_val}
        self._top = min(top or (c if c <= WHOLE else _PAGE), c, LARGEST)
        paged = self._top < c
        self._classes = ordered_classes(interp, order or ("error" if paged else "vocab"))
        self._found, self._page, self._all = self._classes, 0, False
        self.view = self._new_view()
        self.canvas = MatrixCanvas(self.view, self._on_cell, size)
        self.grid = ImageGrid(interp, corrections)
        self.status = Status(self._headline())
        self._search = ipywidgets.Text(
            description="class", placeholder="part of a name", continuous_update=False,
            layout={"width": "260px"}, style={"description_width": "initial"},
        )  # fmt: skip
        self._previous = _button("Previous classes", self._turn, -1)
        self._next = _button("Next classes", self._turn, 1)
        self._whole = _button("Show all", self._toggle_all)
        self._where = ipywidgets.Label()
        bar = [self._search, self._previous, self._where, self._next, self._whole]
        if c > LARGEST:
            bar.pop()
        parts: list[ipywidgets.Widget] = [self.status]
        if change is not None:
            parts.append(self._changes(change))
        if paged:
            parts.append(_row(bar))
        super().__init__([*parts, split(self.canvas, self.grid)])
        self.add_class("nbft-confusion")
        self._search.observe(lambda change: self._find(change["new"]), "value")
        self.observe(lambda change: self._open(change["new"]), "selected")
        self._say_where()

    @traitlets.validate("selected")
    def _by_name(self, proposal: traitlets.Bunch) -> tuple[int, int] | None:
        value = proposal["value"]
        return value and tuple(self.interp.index(c) for c in value)

    def _headline(self) -> str:
        interp = self.interp
        if not len(interp):
            return f"{self.view.title}: there is nothing to show"
        if not interp.n_wrong:
            return f"{self.view.title}; {confused_text(interp.cells)}"
        return f"{self.view.title}: {interp.n_wrong:,} wrong"

    def _new_view(self):
        if self._all:
            return matrix_view(self.interp, self._found, **self._options)
        first = self._page * self._top
        shown = self._found[first : first + self._top]
        others = len(shown) < len(self.interp.vocab)
        return matrix_view(self.interp, shown, others=others, **self._options)

    def _draw(self) -> None:
        self.view = self._new_view()
        place = self.view.place(*self.selected) if self.selected else (-1, -1)
        self.canvas.show(self.view, place)
        self._say_where()

    def _say_where(self) -> None:
        n, pages = len(self._found), self._n_pages()
        self._where.value = f"{n:,} classes" if self._all else f"page {self._page + 1} of {pages}"
        self._previous.disabled = self._all or self._page == 0
        self._next.disabled = self._all or self._page >= pages - 1
        self._whole.description = "Show pages" if self._all else "Show all"

    def _n_pages(self) -> int:
        return max(-(-len(self._found) // self._top), 1)

    def _turn(self, by: int) -> None:
        self._page = min(max(self._page + by, 0), self._n_pages() - 1)
        self._draw()

    def _toggle_all(self) -> None:
        self._all = not self._all
        self._draw()

    def _find(self, text: str) -> None:
        part = text.strip().casefold()
        found = [k for k in self._classes if part in self.interp.vocab[k].casefold()]
        if not found:
            self.status.text = f"no class has {text!r} in its name"
            return
        self._found, self._page = found, 0
        have = "class has" if len(found) == 1 else "classes have"
        said = f"{len(found):,} {have} {text!r} in the name"
        self.status.text = said if part else self._headline()
        self._draw()

    def _on_cell(self, row: int, column: int) -> None:
        m = len(self.view.classes)
        if row < m and column < m:
            pair = self.view.classes[row], self.view.classes[column]
            if self.selected == pair:
                self._open(pair)  # a trait set to what it is would not be heard
            self.selected = pair
        else:
            names = self.view.names[row], self.view.names[column]
            self.open_items(items_of(self.view, self.interp, row, column), *names)
            self.canvas.selected = [row, column]

    def _open(self, pair: tuple[int, int] | None) -> None:
        if pair is None:
            return
        self.canvas.selected = list(self.view.place(*pair))
        self.open_items(self.interp.cell(*pair), *(self.interp.vocab[k] for k in pair))

    def open_items(self, items: Sequence[int], actual: str, predicted: str) -> None:
        """Show the pictures of a cell."""
        self.grid.show(items, pair_text(actual, predicted, len(items)))

    def _changes(self, change: Comparison) -> ipywidgets.Widget:
        parts: list[ipywidgets.Widget] = [ipywidgets.Label(repr(change))]
        for name, items in (
            ("fixed", change.fixed), ("broken", change.broken), ("still wrong", change.still_wrong)
        ):  # fmt: skip
            button = _button(f"{name}: {len(items)}", self.grid.show, items, f"{name} since then")
            button.disabled = not items
            parts.append(button)
        return _row(parts)


def _row(parts: Sequence[ipywidgets.Widget]) -> ipywidgets.Widget:
    """Buttons and fields, in as many lines as they need."""
    return ipywidgets.HBox(parts, layout={"flex_flow": "row wrap", "align_items": "center"})


def _button(text: str, work, *args) -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, layout={"width": "auto"})
    button.add_class("nbft-button")
    button.on_click(lambda _: work(*args))
    return button
