"""ItemGallery: the image panel alone, open from the start."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbfinetune.data.corrections import Corrections
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.widgets.image_grid import ImageGrid
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status

if TYPE_CHECKING:
    from pandas import DataFrame


class ItemGallery(Screen):
    """Pictures of some items in their order.

    Parameters
    ----------
    interp : the predictions
    items : numbers of the items
    heading : what they are
    corrections : takes the marks made on pictures

    Attributes
    ----------
    items, interp : as given
    """

    def __init__(
        self,
        interp: ClassificationInterpretation,
        items: Sequence[int],
        heading: str,
        corrections: Corrections,
    ) -> None:
        self.interp, self.items = interp, list(items)
        self.grid = ImageGrid(interp, corrections)
        self.grid.show(self.items, heading)
        self.status = Status()
        super().__init__([self.grid, self.status])

    def to_df(self) -> "DataFrame":
        """A pandas DataFrame of the items in their order, see `interp.to_df`."""
        return self.interp.to_df(self.items)
