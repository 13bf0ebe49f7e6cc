"""Data sets: labelled pictures, decoded to uint8, and loaders of even batches of them."""

import warnings
from collections import deque
from collections.abc import Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from os import cpu_count
from pathlib import Path
from weakref import ref

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    Sampler,
    Subset,
    default_collate,
    get_worker_info,
)

from nbfinetune.data.arguments import InvalidItem, as_item, say
from nbfinetune.data.image_cache import allocate_cache, store
from nbfinetune.data.lost_files import LostFiles
from nbfinetune.data.transforms import to_square
from nbfinetune.images.decoding import as_image, read_all, read_pixels, read_progress
from nbfinetune.images.duplicates import origin
from nbfinetune.rendering.names import first_few


class PictureItems:
    """Items whose pictures can be shown: `path(i)`, `image(i)` and `cached_image(i)`."""

    def path(self, i: int) -> Path | None:
        """The file of item i, None if it has none."""
        raise NotImplementedError

    def image(self, i: int) -> Image.Image:
        """The whole picture of item i: RGB, upright."""
        raise NotImplementedError

    def cached_image(self, i: int) -> Tensor | None:
        """The decoded image of item i, uint8 [3, side, side], None if it is not in memory."""
        raise NotImplementedError

    def kept_by_others(self) -> "PictureItems":
        """The same items, as long as something else keeps them."""
        return _KeptByOthers(self)


class _KeptByOthers(PictureItems):
    """Items that are not kept in memory by this."""

    def __init__(self, items: PictureItems) -> None:
        self._items = ref(items)
        self._n = len(items) if isinstance(items, Sized) else 0

    def __len__(self) -> int:
        return self._n

    def __reduce__(self) -> tuple:
        return _kept_by_others, (self._items(),)

    def kept_by_others(self) -> PictureItems:
        return self

    def path(self, i: int) -> Path | None:
        items = self._items()
        return None if items is None else items.path(i)

    def image(self, i: int) -> Image.Image:
        items = self._items()
        if items is None:
            raise ValueError("its data was deleted, with its learner")
        return items.image(i)

    def cached_image(self, i: int) -> Tensor | None:
        items = self._items()
        return None if items is None else items.cached_image(i)


def _kept_by_others(items: PictureItems | None) -> PictureItems | None:
    """What is unpickled has nobody else who keeps it."""
    return items


class ImageDataset(PictureItems, Dataset):
    """Pictures with their class; item i is (uint8 [3, side, side], class index).

    Parameters
    ----------
    items : files, or a data set whose items are (picture, class index)
    targets : class index of each item
    side : of the decoded images, which are square, in pixels
    cache : decoded images, shape [m, 3, side, side], or None to decode an item whenever it is
        asked for
    rows : which row of the cache is that of each item; default: the first of the first item
    """

    def __init__(
        self,
        items: Sequence,
        targets: list[int],
        side: int,
        cache: Tensor | None,
        rows: Sequence[int] | None = None,
    ) -> None:
        self.items, self.targets, self.side, self.cache = items, targets, side, cache
        self.rows = range(len(targets)) if rows is None else rows
        self.lost = LostFiles()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = self.cached_image(i)
        return self._decode(i) if image is None else image, self.targets[i]

    def __getitems__(self, numbers: Sequence[int]) -> list[tuple[Tensor, int]]:
        """The items of a batch, as a process of a loader asks for them, without those lost."""
        return self.lost.others([lambda i=i: self[i] for i in numbers])

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """These items decoded, uint8 [n, 3, side, side], and their targets, int64 [n].

        In a run those are left out whose files are gone by now; see `LostFiles`.
        """
        y = torch.tensor([self.targets[i] for i in numbers])
        if self.cache is not None:
            rows = torch.tensor([self.rows[i] for i in numbers])
            # Rows of bytes are copied whole from memory, whose order is that of channels_last.
            return self.cache.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2), y
        images = torch.empty(len(numbers), self.side, self.side, 3, dtype=torch.uint8)

        def decode(k: int) -> int:
            store(self._decode(numbers[k]), images[k])
            return k

        tasks = [partial(decode, k) for k in range(len(numbers))]
        if get_worker_info() is not None or not self._is_file(0):
            # A process of several decodes alone; a data set need not be safe in threads.
            there = self.lost.others(tasks)
        else:
            with ThreadPoolExecutor(cpu_count()) as pool:
                there = self.lost.others(tasks, pool.map)
        if len(there) < len(numbers):
            images, y = images[there], y[there]
        return images.permute(0, 3, 1, 2), y

    def _decode(self, i: int) -> Tensor:
        if self._is_file(i):
            pixels = self.lost.read(self.items[i], lambda file: read_pixels(file, self.side))
            return to_square(pixels, self.side)
        return to_square(self.image(i), self.side)

    def _is_file(self, i: int) -> bool:
        # An item of a data set is not asked for: that would decode its picture.
        return isinstance(self.items, list) and isinstance(self.items[i], Path)

    def cached_image(self, i: int) -> Tensor | None:
        """The decoded image of item i, None if it is decoded whenever it is asked for."""
        return None if self.cache is None else self.cache[self.rows[i]]

    def image(self, i: int) -> Image.Image:
        """The whole picture of item i: RGB, upright."""
        item = self.items[i]
        return as_image(item if isinstance(item, Path) else item[0])

    def path(self, i: int) -> Path | None:
        """The file of item i; None where the data set it came from has no files."""
        if self._is_file(i):
            return self.items[i]
        items, i = origin(self.items, i)
        samples = items if isinstance(items, list) else getattr(items, "samples", None)
        entry = samples[i] if isinstance(samples, Sequence) and i < len(samples) else None
        file = entry[0] if isinstance(entry, (tuple, list)) and entry else None
        return Path(file) if isinstance(file, (str, Path)) else None

    def with_side(self, side: int) -> "ImageDataset":
        """The same items decoded anew, to squares of another side.

        Raises
        ------
        ValueError
            If files can no longer be read; the message names them.
        """
        cache = allocate_cache(len(self), side)
        new = ImageDataset(self.items, self.targets, side, None)
        if cache is None:
            return new

        def read(i: int) -> None:
            store(new._decode(i), cache[i])

        if not self._is_file(0):  # a data set need not be safe in threads
            for i in read_progress(range(len(self)), len(self)):
                read(i)
        elif bad := list(read_all(self.items, read).values()):
            raise ValueError(
                f"{len(bad)} of {len(self)} pictures can no longer be read: {first_few(bad)}; make "
                "the loaders anew"
            )
        new.cache = _channels_first(cache)
        return new

    def subset(self, numbers: Sequence[int]) -> "ImageDataset":
        """The items of these numbers, with the same cache."""
        files = self._is_file(0)
        return ImageDataset(
            [self.items[i] for i in numbers] if files else Subset(self.items, numbers),
            [self.targets[i] for i in numbers],
            self.side,
            self.cache,
            [self.rows[i] for i in numbers],
        )


class EvenBatches(Sampler[list[int]]):
    """Batches of at most `bs` of n items, sizes differing by one at most, no item left out.

    A short last batch would give BatchNorm poor statistics, and dropping it would drop pictures.
    """

    def __init__(self, n: int, bs: int, *, shuffle: bool) -> None:
        self.n, self.shuffle, self.n_batches = n, shuffle, -(-n // bs)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.n) if self.shuffle else torch.arange(self.n)
        yield from (batch.tolist() for batch in order.tensor_split(self.n_batches))


class _EvenLoader(DataLoader):
    """Takes a batch at once, or decodes it ahead; goes on without processes that do not start."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.num_workers == 0 and gives_pictures(self):
            return self._at_once() if self.dataset.cache is not None else self._ahead()
        try:
            return super().__iter__()
        except Exception as error:  # no memory, no process, or the data set cannot be sent to one
            if self.num_workers == 0:
                raise
            text = f"the {self.num_workers} processes that load cannot be started ({error})"
            warnings.warn(f"{text}; going on without, as with num_workers=0", stacklevel=2)
            self.num_workers = 0
            return iter(self)

    def _numbers(self) -> Iterator[list[int]]:
        # As DataLoader draws: the order of the pictures is the same.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        return iter(self.batch_sampler)

    def _at_once(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, each copied as a whole from the cache."""
        for numbers in self._numbers():
            yield self._pinned(self.dataset.batch(numbers))

    def _ahead(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, each decoded in threads while the one before is worked on."""
        with ThreadPoolExecutor(1) as pool:
            ahead: deque[Future] = deque()
            for numbers in self._numbers():
                ahead.append(pool.submit(self.dataset.batch, numbers))
                if len(ahead) > 1:
                    yield self._pinned(ahead.popleft().result())
            yield from (self._pinned(batch.result()) for batch in ahead)

    def _pinned(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return tuple(part.pin_memory() for part in batch) if self.pin_memory else batch


def even_loader(
    dataset: Dataset, bs: int, *, shuffle: bool, num_workers: int | None = None
) -> DataLoader:
    """A loader of all of `dataset` in even batches of at most `bs`.

    Without `num_workers` no processes are started: cached images need none, and others are decoded
    by threads.
    """
    return _EvenLoader(
        dataset,
        batch_sampler=EvenBatches(len(dataset), bs, shuffle=shuffle),
        num_workers=num_workers or 0,
        pin_memory=torch.cuda.is_available(),  # a copy to the GPU can then overlap with work there
    )


def gives_pictures(loader: object) -> bool:
    """Whether a loader gives the images and targets of an `ImageDataset` and nothing else."""
    if type(loader) not in (DataLoader, _EvenLoader) or type(loader.dataset) is not ImageDataset:
        return False
    return loader.collate_fn is default_collate and loader.batch_sampler is not None


def read_files(
    files: Sequence[Path], side: int, on_bad: str, notes: list[str]
) -> tuple[list[int], Tensor | None]:
    """Decode every file once; what is left out is added to the notes.

    Returns
    -------
    good : the numbers of those that can be decoded
    cache : the decoded images of all files, shape [n, 3, side, side], undefined for the others;
        None if there is no room for them

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
    return good, _channels_first(cache)


def _channels_first(cache: Tensor | None) -> Tensor | None:
    return None if cache is None else cache.permute(0, 3, 1, 2)


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


def read_dataset(dataset: Sequence, side: int, on_bad: str, notes: list[str]) -> ImageDataset:
    """A torchvision-style data set, read once; its items are (picture, class index)."""
    good, targets, bad = [], [], {}
    cache = allocate_cache(len(dataset), side)
    for i in read_progress(range(len(dataset)), len(dataset)):
        try:
            picture, target = as_item(dataset[i], i)
            image = as_image(picture)
        except InvalidItem:
            raise
        except (TypeError, ValueError, OSError) as error:
            bad[i] = f"item {i}: {error}"
            continue
        good.append(i)
        targets.append(target)
        if cache is not None:
            store(to_square(image, side), cache[i])
    check_bad(bad, len(dataset), on_bad, notes)
    items = dataset if not bad else Subset(dataset, good)
    return ImageDataset(items, targets, side, _channels_first(cache), good)
