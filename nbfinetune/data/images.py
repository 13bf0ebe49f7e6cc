"""Picture files: any of them to upright RGB, and the ones that cannot be read, with the reason.

Pillow decodes: it reads every format that photos come in and names what is wrong with the others.
JPEGs that come as pixels go through torchvision where that is quicker; Pillow judges the damaged.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from os import PathLike, cpu_count
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from tqdm import tqdm

from nbfinetune.data.arguments import as_files
from nbfinetune.data.duplicates import same_files
from nbfinetune.data.picture_files import get_image_files, no_decoder
from nbfinetune.rendering.names import printable

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:  # torchvision 0.29 announces that a later one will be without
    decode_jpeg = None

T = TypeVar("T")

MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs: 256 MB of RGB
_XMP_ORIENTATION = b"tiff:Orientation"  # which Pillow follows, and torchvision does not
_SPARE = 2  # a JPEG is decoded at no less than so many times the side it is scaled to
_BLOCK = 16  # files that a thread takes at once: a task a file costs small files a tenth
_WHOLE_16_BIT = 257  # 65535 / 255: the factor between 16-bit and 8-bit values


class UnreadableImage(ValueError):
    """A picture that cannot be decoded; its text is the reason alone."""


def open_image(file: str | PathLike) -> Image.Image:
    """The picture in `file` as 8-bit RGB, upright, its first frame if it is animated.

    EXIF orientation is applied, transparency laid on white, 16-bit and float values are scaled.

    Raises
    ------
    UnreadableImage
        With the reason: missing, empty, no picture, truncated, damaged or too large.
    """
    with _opened(file) as image:
        return to_rgb(image)


def read_pixels(file: str | PathLike, side: int) -> np.ndarray:
    """The picture that `open_image` gives, as uint8 [h, w, 3], to be scaled down to `side`.

    A JPEG whose shorter side is at least 4 x `side` comes at a half, a quarter or an eighth of its
    size, with at least 2 x `side` left: photos of 12 megapixels take a third of the time so. Other
    JPEGs are decoded by torchvision while it can, a sixth quicker than by Pillow.

    Raises
    ------
    UnreadableImage
        As `open_image` does.
    """
    with _opened(file) as image:
        pixels = None
        if isinstance(image, JpegImageFile):
            if min(image.size) >= 2 * _SPARE * side:
                image.draft(None, (_SPARE * side, _SPARE * side))
            elif image.mode in ("RGB", "L") and _XMP_ORIENTATION not in image.info.get("xmp", b""):
                pixels = _jpeg_pixels(file)
        return np.array(to_rgb(image)) if pixels is None else pixels


def _jpeg_pixels(file: str | PathLike) -> np.ndarray | None:
    """The pixels as torchvision gives them, None if it does not: Pillow then says why."""
    if decode_jpeg is None:
        return None
    data = torch.from_numpy(np.fromfile(file, np.uint8))
    # RuntimeError: damaged, or built without libjpeg. The warning: made an error by a user.
    with suppress(RuntimeError, DeprecationWarning):
        pixels = decode_jpeg(data, ImageReadMode.RGB, apply_exif_orientation=True)
        return pixels.permute(1, 2, 0).numpy()
    return None


@contextmanager
def _opened(file: str | PathLike) -> Iterator[Image.Image]:
    """The picture in `file`, not yet decoded; what goes wrong here or inside becomes a reason."""
    try:
        if os.stat(file).st_size == 0:
            raise UnreadableImage("empty file (0 bytes)")
        with Image.open(file) as image:
            _check_size(image)
            yield image
    except UnreadableImage:
        raise
    except MemoryError:
        raise
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except UnidentifiedImageError:
        raise UnreadableImage(no_decoder(file)) from None
    except Image.DecompressionBombError:
        raise UnreadableImage(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, EOFError, ...
        if isinstance(error, OSError) and error.errno is not None:
            raise UnreadableImage(f"cannot be read ({error.strerror})") from None
        raise UnreadableImage(f"damaged ({str(error) or type(error).__name__})") from None


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(f"{image.width} x {image.height} is over {MAX_PIXELS:,} pixels")


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` as 8-bit RGB, upright; see `open_image`."""
    _check_size(image)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)  # which copies even what is upright
    if image.mode.startswith(("I", "F")):
        return _from_high_depth(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_high_depth(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float greyscale as 8 bit; Pillow's own conversion clips at 255."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    top = values.max()
    if image.mode.startswith("I;16"):
        values = values / _WHOLE_16_BIT
    elif image.mode == "F" and top <= 1:
        values = values * 255
    elif top > 255:  # 16-bit values in a 32-bit file, or, beyond 65535, of no known range
        values = values / max(_WHOLE_16_BIT, top / 255)
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def check_images(path: str | PathLike | Iterable[str | PathLike]) -> dict[Path, str]:
    """Every picture file that cannot be decoded, or is there a second time, with its reason.

    Each file is decoded whole, so truncation anywhere is found. Of files with the same bytes all
    but the first are named; the reason says so where the first lies in another folder: there it
    has another label, or is on the other side of the split.

    Parameters
    ----------
    path : a folder (all picture files below it) or the files themselves

    Returns
    -------
    dict
        File -> reason; empty if all are good.

    Raises
    ------
    ValueError
        If `path` is no folder, holds no picture, or has a folder that cannot be listed.

    Examples
    --------
    >>> check_images("photos")  # doctest: +SKIP
    {PosixPath('photos/cat/7.jpg'): 'damaged (image file is truncated (16 bytes not processed))'}
    """
    if isinstance(path, (str, PathLike)):
        files = get_image_files(path)
    else:
        files = as_files(list(path) if isinstance(path, Set) else path, "path")
    reasons = read_all(files, lambda i: open_image(files[i]))
    for first, *others in same_files(files):
        for i in others:
            if files[i] != files[first]:
                reasons.setdefault(i, _same_as(files[first], files[i]))
    return {files[i]: printable(reasons[i]) for i in sorted(reasons)}


def _same_as(first: Path, file: Path) -> str:
    where = "" if file.parent == first.parent else ", which is in another folder"
    return f"the same picture as {first}{where}"


def read_all(files: Sequence[Path], read: Callable[[int], object]) -> dict[int, str]:
    """Call `read` with the number of each file, in threads: the numbers and reasons of bad files.

    A file is bad for which `read` raises UnreadableImage.
    """

    def reasons(numbers: range) -> list[tuple[int, str | None]]:
        return [(i, _reason(read, i)) for i in numbers]

    blocks = [range(i, min(i + _BLOCK, len(files))) for i in range(0, len(files), _BLOCK)]
    pool = ThreadPoolExecutor(cpu_count())  # decoding releases the GIL
    try:
        # Pillow warns from MAX_PIXELS on, where open_image already refuses, and torchvision that
        # its decoders will go. The filters are global, hence set here, outside the threads.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)
            found = chain.from_iterable(pool.map(reasons, blocks))
            return {i: reason for i, reason in read_progress(found, len(files)) if reason}
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the other files


def _reason(read: Callable[[int], object], i: int) -> str | None:
    try:
        read(i)
    except UnreadableImage as error:
        return str(error)
    return None


def read_progress(items: Iterable[T], total: int) -> Iterable[T]:
    """`items`, with a progress bar with time left from the second second on.

    It is drawn in terminals and notebooks; in a log file it would be a line for each drawing.
    """
    notebook = type(sys.stderr).__module__.startswith("ipykernel")
    drawn = notebook or (sys.stderr is not None and sys.stderr.isatty())
    quiet = bool(os.environ.get("NBFINETUNE_STATIC"))  # for notebooks whose outputs are compared
    options = {"unit": "", "delay": 2, "leave": False, "disable": quiet or not drawn}
    return tqdm(items, total=total, desc="reading pictures", **options)
