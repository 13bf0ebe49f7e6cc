"""Data sets: labelled pictures, decoded to uint8, and loaders of even batches of them."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from os import cpu_count
from pathlib import Path
from weakref import ref

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    default_collate,
    get_worker_info,
)

from nbfinetune.data.image_cache import store
from nbfinetune.data.lost_files import LostFiles
from nbfinetune.data.transforms import to_square
from nbfinetune.images.decoding import as_image, read_pixels
from nbfinetune.images.duplicates import origin

UNLABELLED = -1  # the class index of a picture without a label
_FILES = ("samples", "_samples", "_image_files", "_images")  # what torchvision's sets keep them in


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
    targets : class index of each item, `UNLABELLED` of all if they have no labels
    side : of the decoded images, which are square, in pixels
    cache : decoded images, shape [m, 3, side, side], or None to decode an item whenever it is
        asked for
    rows : which row of the cache is that of each item; default: the first of the first item

    Attributes
    ----------
    unread : of what it was read from, the number of each picture that is left out -> why
    digests : of the decoded images, which tell those that are the same; None if they are files
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
        self.lost, self.unread, self.digests = LostFiles(), {}, None

    @property
    def labelled(self) -> bool:
        """Whether the pictures have labels."""
        return UNLABELLED not in self.targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = self.cached_image(i)
        return self.decoded(i) if image is None else image, self.targets[i]

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
            store(self.decoded(numbers[k]), images[k])
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

    def decoded(self, i: int) -> Tensor:
        """The picture of item i as `to_square` gives it."""
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
        if hasattr(items, "file_of"):
            return items.file_of(i)
        known = [items] if isinstance(items, list) else [getattr(items, name, 0) for name in _FILES]
        samples = next((found for found in known if isinstance(found, Sequence)), ())
        entry = samples[i] if i < len(samples) else None
        file = entry[0] if isinstance(entry, (tuple, list)) and entry else entry
        return Path(file) if isinstance(file, (str, Path)) else None

    def subset(self, numbers: Sequence[int]) -> "ImageDataset":
        """The items of these numbers, with the same cache."""
        files = self._is_file(0)
        part = ImageDataset(
            [self.items[i] for i in numbers] if files else Subset(self.items, numbers),
            [self.targets[i] for i in numbers],
            self.side,
            self.cache,
            [self.rows[i] for i in numbers],
        )
        part.digests = self.digests and [self.digests[i] for i in numbers]
        return part


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
    dataset: Dataset,
    bs: int,
    *,
    shuffle: bool,
    num_workers: int | None = None,
    collate_fn: Callable[[list], object] | None = None,
) -> DataLoader:
    """A loader of all of `dataset` in even batches of at most `bs`.

    Without `num_workers` no processes are started: cached images need none, and others are decoded
    by threads.
    """
    return _EvenLoader(
        dataset,
        batch_sampler=EvenBatches(len(dataset), bs, shuffle=shuffle),
        num_workers=num_workers or 0,
        collate_fn=collate_fn,
        pin_memory=torch.cuda.is_available(),  # a copy to the GPU can then overlap with work there
    )


def with_batches(loader: DataLoader, batch_sampler: Sampler) -> DataLoader:
    """A loader as this one, which gives pictures, of other batches; it draws the same numbers."""
    return type(loader)(
        loader.dataset,
        batch_sampler=batch_sampler,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        generator=loader.generator,
    )


def gives_pictures(loader: object) -> bool:
    """Whether a loader gives the images and targets of an `ImageDataset` and nothing else."""
    if type(loader) not in (DataLoader, _EvenLoader) or type(loader.dataset) is not ImageDataset:
        return False
    return loader.collate_fn is default_collate and loader.batch_sampler is not None


def shuffles(loader: object) -> bool:
    """Whether item i of the loader is another than item i of its data set."""
    stated = getattr(loader, "in_order", None)  # torch's own loaders mean their processes by it
    if isinstance(stated, bool) and not isinstance(loader, DataLoader):
        return not stated
    samplers = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    random = isinstance(samplers[0], RandomSampler)
    return random or (isinstance(samplers[1], EvenBatches) and samplers[1].shuffle)


def _in_order(loader: object) -> bool:
    """Whether item i of the loader is surely item i of its data set."""
    if not isinstance(loader, DataLoader):
        return getattr(loader, "in_order", None) is True
    if isinstance(loader.batch_sampler, EvenBatches):
        return not loader.batch_sampler.shuffle
    own = type(loader.batch_sampler) is BatchSampler and loader.batch_sampler.sampler
    return isinstance(own, SequentialSampler)


def pictures_of(loader: DataLoader) -> PictureItems | None:
    """The data set of a loader, if its item i is surely item i of the loader."""
    dataset = getattr(loader, "dataset", None)
    return dataset if _in_order(loader) and isinstance(dataset, PictureItems) else None
