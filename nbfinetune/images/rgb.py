"""RGB: any Pillow picture as 8-bit RGB, upright, in little memory."""

from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs
MAX_BYTES = 2**28  # 256 MB: of what one thread holds to decode a picture
_RGB = 4  # bytes that a pixel takes in Pillow; in an array it is 3
_STORED = {"1": 1, "L": 1, "P": 1}  # bytes of other modes, where not as of RGB
_STRIP = 2**20  # pixels converted at once: a large picture as a whole would take gigabytes
_WHOLE_16_BIT = 257  # 65535 / 255: the factor between 16-bit and 8-bit values
_TURNS = {  # of EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(ValueError):
    """A picture that cannot be decoded; its text is the reason alone."""


def check_size(image: Image.Image) -> None:
    """Raise UnreadableImage if `image` is too large to be decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(f"{image.width} x {image.height} is over {MAX_PIXELS:,} pixels")
    check_bytes(image, image.width * image.height * bytes_of_pixel(image))


def bytes_of_pixel(image: Image.Image) -> int:
    """Bytes that decoding takes for a pixel: as it is stored, as RGB, and copied."""
    stored = 2 if image.mode.startswith("I;16") else _STORED.get(image.mode, _RGB)
    turned = turn_upright(image) is not None
    return stored + _RGB * (image.mode != "RGB") + _RGB * turned + _RGB


def check_bytes(image: Image.Image, needed: int) -> None:
    """Raise UnreadableImage if decoding `image` needs too much memory."""
    if needed > MAX_BYTES:
        raise UnreadableImage(
            f"{image.width} x {image.height} pixels of mode {image.mode} take {needed >> 20:,} MB "
            f"to decode, over {MAX_BYTES >> 20}; make it smaller"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` as 8-bit RGB, upright, without metadata; see `open_image`."""
    check_size(image)
    upright = upright_rgb(image)
    upright = upright.copy() if upright is image else upright
    upright.info = {}  # else its orientation would be applied once more
    return upright


def upright_rgb(image: Image.Image) -> Image.Image:
    """As `to_rgb`, with metadata; `image` itself if it is that already."""
    image.load()  # after which Pillow knows EXIF behind the pixels, and has turned a TIFF
    turn = turn_upright(image)
    if image.mode.startswith(("I", "F")):
        image = _from_high_depth(image).convert("RGB")
    elif image.has_transparency_data:
        image = _on_white(image)
    elif image.mode != "RGB":
        image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def turn_upright(image: Image.Image) -> Image.Transpose | None:
    """What makes `image` upright, None if nothing does or its EXIF cannot be read."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # of whatever kind the parsers raise: the pixels are good all the same
        return None


def _strips(image: Image.Image) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """The picture from top to bottom: the place of each strip in it, and the strip."""
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield (0, top), image.crop((0, top, image.width, min(top + rows, image.height)))


def array_of(image: Image.Image) -> np.ndarray:
    """The values of a picture of 8 bits, uint8 [h, w] or [h, w, c], without copies between."""
    bands = len(image.getbands())
    out = np.empty((image.height, image.width, bands)[: 2 + (bands > 1)], np.uint8)
    for (_, top), strip in _strips(image):
        out[top : top + strip.height] = np.asarray(strip)
    return out


def _on_white(image: Image.Image) -> Image.Image:
    out = Image.new("RGB", image.size)
    for place, strip in _strips(image):
        white = Image.new("RGBA", strip.size, "white")
        out.paste(Image.alpha_composite(white, strip.convert("RGBA")).convert("RGB"), place)
    return out


def _from_high_depth(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float greyscale as 8 bit; Pillow's own conversion clips at 255."""
    whole = image.mode.startswith("I;16")
    top = 0 if whole else max(_finite(strip).max() for _, strip in _strips(image))
    factor = 1.0
    if whole:
        factor = 1 / _WHOLE_16_BIT
    elif image.mode == "F" and top <= 1:
        factor = 255.0
    elif top > 255:  # 16-bit values in a 32-bit file, or, beyond 65535, of no known range
        factor = 1 / max(_WHOLE_16_BIT, top / 255)
    out = Image.new("L", image.size)
    for place, strip in _strips(image):
        values = (_finite(strip) * factor).clip(0, 255).round().astype(np.uint8)
        out.paste(Image.fromarray(values), place)
    return out


def _finite(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
