"""Prediction sets: pictures to predict, with labels or without, in the order given."""

# ruff: noqa: PT028 - test_dl is fastai's name, and no test

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Protocol

from torch.utils.data import DataLoader, Dataset

from nbfinetune.arguments import as_list, as_path, as_whole_number, is_missing, known_options
from nbfinetune.data import arguments as given
from nbfinetune.data.datasets import UNLABELLED, ImageDataset, even_loader
from nbfinetune.data.labels import folder_labels
from nbfinetune.data.sources.arrays import ArrayItems, are_arrays, is_array
from nbfinetune.data.sources.data_sets import as_items, class_names
from nbfinetune.data.sources.frames import is_frame
from nbfinetune.data.sources.hub import of_hub
from nbfinetune.data.sources.items import SourceItems
from nbfinetune.data.sources.reading import read_dataset, read_files
from nbfinetune.data.splits import check_indices
from nbfinetune.data.transforms import presize
from nbfinetune.images.files import get_image_files, locate
from nbfinetune.images.pixels import CHANNEL_COUNTS
from nbfinetune.rendering.names import first_few, shown

_KINDS = "give files, a folder, a column of a frame, pictures, arrays or a data set"


class Loaders(Protocol):
    """What is needed of `ImageDataLoaders`."""

    train: DataLoader
    vocab: list[str]
    size: int
    bs: int


@known_options()
def test_dl(
    dls: Loaders,
    items: object,
    labels: Sequence | None = None,
    *,
    path: str | PathLike = ".",
    with_labels: bool | None = None,
    image_col: str | None = None,
    label_col: str | None = None,
    bs: int | None = None,
    num_workers: int | None = None,
    on_bad: str = "error",
) -> DataLoader:
    """A loader of pictures to predict, in the order given: `learn.get_preds(dl=dls.test_dl(...))`.

    Parameters
    ----------
    items : files; a folder of them (all below it, sorted by name); a column of a frame; Pillow
        pictures, arrays, tensors or bytes; arrays of several pictures; data sets as for
        `from_datasets`, with labels or without
    labels : class name of each item, or its index
    path : folder that relative names of files are in
    with_labels : None = labels where the data has them; True = it must, and pictures of a folder
        have the name of the folder that they are in; False = none are read
    image_col, label_col, on_bad : as in `from_datasets`
    bs, num_workers : default: those of the loaders

    Raises
    ------
    ValueError
        For pictures that cannot be read, labels that are no class of the vocab.

    Examples
    --------
    >>> preds, _ = learn.get_preds(dl=dls.test_dl("photos/new"))  # doctest: +SKIP
    """
    given.check_choices(True, on_bad)
    bs = as_whole_number("bs", dls.bs if bs is None else bs, 1)
    if with_labels not in (None, True, False):
        raise ValueError(f"with_labels is {shown(with_labels)}; it must be None, True or False")
    side, notes = presize(dls.size), []
    columns = {"image_col": image_col, "label_col": label_col}
    if is_data_set(items):
        read = _read_data_set(items, dls.vocab, with_labels, columns, side, on_bad, notes)
    else:
        listed = as_pictures(items, path)
        if with_labels and labels is None:
            labels = _labels_of_folder(items, path, listed, notes)
        read = read_pictures(listed, side, on_bad, notes)
    if labels is not None:
        names = [f"item {i}" for i in range(len(read) + len(read.unread))]
        targets = _looked_up(given.as_labels(labels, names), dls.vocab)
        read.targets = [t for i, t in enumerate(targets) if i not in read.unread]
    workers = dls.train.num_workers if num_workers is None else num_workers
    return even_loader(read, bs, shuffle=False, num_workers=workers)


def is_data_set(items: object) -> bool:
    """Whether these are items of a data set, not files and pictures alone."""
    if of_hub(items) or isinstance(items, Dataset) or are_arrays(items):
        return True
    first = items[0] if isinstance(items, (list, tuple)) and items else None
    return isinstance(first, (tuple, list, dict))


def as_pictures(items: object, path: str | PathLike = ".") -> list[Path | tuple[object, int]]:
    """Files as paths, and other pictures as items without a label.

    Raises
    ------
    ValueError
        For what is no list of pictures, with what to type.
    """
    root = as_path(path, "path")
    if isinstance(items, (str, PathLike)):
        given.check_no_url(items)
        there = locate(root, Path(items).expanduser())
        return get_image_files(there) if there.is_dir() or not there.is_file() else [there]
    if is_frame(items):
        names = [repr(name) for name in items.columns]
        raise ValueError(
            f"items is a DataFrame with the columns {first_few(names)}; give the column of the "
            f"files, such as df[{names[0] if names else 'NAME'}]"
        )
    if is_array(items, 3):
        if items.ndim == 3 and {*items.shape[:1], *items.shape[2:]} & {*CHANNEL_COUNTS}:
            raise ValueError(f"an array of shape {list(items.shape)} is one picture; give [x]")
        items = [item[0] for item in _as_sequence(ArrayItems(items, None, "items"))]
    if isinstance(items, DataLoader):
        raise ValueError("items is a DataLoader; give its data set, or get_preds(dl=loader)")
    single = isinstance(items, (bytes, bytearray, dict, set, frozenset)) or hasattr(items, "read")
    if single or not isinstance(items, Iterable):
        raise ValueError(f"items is a {type(items).__name__}; {_KINDS}")
    listed = list(items) if not hasattr(items, "tolist") else as_list(items, "items")
    if not listed:
        raise ValueError(f"there are no items; {_KINDS}")
    return [_as_picture(item, i, root) for i, item in enumerate(listed)]


def _as_sequence(items: ArrayItems) -> Iterable[tuple]:
    return (items[i] for i in range(len(items)))


def _as_picture(item: object, i: int, root: Path) -> Path | tuple[object, int]:
    if is_missing(item):
        raise ValueError(f"item {i} is {shown(item)}; give a file or a picture")
    if not isinstance(item, (str, PathLike)):
        return item, UNLABELLED
    given.check_no_url(item)
    return locate(root, Path(item).expanduser())


def read_pictures(
    listed: Sequence[Path | tuple[object, int]], side: int, on_bad: str, notes: list[str]
) -> ImageDataset:
    """What `as_pictures` gives, read once; files alone are read in threads."""
    if not all(isinstance(item, Path) for item in listed):
        pairs = [(item, UNLABELLED) if isinstance(item, Path) else item for item in listed]
        return read_dataset(pairs, side, on_bad, notes, labelled=False)
    good, cache, bad = read_files(listed, side, on_bad, notes)
    read = ImageDataset([listed[i] for i in good], [UNLABELLED] * len(good), side, cache, good)
    read.unread = bad
    return read


def _read_data_set(
    items: object,
    vocab: list[str],
    with_labels: bool | None,
    columns: dict[str, str | None],
    side: int,
    on_bad: str,
    notes: list[str],
) -> ImageDataset:
    """A data set, read once, with the class indices of this vocab."""
    [data], _ = as_items({"items": items}, None, notes, labelled=with_labels, **columns)
    first = data[0]
    if not isinstance(first, (tuple, list, dict)):
        data = _Alone(data)
    labelled = with_labels is not False and not _is_unlabelled(first)
    if with_labels and not labelled:
        raise ValueError("with_labels=True, but the data set has no labels; leave it out")
    read = read_dataset(data, side, on_bad, notes, labelled=labelled)
    if labelled:
        names = class_names([data])
        if names is None:
            check_indices(read.targets, vocab)
        elif names != vocab:
            read.targets = _looked_up([names[t] for t in read.targets], vocab)
    return read


class _Alone(SourceItems):
    """A data set whose items are pictures, without labels."""

    def __init__(self, data: Sequence) -> None:
        super().__init__("items", None)
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def picture(self, i: int) -> object:
        """See `SourceItems`."""
        return self._data[i]


def _is_unlabelled(item: object) -> bool:
    """Whether the first item of a data set has no label, nor have the others then."""
    if not isinstance(item, (tuple, list, dict)):
        return True
    label = item[1] if isinstance(item, (tuple, list)) and len(item) == 2 else 0
    return isinstance(label, int) and label == UNLABELLED


def _labels_of_folder(
    items: object, path: str | PathLike, files: Sequence[Path], notes: list[str]
) -> list[str]:
    if not isinstance(items, (str, PathLike)):
        raise ValueError("with_labels=True is for folders and data sets; give labels=[...]")
    return folder_labels(files, locate(as_path(path, "path"), Path(items).expanduser()), notes)


def _looked_up(labels: Sequence[str], vocab: Sequence[str]) -> list[int]:
    """The class index of each label: a name, or a number where no class is called a number."""
    place = {name: k for k, name in enumerate(vocab)}
    if not any(name.isdecimal() for name in vocab):
        place |= {str(k): k for k in range(len(vocab))}
    if unknown := sorted({label for label in labels if label not in place}):
        raise ValueError(
            f"{len(unknown)} labels are no class of the vocab: {first_few(unknown)}; it has "
            f"{first_few(vocab)}"
        )
    return [place[label] for label in labels]
