"""Picture transforms: uint8 batches to what the network takes, on the device.

A data set gives square images of the presize; training crops and colours them at random, validation
takes the middle, as ImageNet networks are evaluated.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as F

from nbfinetune.data.augmentation import changed, draw_changes, normalized

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_CROP = 0.875  # side of the validation crop over the side of the presized square: 224 of 256
_NONE, _BYTES = (0.0,) * 3, (1 / 255,) * 3  # mean and std that give values in [0, 255] again

Augment = bool | Callable[[Tensor], Tensor]


def presize(size: int) -> int:
    """The side of the square that is kept of a picture which the network sees at `size`."""
    return round(size / _CROP)


def to_square(picture: Image.Image | np.ndarray, side: int) -> Tensor:
    """The middle square of an RGB picture, scaled to `side`: uint8, shape [3, side, side].

    picture: of Pillow, or uint8 [h, w, 3]; the square is in channels_last.
    """
    # Torch scales such pictures three times as fast as Pillow, to the same values within 1. It is
    # given its own copy, as NumPy copies in one thread and torch would start some in each thread.
    pixels = np.array(picture) if isinstance(picture, Image.Image) else picture
    short = min(pixels.shape[:2])
    top, left = ((length - short) // 2 for length in pixels.shape[:2])
    middle = np.ascontiguousarray(pixels[top : top + short, left : left + short])
    # A batch of one before the permutation, not after: only so torch sees channels_last.
    square = torch.from_numpy(middle)[None].permute(0, 3, 1, 2)
    return interpolate(square, (side, side), mode="bilinear", antialias=True)[0]


@dataclass(frozen=True)
class ImageTransforms:
    """From a uint8 batch of square images to normalised floats.

    Parameters
    ----------
    size : side of the network's input in pixels
    mean, std : of each channel, for values in [0, 1]; those the network was trained with
    aug : True for random crop, mirror image and lighting, False for none, or a function of one
        uint8 picture [3, h, w] that gives [3, size, size]
    """

    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    aug: Augment = field(default=True, compare=False)

    def train(self, x: Tensor) -> Tensor:
        """x: uint8, shape [n, 3, h, w]; returns float32 [n, 3, size, size], augmented."""
        if self.aug is not True:
            return self._normalize(self.augment(x))
        changes = draw_changes(len(x), *x.shape[2:])
        return normalized(changed(x, changes, self.size), self.mean, self.std, changes)

    def valid(self, x: Tensor) -> Tensor:
        """x: uint8, shape [n, 3, h, w]; returns float32 [n, 3, size, size], the middle."""
        return self._normalize(self.middle(x))

    def middle(self, x: Tensor) -> Tensor:
        """The middle of each picture, still uint8."""
        if x.shape[-1] == presize(self.size):
            return F.center_crop(x, [self.size, self.size])
        return F.resize(x, [self.size, self.size])

    def augment(self, x: Tensor) -> Tensor:
        """Each picture changed at random, still uint8; each on its own, not the batch as one."""
        if self.aug is False:
            return self.middle(x)
        if self.aug is not True:
            return torch.stack([self.aug(picture) for picture in x])
        shown = replace(self, mean=_NONE, std=_BYTES).train(x)
        return shown.round().to(torch.uint8)

    def _normalize(self, x: Tensor) -> Tensor:
        """x: uint8, or floats in [0, 1] as a function of the user may give them."""
        if x.is_floating_point():
            x = x * 255
        return normalized(x.permute(0, 2, 3, 1), self.mean, self.std)
