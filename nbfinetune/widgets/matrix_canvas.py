"""MatrixCanvas: a square of cells with counts, drawn on a canvas, for the mouse and the keyboard.

bqplot's GridHeatMap draws an element a cell: 9 s for 300 classes, and no column labels from 37 on.
"""

from collections.abc import Callable, Sequence

import anywidget
import traitlets

from nbfinetune.interpretation.matrix_view import MatrixView
from nbfinetune.rendering.names import bidi_isolated
from nbfinetune.widgets.panel_place import joined


class MatrixCanvas(anywidget.AnyWidget):
    """Shows a `MatrixView`; clicks and Enter call `on_cell` with row and column.

    Parameters
    ----------
    view : what to show
    size : px of the side of the whole matrix, names and all; 0 = what the window has room for

    Attributes
    ----------
    selected : row and column of the framed cell, [-1, -1] if there is none
    answered : number of the newest click whose pictures are open
    """

    _esm = joined("panel_place.js", "matrix_painting.js", "matrix_canvas.js")
    _css = joined("panel_place.css", "matrix_canvas.css")
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    of = traitlets.Unicode().tag(sync=True)
    normalize = traitlets.Unicode("none").tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)
    counts = traitlets.Bytes().tag(sync=True)
    shares = traitlets.Bytes().tag(sync=True)
    shades = traitlets.Bytes().tag(sync=True)
    others = traitlets.Bool(False).tag(sync=True)
    least = traitlets.Int(1).tag(sync=True)
    size = traitlets.Int(0).tag(sync=True)
    selected = traitlets.List(traitlets.Int(), default_value=[-1, -1]).tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)
    answered = traitlets.Float(0).tag(sync=True)

    def __init__(self, view: MatrixView, on_cell: Callable[[int, int], None], size: int) -> None:
        super().__init__(size=size)
        self._on_cell = on_cell
        self.on_msg(self._on_msg)
        self.show(view, (-1, -1))

    def show(self, view: MatrixView, selected: Sequence[int]) -> None:
        """Draw another view."""
        with self.hold_sync():
            self.names, self.title, self.of = [*map(bidi_isolated, view.names)], view.title, view.of
            self.normalize = view.normalize
            self.numbers = view.numbers.astype("<u4").tobytes()
            self.counts = view.counts.astype("<u4").tobytes()
            self.shares = view.shares.astype("<f4").tobytes()
            self.shades = view.shades.astype("<f4").tobytes()
            self.others, self.least = view.others, view.min_val
            self.selected = list(selected)
            self.version += 1

    def _on_msg(self, widget: object, content: dict, buffers: list) -> None:
        if content.get("event") != "cell":
            return
        try:
            # A click made while another view was on its way meant a cell of the old one.
            if content["version"] == self.version:
                row, column = content["cell"]
                self._on_cell(int(row), int(column))
        finally:
            self.answered = content["asked"]  # after the pictures: the page shows them now
