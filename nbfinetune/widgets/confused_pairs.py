"""ConfusedPairs: a list of confused pairs whose entries open their pictures."""

from collections.abc import Callable, Sequence

import anywidget
import traitlets

from nbfinetune.data.corrections import Corrections
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.confusion import confused_text
from nbfinetune.rendering.names import bidi_isolated
from nbfinetune.widgets.image_grid import ImageGrid
from nbfinetune.widgets.panel_place import joined, pair_text, split
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status

_LISTED = 1000  # entries at most


class PairList(anywidget.AnyWidget):
    """Rows of which one is chosen; a click or a key calls `on_pair` with its number.

    Parameters
    ----------
    rows : texts of each row: actual, predicted, how often, and the share of the actual class

    Attributes
    ----------
    value : number of the chosen row, -1 before the first choice
    answered : number of the newest choice whose pictures are open
    """

    _esm = joined("panel_place.js", "pair_list.js")
    _css = joined("panel_place.css", "pair_list.css")
    rows = traitlets.List().tag(sync=True)
    value = traitlets.Int(-1).tag(sync=True)
    answered = traitlets.Float(0).tag(sync=True)

    def __init__(self, rows: Sequence[Sequence[str]], on_pair: Callable[[int], None]) -> None:
        super().__init__(rows=[list(row) for row in rows])
        self._on_pair = on_pair
        self.on_msg(self._on_msg)

    def _on_msg(self, widget: object, content: dict, buffers: list) -> None:
        if content.get("event") != "pair":
            return
        try:
            self._on_pair(int(content["pair"]))
        finally:
            self.answered = content["asked"]  # after the pictures: the page shows them now


class ConfusedPairs(Screen):
    """A list for the mouse and the keyboard; beside or below it the pictures of the chosen pair.

    Parameters
    ----------
    interp : the predictions
    pairs : (actual, predicted, count), class indices, in the order of the list
    corrections : takes the marks made on pictures
    min_val : the least count that was asked for

    Attributes
    ----------
    chosen : number of the pair whose pictures are shown, -1 before the first choice
    pairs : (actual, predicted, count) with names
    interp : the predictions
    """

    chosen = traitlets.Int(-1)

    def __init__(
        self,
        interp: ClassificationInterpretation,
        pairs: Sequence[tuple[int, int, int]],
        corrections: Corrections,
        min_val: int = 1,
    ) -> None:
        self.interp = interp
        self.pairs = [(interp.vocab[i], interp.vocab[j], n) for i, j, n in pairs]
        self._cells = [(i, j) for i, j, _ in pairs]
        support = interp.scores()["support"].tolist()
        rows = [
            (bidi_isolated(a), bidi_isolated(b), f"{n:,}", f"{n / support[i]:.1%}")
            for (a, b, n), (i, _) in zip(self.pairs[:_LISTED], self._cells, strict=False)
        ]
        self._list = PairList(rows, self._on_pair)
        self.grid = ImageGrid(interp, corrections)
        text = confused_text(interp.cells, min_val)
        if len(pairs) > _LISTED:
            text += f"; the first {_LISTED:,} are listed"
        self.status = Status(text)
        super().__init__([self.status, split(self._list, self.grid)] if pairs else [self.status])
        self.add_class("nbft-confusion")
        self.observe(lambda change: self._open(change["new"]), "chosen")

    def _on_pair(self, k: int) -> None:
        if self.chosen == k:
            self._open(k)  # a trait set to what it is would not be heard
        self.chosen = k

    def _open(self, k: int) -> None:
        self._list.value = k
        actual, predicted, n = self.pairs[k]
        self.grid.show(self.interp.cell(*self._cells[k]), pair_text(actual, predicted, n))
