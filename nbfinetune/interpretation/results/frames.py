"""Frames: what was predicted of each item as a pandas DataFrame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nbfinetune.interpretation.confusion import Predicted
from nbfinetune.rendering.frames import data_frame

if TYPE_CHECKING:
    from pandas import DataFrame


def to_df(interp: Predicted, items: Sequence[int] | None = None) -> "DataFrame":
    """A DataFrame with a row for each item; its index is the number of the item.

    Columns are file (None where it is not known), actual, predicted, p(actual), p(predicted), loss
    and right.

    Parameters
    ----------
    items : which, in this order; None = all, in that of the data

    Raises
    ------
    ImportError
        Without pandas, with what to type.

    Examples
    --------
    >>> interp.to_df().query("not right").sort_values("loss")  # doctest: +SKIP
    """
    chosen = torch.arange(len(interp)) if items is None else torch.tensor([*items]).long()
    targets, predicted = interp.targets[chosen], interp.predicted[chosen]
    numbers = chosen.tolist()
    paths = [interp.path(i) for i in numbers]
    columns = {
        "file": [None if path is None else str(path) for path in paths],
        "actual": [interp.vocab[t] for t in targets.tolist()],
        "predicted": [interp.vocab[t] for t in predicted.tolist()],
        "p(actual)": interp.target_probs[chosen].tolist(),
        "p(predicted)": interp.predicted_probs[chosen].tolist(),
        "loss": interp.losses[chosen].tolist(),
        "right": (targets == predicted).tolist(),
    }
    return data_frame(columns, numbers).rename_axis("item")
