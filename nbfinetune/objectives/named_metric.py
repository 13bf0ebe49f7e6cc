"""NamedMetric: a metric under a name of its own, with what is known of it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class NamedMetric:
    """A function (preds, targets) -> float, its column title, and how it goes.

    Parameters
    ----------
    name : the column title
    function : gets all predictions of a pass, [n, c], and all targets, [n] or [n, c]
    higher_is_better : whether it should rise; None = that is not known
    counts_pictures : whether it is the share of pictures that are right, or of those that are wrong
    of_outputs : whether it gets the model's outputs in place of probabilities (fastai's rule)
    """

    name: str
    function: Callable[[Tensor, Tensor], object]
    higher_is_better: bool | None = None
    counts_pictures: bool = False
    of_outputs: bool = False

    def __post_init__(self) -> None:
        self.__name__ = self.name

    def __call__(self, preds: Tensor, targets: Tensor) -> object:
        return self.function(preds, targets)
