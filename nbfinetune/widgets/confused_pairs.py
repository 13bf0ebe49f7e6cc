"""ConfusedPairs: a list of confused pairs whose entries open their pictures."""

from collections.abc import Sequence

import ipywidgets

from nbfinetune.data.corrections import Corrections
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.rendering.names import bidi_isolated
from nbfinetune.widgets.image_grid import ImageGrid
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status

_LISTED = 1000  # entries at most
_SHOWN = 10  # entries that are seen at once


class ConfusedPairs(Screen):
    """A native list, for the mouse and the keyboard; below it the pictures of the chosen pair.

    Parameters
    ----------
    interp : the predictions
    pairs : (actual, predicted, count), class indices, in the order of the list
    corrections : takes the marks made on pictures

    Attributes
    ----------
    pairs : (actual, predicted, count) with names
    interp : the predictions
    """

    def __init__(
        self,
        interp: ClassificationInterpretation,
        pairs: Sequence[tuple[int, int, int]],
        corrections: Corrections,
    ) -> None:
        self.interp = interp
        self.pairs = [(interp.vocab[i], interp.vocab[j], n) for i, j, n in pairs]
        names = [
            f"actual {bidi_isolated(a)}, predicted {bidi_isolated(b)}: {n}"
            for a, b, n in self.pairs[:_LISTED]
        ]
        self._list = ipywidgets.Select(
            options=[(name, k) for k, name in enumerate(names)], value=None,
            rows=min(max(len(names), 2), _SHOWN), layout={"width": "min(100%, 560px)"},
            description="pairs", style={"description_width": "initial"},
        )  # fmt: skip
        self.grid = ImageGrid(interp, corrections)
        self.status = Status(f"{len(pairs)} pairs are confused; choose one to see its pictures")
        super().__init__([self._list, self.status, self.grid])
        cells = [(i, j) for i, j, _ in pairs]
        self._list.observe(
            lambda change: self.grid.show(interp.cell(*cells[change["new"]]), names[change["new"]]),
            "value",
        )
