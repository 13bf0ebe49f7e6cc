"""Image cache: decoded pictures as one uint8 tensor."""

import warnings

import torch
from torch import Tensor

from nbfinetune.runtime.memmap import allocate


def allocate_cache(n: int, side: int) -> Tensor | None:
    """Space for n images, uint8 [n, side, side, 3]; None, with a warning, if there is none."""
    try:
        return allocate((n, side, side, 3), torch.uint8)
    except OSError as error:
        text = f"each of the {n:,} pictures is decoded anew in each epoch: all are {error}"
        warnings.warn(text, stacklevel=4)
        return None


def store(image: Tensor, place: Tensor) -> None:
    """Copy an image [3, side, side] to its place [side, side, 3]."""
    # In this thread: torch would copy with some of its own, and that in each that decodes.
    place.numpy()[:] = image.permute(1, 2, 0).numpy()
