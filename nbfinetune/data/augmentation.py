"""Augmentation: random crops, mirror images and lighting of a batch of uint8 images.

What is random is drawn for the whole batch at once, as vectors, and then done: on a CPU picture by
picture with torch's uint8 resize, elsewhere for all pictures in two products of matrices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_MIN_SCALE = 0.5  # smallest share of the image's area that a random crop takes
_RATIOS = (3 / 4, 4 / 3)  # width over height of a crop (RandomResizedCrop)
_TRIES = 10  # crops drawn for each picture, of which the first that fits is taken (the same)
_LIGHTING = 0.2  # brightness and contrast vary by this share (fastai's max_lighting)
_LUMA = (0.299, 0.587, 0.114)  # of the grey that contrast is changed around (ITU-R 601)
_CACHED = 2**18  # floats that are worked on together, so that they stay in a core's cache


@dataclass(frozen=True)
class Changes:
    """What happens to each of n pictures; every tensor has shape [n] and is on the CPU.

    Parameters
    ----------
    top, left, height, width : the crop in pixels, int64
    mirrored : whether left becomes right
    brightness, contrast : factors, 1 for none, float32
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    mirrored: Tensor
    brightness: Tensor
    contrast: Tensor


def draw_changes(n: int, h: int, w: int) -> Changes:
    """Random changes of n pictures of h x w pixels; crops are those of RandomResizedCrop."""
    area = h * w * _uniform(_MIN_SCALE, 1, _TRIES, n)
    ratio = _uniform(*map(math.log, _RATIOS), _TRIES, n).exp()
    heights, widths = (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()
    fits = (heights <= h) & (widths <= w)
    first, none = fits.byte().argmax(0), ~fits.any(0)
    height = heights.gather(0, first[None])[0].masked_fill(none, h)
    width = widths.gather(0, first[None])[0].masked_fill(none, w)
    return Changes(
        top=(_uniform(0, 1, n) * (h - height + 1)).long(),
        left=(_uniform(0, 1, n) * (w - width + 1)).long(),
        height=height,
        width=width,
        mirrored=torch.rand(n) < 0.5,
        brightness=_uniform(1 - _LIGHTING, 1 + _LIGHTING, n).float(),
        contrast=_uniform(1 - _LIGHTING, 1 + _LIGHTING, n).float(),
    )


def _uniform(low: float, high: float, *shape: int) -> Tensor:
    """Random numbers in [low, high), in double precision: `high` itself is never reached."""
    return low + (high - low) * torch.rand(shape, dtype=torch.float64)


def changed(x: Tensor, changes: Changes, size: int) -> Tensor:
    """The crops, scaled and mirrored.

    x: uint8, shape [n, 3, h, w]; returns values in [0, 255], shape [n, size, size, 3].
    """
    return (_one_by_one if x.device.type == "cpu" else _at_once)(x, changes, size)


def _one_by_one(x: Tensor, changes: Changes, size: int) -> Tensor:
    """uint8; on a CPU torch scales single channels_last uint8 pictures by far the fastest."""
    x = x.contiguous(memory_format=torch.channels_last)
    out = x.new_empty(len(x), size, size, 3)
    crops = (changes.top, changes.left, changes.height, changes.width, changes.mirrored)
    places = out.permute(0, 3, 1, 2).split(1)
    each = zip(x.split(1), places, *(numbers.tolist() for numbers in crops), strict=True)
    for picture, place, top, left, height, width, mirrored in each:
        crop = picture[:, :, top : top + height, left : left + width]
        crop = functional.interpolate(crop, (size, size), mode="bilinear", antialias=True)
        place.copy_(crop.flip(-1) if mirrored else crop)
    return out


def _at_once(x: Tensor, changes: Changes, size: int) -> Tensor:
    """float32; a resize is a product of each picture with a matrix for rows and one for columns."""
    crops = (changes.top, changes.left, changes.height, changes.width, changes.mirrored)
    # One small copy that waits for nothing on a GPU; the matrices are made there.
    top, left, height, width, mirrored = torch.stack(crops).float().to(x.device, non_blocking=True)
    rows = _weights(top, height, size, x.shape[2])
    columns = _weights(left, width, size, x.shape[3])
    columns = torch.where(mirrored[:, None, None] > 0, columns.flip(1), columns)
    scaled = rows[:, None] @ x.float() @ columns.transpose(1, 2)[:, None]
    return scaled.permute(0, 2, 3, 1).contiguous()


def _weights(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """What each of `side` pixels gives to each of `size`; shape [n, size, side], rows sum to 1.

    Bilinear with antialias: a triangle around the centre that is one output pixel wide at least.
    """
    start, length = start[:, None, None], length[:, None, None]
    scale = length / size
    centre = start + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    pixel = torch.arange(side, device=start.device) + 0.5
    weights = (1 - (pixel - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixel > start) & (pixel < start + length))
    return weights / weights.sum(-1, keepdim=True)


def _empty(shape: Sequence[int], device: torch.device) -> Tensor:
    """Memory for floats. On Linux NumPy asks for huge pages: 64 pictures of 224 px are 38 MB, whose
    first touch in small pages takes longer than all that is computed."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, device=device)


def normalized(
    pixels: Tensor, mean: Sequence[float], std: Sequence[float], changes: Changes | None = None
) -> Tensor:
    """Values as the network takes them, with the lighting of `changes`: one multiply-add a value.

    Contrast is around the mean grey of each picture. Clamped to black and white is what comes out
    of both changes, so that their order does not matter (torchvision clamps in between, too).

    Parameters
    ----------
    pixels : values in [0, 255], shape [n, h, w, 3]
    mean, std : of each channel, for values in [0, 1]

    Returns
    -------
    float32, shape [n, 3, h, w], in channels_last
    """
    n, h, w, _ = pixels.shape
    # Rows of w x 3 values: a last dimension of 3 would leave vector instructions almost empty.
    channels = torch.tensor((tuple(mean), tuple(std), _LUMA)).to(pixels.device, non_blocking=True)
    mean, std, luma = channels.repeat(1, w)
    black, scale = -mean / std, 1 / (255 * std)
    pixels = pixels.reshape(n, h, w * 3)
    out = _empty(pixels.shape, pixels.device)
    factors = torch.stack((changes.brightness, changes.contrast)) if changes else torch.ones(2, n)
    brightness, contrast = factors[..., None, None].to(pixels.device, non_blocking=True)
    together = max(1, _CACHED // (h * w * 3)) if pixels.device.type == "cpu" else n
    parts = (tensor.split(together) for tensor in (pixels, out, brightness, contrast))
    for part, x, b, c in zip(*parts, strict=True):
        x.copy_(part)
        offset = black
        if changes:
            grey = (x.flatten(1) @ luma.repeat(h))[:, None, None] / (h * w)
            offset = black + b * (1 - c) * grey * scale
        torch.addcmul(offset, x, b * c * scale, out=x)
        if changes:
            torch.clamp(x, black, black + 255 * scale, out=x)
    return out.view(n, h, w, 3).permute(0, 3, 1, 2)
