"""Reading: every picture of a source decoded once, and kept while there is room."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from nbfinetune.data.arguments import InvalidItem, as_item, say
from nbfinetune.data.datasets import UNLABELLED, ImageDataset
from nbfinetune.data.image_cache import allocate_cache, store
from nbfinetune.data.transforms import to_square
from nbfinetune.images.decoding import as_image, read_all, read_pixels, read_progress
from nbfinetune.rendering.names import first_few

_DIGEST = 16  # bytes: of 10^9 pictures no two are taken for the same


def read_files(
    files: Sequence[Path], side: int, on_bad: str, notes: list[str]
) -> tuple[list[int], Tensor | None, dict[int, str]]:
    """Decode every file once; what is left out is added to the notes.

    Returns
    -------
    good : the numbers of those that can be decoded
    cache : the decoded images of all files, shape [n, 3, side, side], undefined for the others;
        None if there is no room for them
    bad : the numbers of those that cannot, and why

    Raises
    ------
    ValueError
        If one cannot be decoded and `on_bad` is "error"; the message names files and reasons.
    """
    cache = allocate_cache(len(files), side)

    def read(i: int) -> None:
        image = to_square(read_pixels(files[i], side), side)
        if cache is not None:
            store(image, cache[i])

    bad = {i: f"{files[i]}: {reason}" for i, reason in read_all(files, read).items()}
    check_bad(bad, len(files), on_bad, notes)
    good = [i for i in range(len(files)) if i not in bad]
    return good, _channels_first(cache), bad


def _channels_first(cache: Tensor | None) -> Tensor | None:
    return None if cache is None else cache.permute(0, 3, 1, 2)


def decoded_anew(data: ImageDataset, side: int) -> ImageDataset:
    """The same items, decoded to squares of another side.

    Raises
    ------
    ValueError
        If files can no longer be read; the message names them.
    """
    cache = allocate_cache(len(data), side)
    new = ImageDataset(data.items, data.targets, side, None)
    new.digests = data.digests
    if cache is None:
        return new

    def read(i: int) -> None:
        store(new.decoded(i), cache[i])

    if not isinstance(data.items[0], Path):  # a data set need not be safe in threads
        for i in read_progress(range(len(data)), len(data)):
            read(i)
    elif bad := list(read_all(data.items, read).values()):
        raise ValueError(
            f"{len(bad)} of {len(data)} pictures can no longer be read: {first_few(bad)}; make "
            "the loaders anew"
        )
    new.cache = _channels_first(cache)
    return new


def check_bad(bad: dict[int, str], total: int, on_bad: str, notes: list[str]) -> None:
    """Raise, or with on_bad="skip" warn and note, if items are bad; their texts are named.

    Raises
    ------
    ValueError
        Unless `on_bad` is "skip" and some of the `total` items are good.
    """
    if not bad:
        return
    text = f"{len(bad)} of {total} pictures cannot be read: {first_few(list(bad.values()))}"
    if on_bad == "skip" and len(bad) < total:
        say(notes, f"left out: {text}")
        return
    raise ValueError(f'{text}; pass on_bad="skip" to leave them out (check_images lists them all)')


def read_dataset(
    dataset: Sequence, side: int, on_bad: str, notes: list[str], *, labelled: bool = True
) -> ImageDataset:
    """A torchvision-style data set, read once; its items are (picture, class index).

    Parameters
    ----------
    labelled : False takes no notice of class indices
    """
    good, targets, bad, digests = [], [], {}, []
    cache = allocate_cache(len(dataset), side)
    for i in read_progress(range(len(dataset)), len(dataset)):
        try:
            item = dataset[i]
            picture, target = as_item(item, i) if labelled else (item[0], UNLABELLED)
            square = to_square(_pixels(picture, side), side)
        except InvalidItem:
            raise
        except (TypeError, ValueError, OSError) as error:
            file = dataset[i][0] if isinstance(dataset, list) and not labelled else None
            bad[i] = f"{file if isinstance(file, Path) else f'item {i}'}: {error}"
            continue
        good.append(i)
        targets.append(target)
        digests.append(blake2b(square.numpy().tobytes(), digest_size=_DIGEST).digest())
        if cache is not None:
            store(square, cache[i])
    check_bad(bad, len(dataset), on_bad, notes)
    items = dataset if not bad else Subset(dataset, good)
    read = ImageDataset(items, targets, side, _channels_first(cache), good)
    read.unread, read.digests = bad, digests
    return read


def _pixels(picture: object, side: int) -> Image.Image | np.ndarray:
    """Files and their bytes as `read_files` reads them, to the same values; others as they are."""
    file = isinstance(picture, (Path, bytes))
    return read_pixels(picture, side) if file else as_image(picture)
