"""Arrays: pictures in one array of NumPy or tensor of torch, with their labels.

[n, h, w] is grey, [n, h, w, c] and [n, c, h, w] have 1, 3 or 4 channels, whichever it is. A
memory-mapped array stays on the disk: its pictures are taken one by one.
"""

from math import isqrt

import numpy as np
import torch
from torch import Tensor

from nbfinetune.arguments import as_list
from nbfinetune.data.sources.items import SourceItems, check_labels
from nbfinetune.images.pixels import CHANNEL_COUNTS, wrong_values

_ROWS = 1024  # pictures whose range is looked at together
_ALLOWED = "give uint8, or floats in [0, 1], of shape [n, h, w], [n, h, w, c] or [n, c, h, w]"


def is_array(value: object, least: int = 2) -> bool:
    """Whether this is an array or tensor of so many dimensions at least."""
    return isinstance(value, (np.ndarray, Tensor)) and value.ndim >= least


def are_arrays(value: object) -> bool:
    """Whether this is a pair (pictures, labels), such as `load_data()` of Keras gives."""
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    return pair and is_array(value[0]) and np.ndim(value[1]) > 0


class ArrayItems(SourceItems):
    """Pictures of an array, and perhaps their labels.

    Parameters
    ----------
    pictures : see the module
    labels : [n] or [n, 1], class indices or class names; None = none
    name : for messages

    Raises
    ------
    ValueError
        For other shapes, types and ranges, and labels that do not fit.
    """

    def __init__(self, pictures: np.ndarray | Tensor, labels: object, name: str) -> None:
        self._pictures, self._first = pictures, _channels_first(pictures, name)
        _check_values(pictures, name)
        super().__init__(name, None if labels is None else _labels(labels, len(pictures), name))

    def __len__(self) -> int:
        return len(self._pictures)

    def picture(self, i: int) -> np.ndarray | Tensor:
        """See `SourceItems`."""
        one = self._pictures[i]
        is_tensor = isinstance(one, Tensor)
        if one.ndim == 3 and self._first != is_tensor:  # arrays have channels last, tensors first
            one = one.permute(2, 0, 1) if is_tensor else one.transpose(1, 2, 0)
        return one


def _channels_first(x: np.ndarray | Tensor, name: str) -> bool:
    """Whether the channels come before height and width."""
    shape = list(x.shape)
    if len(shape) == 3:
        return False
    if len(shape) == 4:
        first, last = (shape[k] in CHANNEL_COUNTS for k in (1, 3))
        if first and last:
            raise ValueError(
                f"the pictures of {name} have the shape {shape}, which is [n, c, h, w] or "
                "[n, h, w, c]; give them as a list: [(picture, label), ...]"
            )
        if first or last:
            return first
    side = isqrt(shape[1]) if len(shape) == 2 else 0
    hint = f"; x.reshape(-1, {side}, {side}) may make it so" if side * side == shape[-1] else ""
    raise ValueError(f"the pictures of {name} have the shape {shape}; {_ALLOWED}{hint}")


def _check_values(x: np.ndarray | Tensor, name: str) -> None:
    """Refuse what is neither bytes nor floats in [0, 1], over all pictures: some may be dark."""
    if x.dtype in (np.uint8, torch.uint8) or not len(x):
        return
    parts = [x[i : i + _ROWS] for i in range(0, len(x), _ROWS)]
    ends = [(float(part.min()), float(part.max())) for part in parts]
    is_float = x.is_floating_point() if isinstance(x, Tensor) else x.dtype.kind == "f"
    if is_float:
        wrong = wrong_values(torch.tensor(ends))
        if wrong:
            raise ValueError(f"the pictures of {name} are {wrong}; {_ALLOWED}")
        return
    low, top = min(end[0] for end in ends), max(end[1] for end in ends)
    scaled = "(x * 255)" if top == 1 else "x"
    how = f"{scaled}.to(torch.uint8)" if isinstance(x, Tensor) else f'{scaled}.astype("uint8")'
    fits = f": {how}" if low >= 0 and top <= 255 else ""
    raise ValueError(
        f"the pictures of {name} are {x.dtype}, from {low:.3g} to {top:.3g}; {_ALLOWED}{fits}"
    )


def _labels(labels: object, n: int, name: str) -> list:
    """Class indices or names, one for each picture."""
    shape = getattr(labels, "shape", None)
    if shape is not None and len(shape) == 2 and shape[1] == 1:
        labels = labels.reshape(-1)
    elif shape is not None and len(shape) == 2:
        raise ValueError(
            f"the labels of {name} have the shape {list(shape)}; give one class for each picture, "
            "such as labels.argmax(1)"
        )
    found = as_list(labels, f"the labels of {name}")
    if len(found) != n:
        raise ValueError(f"{name} has {n} pictures but {len(found)} labels; give one for each")
    found = [int(v) if isinstance(v, float) and v.is_integer() else v for v in found]
    check_labels(found, name, "leave their pictures out")
    return found
