"""Pixels: which numbers are taken for pictures, uint8 or floats in [0, 1], and why others are not.

Whatever comes in is checked here before anything is computed of it: own batches, what a function of
the user's gives, arrays and tensors to predict. Normalisation is the learner's, and done once.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CHANNELS = 3
CHANNEL_COUNTS = (1, 3, 4)  # grey, RGB, RGB with opacity
_BRIGHT = 8  # above all that normalised pictures reach, below what is bright in bytes
_ROUNDING = 1e-3  # floats may be so far outside [0, 1]; normalised pictures are by 0.1 at least


def wrong_values(x: Tensor) -> str | None:
    """What is found where `x` is neither uint8 nor floats in [0, 1]; None if it is one of them."""
    if x.dtype == torch.uint8 or not x.numel():
        return None
    if not x.is_floating_point():
        return f"values of {x.dtype}"
    low, high = torch.stack(x.aminmax()).tolist()
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return None
    if low != low:  # NaN
        return "floats of which some are NaN"
    normalised = low < 0 or high < _BRIGHT
    looks = "after normalisation" if normalised else "bytes are before a division by 255"
    return f"floats outside [0, 1], from {low:.3g} to {high:.3g}, as {looks}"


def as_bytes(x: Tensor) -> Tensor:
    """A batch of pictures as uint8, shape [n, 3, h, w]; one that is that already comes as it is.

    Raises
    ------
    ValueError
        If it is no tensor of this shape, of uint8 or floats in [0, 1].
    """
    allowed = "give batches of uint8, or floats in [0, 1], of shape [n, 3, h, w]"
    if not isinstance(x, Tensor):
        raise ValueError(f"the inputs are {type(x).__name__}, no tensor of pictures; {allowed}")
    if x.ndim != 4 or x.shape[1] != CHANNELS:
        last = x.ndim == 4 and x.shape[3] == CHANNELS
        how = ": x.permute(0, 3, 1, 2) brings the channels to the front" if last else ""
        raise ValueError(f"the inputs have the shape {list(x.shape)}; {allowed}{how}")
    if x.dtype == torch.uint8:
        return x
    if wrong := wrong_values(x):
        raise ValueError(f"the inputs are {wrong}; {allowed}: the learner normalises them itself")
    return _bytes(x)


def _bytes(x: Tensor) -> Tensor:
    return x if x.dtype == torch.uint8 else (x * 255).round().clamp(0, 255).to(torch.uint8)


def from_array(values: np.ndarray | Tensor) -> Image.Image:
    """The picture in an array [h, w, channels], a tensor [channels, h, w], or either [h, w].

    Parameters
    ----------
    values : uint8, or floats in [0, 1]; channels are grey, or red, green and blue (OpenCV has them
        the other way round), with or without opacity

    Raises
    ------
    ValueError
        For other shapes and values.
    """
    is_array = isinstance(values, np.ndarray)
    shape = list(values.shape)
    channels = {2: [1], 3: shape[-1:] if is_array else shape[:1]}.get(len(shape), [0])[0]
    if channels not in CHANNEL_COUNTS or 0 in shape:
        raise ValueError(_wrong_shape(shape, is_array))
    try:
        if is_array:
            whole = np.ascontiguousarray(values)  # torch warns of one that may not be written
            x = torch.from_numpy(whole if whole.flags.writeable else whole.copy())
        else:
            x = values.detach().cpu()
    except TypeError:  # of a type that torch has not
        found = f"an array of {values.dtype} is no picture"
        raise ValueError(f"{found}; give uint8, or floats in [0, 1]") from None
    if wrong := wrong_values(x):
        raise ValueError(f"{wrong}; give uint8, or floats in [0, 1], before normalisation")
    if len(shape) == 3 and not is_array:
        x = x.permute(1, 2, 0)
    x = x[..., 0] if len(shape) == 3 and channels == 1 else x
    return Image.fromarray(np.ascontiguousarray(_bytes(x).numpy()))


def _wrong_shape(shape: list[int], is_array: bool) -> str:
    kind, form = ("an array", "[h, w, 3]") if is_array else ("a tensor", "[3, h, w]")
    text = f"{kind} of shape {shape} is no picture; give {form} or [h, w]"
    if len(shape) == 4:
        return f"{text}, one picture without a batch dimension, such as x[0]; list(x) is all"
    if len(shape) == 3 and shape[0 if is_array else -1] in CHANNEL_COUNTS:
        return f"{text}: x.{'transpose(1, 2, 0)' if is_array else 'permute(2, 0, 1)'} makes it so"
    return text
