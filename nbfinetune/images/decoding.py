"""Picture files: any of them to upright RGB, and the ones that cannot be read, with the reason.

Pillow decodes: it reads every format that photos come in and names what is wrong with the others.
JPEGs that come as pixels go through torchvision where that is quicker; Pillow judges the damaged,
and it alone says which way is up.
"""

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from os import PathLike, cpu_count
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from nbfinetune.arguments import as_files
from nbfinetune.images import png
from nbfinetune.images.duplicates import same_files
from nbfinetune.images.files import get_image_files, no_decoder, readable_formats
from nbfinetune.images.jpeg import SIGNATURE, Jpeg
from nbfinetune.images.pixels import from_array
from nbfinetune.images.rgb import (
    MAX_PIXELS,
    UnreadableImage,
    array_of,
    check_size,
    to_rgb,
    turn_upright,
    upright_rgb,
)
from nbfinetune.rendering.names import printable

T = TypeVar("T")

_SPARE = 2  # a JPEG is decoded at no less than so many times the side it is scaled to
_BLOCK = 16  # files that a thread takes at once: a task a file costs small files a tenth


def open_image(file: str | PathLike | bytes) -> Image.Image:
    """The picture in `file` or its bytes, as 8-bit RGB, upright, of an animation the first frame.

    EXIF orientation is applied, transparency laid on white, 16-bit and float values are scaled.
    Colour profiles are not followed. A JPEG that would take more than 256 MB comes at a half, a
    quarter or an eighth of its size.

    Raises
    ------
    UnreadableImage
        With the reason: missing, empty, no picture, truncated, damaged, or too large for 256 MB.
    """
    with _opened(file) as image:
        if isinstance(image, Jpeg):
            image.shrink()
            image.load()
            image = image.image
        return to_rgb(image)


def read_pixels(file: str | PathLike | bytes, side: int) -> np.ndarray:
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
        if not isinstance(image, Jpeg):
            return array_of(upright_rgb(image))
        pixels, photo = None, image.image
        if not image.shrink(_SPARE * side) and photo.mode in ("RGB", "L"):
            pixels = image.pixels()
        if pixels is None:
            image.load()
            return array_of(upright_rgb(photo))
        turn = turn_upright(photo)
        return pixels if turn is None else np.array(Image.fromarray(pixels).transpose(turn))


def as_image(
    picture: Image.Image | Tensor | np.ndarray | str | PathLike | bytes | BinaryIO,
) -> Image.Image:
    """A Pillow picture, an array or tensor as `from_array` takes them, or a file, as RGB.

    A file is a name, its bytes, or what they are read from.

    Raises
    ------
    ValueError
        If it is none of these, or no picture.
    """
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    if isinstance(picture, (Tensor, np.ndarray)):
        return to_rgb(from_array(picture))
    if isinstance(picture, (str, PathLike)):
        return open_image(picture)
    data = picture.read() if hasattr(picture, "read") else picture
    if isinstance(data, (bytes, bytearray, memoryview)):
        try:
            return open_image(bytes(data))
        except UnreadableImage as error:
            raise UnreadableImage(f"these bytes are no picture: {error}") from None
    kind = "None" if picture is None else type(picture).__name__
    raise ValueError(
        f"{kind} is no picture; give one file, Pillow picture, array [h, w, 3], tensor [3, h, w] "
        "or the bytes of a file"
    )


@contextmanager
def _opened(file: str | PathLike | bytes) -> Iterator[Image.Image | Jpeg]:
    """The picture in `file`, not yet decoded; what goes wrong here or inside becomes a reason."""
    try:
        data = isinstance(file, bytes)
        # buffering=0: a JPEG is read as a whole
        with io.BytesIO(file) if data else open(file, "rb", buffering=0) as stream:
            signature = stream.read(len(SIGNATURE))
            if not signature:
                raise UnreadableImage("empty file (0 bytes)")
            if signature == SIGNATURE:
                stream.seek(0)
                yield Jpeg.open(stream.read())
                return
            if png.SIGNATURE.startswith(signature):
                png.check_chunks(stream)
        with Image.open(io.BytesIO(file) if data else file, formats=readable_formats()) as image:
            check_size(image)
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
        # Pillow warns from MAX_PIXELS on, where open_image already refuses. The filters are
        # global, hence set here, outside the threads.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of metadata that are not used
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
