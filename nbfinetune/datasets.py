"""Data sets: labelled pictures as uint8 squares, their split, and loaders of even batches."""

import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset
from torchvision.transforms.v2 import functional as F

from nbfinetune.images import UnreadableImage, decode_all, open_image, read_progress, to_rgb
from nbfinetune.transforms import to_square

_MEMORY = 2 * 2**30  # bytes of decoded pictures that are kept; 10,000 at 224 px
_NAMED = 5  # files or classes that one message names


class PictureItems:
    """Items whose pictures can be shown: `path(i)`, `image(i)` and `square(i)`."""

    def path(self, i: int) -> Path | None:
        """The file of item i, None if it has none."""
        raise NotImplementedError

    def image(self, i: int) -> Image.Image:
        """The whole picture of item i: RGB, upright."""
        raise NotImplementedError

    def square(self, i: int) -> Tensor | None:
        """The middle square of item i, uint8 [3, side, side], None if it is not in memory."""
        raise NotImplementedError


class ImageDataset(PictureItems, Dataset):
    """Pictures with their class; item i is (uint8 [3, side, side], class index).

    Parameters
    ----------
    items : files, or a data set whose items are (picture, class index)
    targets : class index of each item
    side : side of the squares in pixels
    squares : the decoded squares, or None to decode an item whenever it is asked for
    """

    def __init__(
        self, items: Sequence, targets: list[int], side: int, squares: list[Tensor] | None
    ) -> None:
        self.items, self.targets, self.side, self.squares = items, targets, side, squares

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        square = self.square(i)
        if square is None:
            square = to_square(self.image(i), self.side)
        return square, self.targets[i]

    def square(self, i: int) -> Tensor | None:
        """The square of item i, None if it is decoded whenever it is asked for."""
        return self.squares[i] if self.squares else None

    def image(self, i: int) -> Image.Image:
        """The whole picture of item i: RGB, upright."""
        item = self.items[i]
        return as_image(item if isinstance(item, Path) else item[0])

    def path(self, i: int) -> Path | None:
        """The file of item i; None where the data set it came from has no files."""
        if isinstance(self.items, list) and isinstance(self.items[i], Path):
            return self.items[i]
        # An item of a data set is not asked for: that would decode its picture.
        samples = getattr(self.items, "samples", None)
        return Path(samples[i][0]) if samples else None

    def subset(self, numbers: Sequence[int]) -> "ImageDataset":
        """The items of these numbers; for a data set of files."""
        return ImageDataset(
            [self.items[i] for i in numbers],
            [self.targets[i] for i in numbers],
            self.side,
            self.squares and [self.squares[i] for i in numbers],
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


def even_loader(dataset: Dataset, bs: int, *, shuffle: bool, num_workers: int = 0) -> DataLoader:
    """A loader of all of `dataset` in even batches of at most `bs`."""
    return DataLoader(
        dataset,
        batch_sampler=EvenBatches(len(dataset), bs, shuffle=shuffle),
        num_workers=num_workers,
    )


def some(names: Sequence[object]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(str(name) for name in names[:_NAMED]) + more


def fits_in_memory(n: int, side: int) -> bool:
    """Whether n squares are few enough to be kept decoded."""
    return n * 3 * side**2 <= _MEMORY


def read_files(
    files: Sequence[Path], side: int, on_bad: str
) -> tuple[list[int], list[Tensor] | None]:
    """Decode every file: the numbers of the good ones, and their squares if they fit into memory.

    Raises
    ------
    ValueError
        If one cannot be decoded and `on_bad` is "error"; the message names files and reasons.
    """
    fits = fits_in_memory(len(files), side)
    results = decode_all(files, lambda image: to_square(image, side) if fits else None)
    bad = {i: f"{files[i]}: {r}" for i, r in enumerate(results) if isinstance(r, UnreadableImage)}
    check_bad(bad, len(files), on_bad)
    good = [i for i in range(len(files)) if i not in bad]
    return good, [results[i] for i in good] if fits else None


def check_bad(bad: dict[int, str], total: int, on_bad: str) -> None:
    """Raise, or with on_bad="skip" warn, if items are bad; their texts are named.

    Raises
    ------
    ValueError
        Unless `on_bad` is "skip" and some of the `total` items are good.
    """
    if not bad:
        return
    text = f"{len(bad)} of {total} pictures cannot be read: {some(list(bad.values()))}"
    if on_bad == "skip" and len(bad) < total:
        warnings.warn(f"left out: {text}", stacklevel=4)
        return
    raise ValueError(f'{text}; pass on_bad="skip" to leave them out (check_images lists them all)')


def read_dataset(dataset: Sequence, side: int, on_bad: str) -> ImageDataset:
    """A torchvision-style data set, read once; its items are (picture, class index)."""
    good, targets, squares, bad = [], [], [], {}
    fits = fits_in_memory(len(dataset), side)
    for i in read_progress(range(len(dataset)), len(dataset)):
        try:
            picture, target = dataset[i]
            image = as_image(picture)
        except (TypeError, ValueError, OSError) as error:
            bad[i] = f"item {i}: {error}"
            continue
        good.append(i)
        targets.append(int(target))
        if fits:
            squares.append(to_square(image, side))
    check_bad(bad, len(dataset), on_bad)
    items = dataset if not bad else Subset(dataset, good)
    return ImageDataset(items, targets, side, squares if fits else None)


def as_image(picture: Image.Image | Tensor | str | Path) -> Image.Image:
    """A Pillow picture, a tensor [3 or 1, h, w] (uint8, or floats in [0, 1]) or a file, as RGB."""
    if isinstance(picture, (str, Path)):
        return open_image(picture)
    if isinstance(picture, Tensor):
        if picture.is_floating_point() and not 0 <= picture.min() <= picture.max() <= 1:
            raise ValueError("floats outside [0, 1]; give pictures before normalisation")
        return to_rgb(F.to_pil_image(picture))
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    raise TypeError(f"{type(picture).__name__} is neither a picture, a tensor nor a file")


def stratified(
    targets: Sequence[int], vocab: Sequence[str], valid_pct: float, seed: int
) -> set[int]:
    """The items held out: of every class the share `valid_pct`, but one at least, and never all.

    Raises
    ------
    ValueError
        If a class has one picture only: it cannot be on both sides.
    """
    members: dict[int, list[int]] = {t: [] for t in range(len(vocab))}
    for i, target in enumerate(targets):
        members[target].append(i)
    if lonely := [vocab[t] for t, items in members.items() if len(items) == 1]:
        raise ValueError(
            f"{len(lonely)} classes have a single picture ({some(lonely)}); a class needs two, "
            "one to train on and one held out: add pictures or leave the class out"
        )
    shuffled = random.Random(seed)
    held_out: set[int] = set()
    for items in members.values():
        shuffled.shuffle(items)
        n = int(len(items) * valid_pct + 0.5)
        held_out.update(items[: min(max(n, 1), len(items) - 1)])
    return held_out


def sorted_labels(labels: set[str | int]) -> list[str | int]:
    """Numbers before names."""
    return sorted(labels, key=lambda v: (isinstance(v, str), v))


def split_labels(
    items: Sequence[int], labels: Sequence[str | int], valid_pct: float, seed: int
) -> set[int]:
    """Those of `items`, which are numbers of files, that are held out."""
    names = sorted_labels({labels[i] for i in items})
    index = {name: t for t, name in enumerate(names)}
    targets = [index[labels[i]] for i in items]
    return {items[k] for k in stratified(targets, [str(n) for n in names], valid_pct, seed)}


def check_split(train: ImageDataset, valid: ImageDataset, vocab: Sequence[str]) -> None:
    """Every class needs a picture to learn from, and both sides need pictures."""
    if not len(train) or not len(valid):
        raise ValueError(f"{len(train)} train and {len(valid)} valid pictures; both need some")
    found = {"train": set(train.targets), "valid": set(valid.targets)}
    if outside := sorted(t for t in found["train"] | found["valid"] if not 0 <= t < len(vocab)):
        raise ValueError(f"class index {outside[0]} is outside the vocab of {len(vocab)} classes")
    if unseen := sorted(found["valid"] - found["train"]):
        raise ValueError(
            f"no train pictures of {some([vocab[t] for t in unseen])}, which the valid set has"
        )
