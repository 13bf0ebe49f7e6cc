"""Thumbnails: pictures of an interpretation's items as JPEG, made when they are asked for."""

import io
from typing import TYPE_CHECKING

from PIL import Image
from torchvision.transforms.v2 import functional as F

if TYPE_CHECKING:
    from nbfinetune.interpretation.classification import ClassificationInterpretation

_QUALITY = 80  # a thumbnail of 112 px is about 5 kB


def thumbnail(interp: "ClassificationInterpretation", i: int, side: int) -> bytes:
    """Item i as the data set keeps it decoded, else its whole picture; see `as_jpeg`."""
    decoded = interp.dataset.cached_image(i) if interp.dataset is not None else None
    return as_jpeg(interp.image(i) if decoded is None else F.to_pil_image(decoded), side)


def as_jpeg(image: Image.Image, side: int) -> bytes:
    """A picture of at most `side` px a side."""
    small = image.copy()
    small.thumbnail((side, side))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
