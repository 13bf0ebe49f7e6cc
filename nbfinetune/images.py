"""Picture files: any of them to upright RGB, and the ones that cannot be read, with the reason.

Pillow decodes: it reads every format that photos come in and names what is wrong with the others.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from os import PathLike, cpu_count
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

T = TypeVar("T")

MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs: 256 MB of RGB
_WHOLE_16_BIT = 257  # 65535 / 255: the factor between 16-bit and 8-bit values


class UnreadableImage(ValueError):
    """A picture that cannot be decoded; its text is the reason alone."""


@cache
def image_suffixes() -> frozenset[str]:
    """The file suffixes that Pillow can read as pictures, lower case, with the dot."""
    Image.init()
    readable = {s for s, fmt in Image.registered_extensions().items() if fmt in Image.OPEN}
    return frozenset(readable - {".pdf", ".mpg", ".mpeg", ".h5", ".hdf"})


def get_image_files(path: str | PathLike) -> list[Path]:
    """The picture files below `path`, sorted, as absolute paths.

    Hidden files and folders are passed over, links to folders are followed.

    Raises
    ------
    ValueError
        If `path` is no folder or holds no picture.
    """
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; pass the folder that holds the pictures")
    files, seen = [], set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        files += [
            Path(folder, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in image_suffixes()
        ]
    if not files:
        raise ValueError(f"no pictures below {root}; expected files such as .jpg or .png")
    return sorted(files)


def open_image(file: str | PathLike) -> Image.Image:
    """The picture in `file` as 8-bit RGB, upright, its first frame if it is animated.

    EXIF orientation is applied, transparency laid on white, 16-bit and float values are scaled.

    Raises
    ------
    UnreadableImage
        With the reason: missing, empty, no picture, truncated, damaged or too large.
    """
    path = Path(file)
    try:
        if path.stat().st_size == 0:
            raise UnreadableImage("empty file (0 bytes)")
        with Image.open(path) as image:
            return to_rgb(image)
    except UnreadableImage:
        raise
    except MemoryError:
        raise
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except UnidentifiedImageError:
        raise UnreadableImage("not a picture that Pillow knows") from None
    except Image.DecompressionBombError:
        raise UnreadableImage(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, EOFError, ...
        if isinstance(error, OSError) and error.errno is not None:
            raise UnreadableImage(f"cannot be read ({error.strerror})") from None
        raise UnreadableImage(f"damaged ({str(error) or type(error).__name__})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` as 8-bit RGB, upright; see `open_image`."""
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(f"{image.width} x {image.height} is over {MAX_PIXELS:,} pixels")
    image = ImageOps.exif_transpose(image)
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
    """Every picture file that cannot be decoded, with its reason.

    Each file is decoded whole, so truncation anywhere is found.

    Parameters
    ----------
    path : a folder (all picture files below it) or the files themselves

    Returns
    -------
    dict
        File -> reason; empty if all are good.

    Examples
    --------
    >>> check_images("photos")  # doctest: +SKIP
    {PosixPath('photos/cat/7.jpg'): 'damaged (image file is truncated (16 bytes not processed))'}
    """
    if isinstance(path, (str, PathLike)):
        path = get_image_files(path)
    files = [Path(f) for f in path]
    results = decode_all(files, lambda image: None)
    return {f: str(r) for f, r in zip(files, results, strict=True) if r is not None}


def decode_all(
    files: Sequence[Path], keep: Callable[[Image.Image], T]
) -> list[T | UnreadableImage]:
    """`keep(picture)` of each file, or the error of one that cannot be decoded, in their order."""

    def one(file: Path) -> T | UnreadableImage:
        try:
            return keep(open_image(file))
        except UnreadableImage as error:
            return error

    # Pillow warns from MAX_PIXELS on, where open_image already refuses; the filters are global,
    # hence set here, outside the threads. Decoding releases the GIL.
    with warnings.catch_warnings(), ThreadPoolExecutor(cpu_count()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return list(read_progress(pool.map(one, files), len(files)))


def read_progress(items: Iterable[T], total: int) -> Iterable[T]:
    """`items`, with a progress bar with time left from the second second on."""
    quiet = bool(os.environ.get("NBFINETUNE_STATIC"))  # for notebooks whose outputs are compared
    options = {"unit": "", "delay": 2, "leave": False, "disable": quiet}
    return tqdm(items, total=total, desc="reading pictures", **options)
