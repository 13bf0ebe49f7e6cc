"""Picture transforms: uint8 batches to what the network takes, on the device.

A data set gives square images of the presize; training crops and colours them at random, validation
takes the middle, as ImageNet networks are evaluated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as F

from nbfinetune.data.augmentation import Changes, changed, draw_changes, normalized
from nbfinetune.images.pixels import CHANNELS, as_bytes, wrong_values
from nbfinetune.runtime.rng import seeded_rng

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_CROP = 0.875  # side of the validation crop over the side of the presized square: 224 of 256
_LEAST_STD = 1 / 255  # which leaves values in [0, 255]
_SEEDS = 2**31
_NONE, _BYTES = (0.0,) * 3, (_LEAST_STD,) * 3  # mean and std that give values in [0, 255] again

Augment = bool | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """A part of a batch: its pictures are changed as they are when the batch is whole.

    Parameters
    ----------
    pieces : how many pictures random numbers are drawn for at once, one draw after the other
    places : which of all these pictures are in the part, int64 [k]; None = all
    """

    pieces: Sequence[int]
    places: Tensor | None = None

    def pick(self, drawn: Sequence[Changes]) -> Changes:
        """Of what was drawn for each piece that of the part."""
        if self.places is None and len(drawn) == 1:
            return drawn[0]
        each = zip(*(vars(changes).values() for changes in drawn), strict=True)
        whole = (torch.cat(values) for values in each)
        return Changes(*(v if self.places is None else v[self.places] for v in whole))


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
        uint8 picture [3, h, w] that gives [3, size, size], uint8 or floats in [0, 1]

    Raises
    ------
    ValueError
        If mean and std are not three numbers each for values in [0, 1]; from `train` and `valid`
        if a batch, or what `aug` gives, is of another kind.
    """

    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    aug: Augment = field(default=True, compare=False)

    def __post_init__(self) -> None:
        for name, values, least in (("mean", self.mean, 0), ("std", self.std, _LEAST_STD)):
            if len(values) != CHANNELS or not all(least <= value <= 1 for value in values):
                raise ValueError(
                    f"{name} is {tuple(values)}; it must be three numbers, of red, green and blue, "
                    f"from {least:.2g} to 1, as they are of values in [0, 1]"
                )

    def train(self, x: Tensor, of: Part | None = None) -> Tensor:
        """x: [n, 3, h, w], as for `as_bytes`; returns float32 [n, 3, size, size], augmented.

        Parameters
        ----------
        of : which part of a batch these are, for all of which random numbers are drawn
        """
        x, of = as_bytes(x), of or Part([len(x)])
        if self.aug is not True:
            return self._normalize(self.augment(x, of))
        changes = of.pick([draw_changes(n, *x.shape[2:]) for n in of.pieces])
        return normalized(changed(x, changes, self.size), self.mean, self.std, changes)

    def valid(self, x: Tensor) -> Tensor:
        """x: [n, 3, h, w], as for `as_bytes`; returns float32 [n, 3, size, size], the middle."""
        return self._normalize(self.middle(as_bytes(x)))

    def middle(self, x: Tensor) -> Tensor:
        """The middle of each picture, still uint8."""
        if x.shape[-1] == presize(self.size):
            return F.center_crop(x, [self.size, self.size])
        x = F.center_crop(x, [min(x.shape[-2:])] * 2)
        return F.resize(x, [self.size, self.size])

    def augment(self, x: Tensor, of: Part | None = None) -> Tensor:
        """Each picture changed at random, still uint8; each on its own, not the batch as one."""
        if self.aug is False:
            return self.middle(x)
        if self.aug is not True:
            return self._augmented(x, of or Part([len(x)]))
        shown = replace(self, mean=_NONE, std=_BYTES).train(x)
        return shown.round().to(torch.uint8)

    def try_augment(self, picture: Tensor) -> None:
        """Raise ValueError if a function of the user's does not take a picture or give what it
        should.

        picture: uint8, shape [3, h, w]
        """
        try:
            self.augment(picture[None].clone())
        except Exception as error:
            if str(error).startswith("aug gives"):
                raise
            raise ValueError(
                f"aug fails on a picture of uint8 {list(picture.shape)} ({type(error).__name__}: "
                f"{error}); pass a function of one that gives [3, {self.size}, {self.size}]"
            ) from error

    def _augmented(self, x: Tensor, of: Part) -> Tensor:
        """What the user's function gives, checked; each picture has random numbers of its own."""
        seeds = torch.cat([torch.randint(_SEEDS, (n,)) for n in of.pieces])
        of_part = seeds if of.places is None else seeds[of.places]
        pictures = []
        for picture, seed in zip(x, of_part.tolist(), strict=True):
            with seeded_rng(seed):
                pictures.append(self.aug(picture))
        allowed = f"it must give uint8, or floats in [0, 1], of shape [3, {self.size}, {self.size}]"
        for given in pictures:
            if not isinstance(given, Tensor):
                raise ValueError(f"aug gives {type(given).__name__}, no tensor; {allowed}")
            if given.shape != (CHANNELS, self.size, self.size):
                raise ValueError(f"aug gives a picture of shape {list(given.shape)}; {allowed}")
            if given.dtype != pictures[0].dtype:
                both = f"{pictures[0].dtype} and {given.dtype}"
                raise ValueError(f"aug gives {both}, of pictures of one batch; {allowed}")
        batch = torch.stack(pictures)
        if wrong := wrong_values(batch):
            raise ValueError(f"aug gives {wrong}; {allowed}: the learner normalises it itself")
        return batch

    def _normalize(self, x: Tensor) -> Tensor:
        """x: uint8, or floats in [0, 1] as a function of the user may give them."""
        if x.is_floating_point():
            x = x * 255
        return normalized(x.permute(0, 2, 3, 1), self.mean, self.std)
