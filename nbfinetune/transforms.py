"""Picture transforms: uint8 batches to what the network takes, on the device, with torchvision v2.

A data set gives squares of the presize; training crops and colours them at random, validation
takes the middle, as ImageNet networks are evaluated.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_CROP = 0.875  # side of the validation crop over the side of the presized square: 224 of 256
_MIN_SCALE = 0.5  # smallest share of the square's area that a random crop takes
_LIGHTING = 0.2  # brightness and contrast vary by this share (fastai's max_lighting)

Augment = bool | Callable[[Tensor], Tensor]


def presize(size: int) -> int:
    """The side of the square that is kept of a picture which the network sees at `size`."""
    return round(size / _CROP)


def to_square(image: Image.Image, side: int) -> Tensor:
    """The middle square of an RGB picture, scaled to `side`: uint8, shape [3, side, side]."""
    short = min(image.size)
    left, top = ((length - short) // 2 for length in image.size)
    middle = image.crop((left, top, left + short, top + short))
    square = middle.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return F.pil_to_tensor(square)


@dataclass(frozen=True)
class ImageTransforms:
    """From a uint8 batch of squares to normalised floats.

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
        return self._normalize(self.augment(x))

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
        return torch.stack([self._augment_one(picture) for picture in x])

    @cached_property
    def _augment_one(self) -> Callable[[Tensor], Tensor]:
        if callable(self.aug):
            return self.aug
        return v2.Compose(
            [
                v2.RandomResizedCrop(self.size, scale=(_MIN_SCALE, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=_LIGHTING, contrast=_LIGHTING),
            ]
        )

    def _normalize(self, x: Tensor) -> Tensor:
        x = F.normalize(F.to_dtype(x, torch.float32, scale=True), list(self.mean), list(self.std))
        return x.contiguous(memory_format=torch.channels_last)  # a third less time on a CPU
