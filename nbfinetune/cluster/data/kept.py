"""Kept data: what an engine has of the data of notebooks, from one run to the next.

The functions are called by `giving` of the notebook, in the engine.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from nbfinetune.cluster.data import squares
from nbfinetune.cluster.travel.pickles import Reader
from nbfinetune.data.datasets import ImageDataset
from nbfinetune.training.batches.feature_cache import FeatureCache

SQUARES = "squares:"  # before the name of a file, as what goes by name
_MOST = 4  # sets of loaders that are kept, such as those of several sizes of the same pictures
_HEAD = 2**16  # bytes of a file of which a digest is taken


@dataclass
class _Kept:
    data: object
    features: dict[object, FeatureCache] = field(default_factory=dict)


class HostData:
    """The data that this process has, by its key, the one used last at the end."""

    def __init__(self) -> None:
        self.kept: dict[str, _Kept] = {}
        self.arriving = squares.Arriving()


_here = HostData()


def lacking(names: Sequence[str], place: str) -> list[str]:
    """Which files of squares are not on this host, in `place` or in its own folder.

    Those in its own folder that were not used for long are deleted.
    """
    missing = [name for name in names if squares.found(name, place) is None]
    squares.sweep()
    return missing


def take_chunk(name: str, i: int, chunk: bytes) -> None:
    """Take a part of a file of squares; see `squares.Arriving`."""
    _here.arriving.take(name, i, chunk)


def unseen(sample: Mapping[str, tuple[int, str]]) -> list[str]:
    """Which files of a sample are missing here, or are others, and why."""
    found = []
    for file, known in sample.items():
        try:
            if stamp(file) != known:
                found.append(f"{file} is another file")
        except OSError as error:
            found.append(f"{file}: {error.strerror or error}")
    return found


def stamp(file: str) -> tuple[int, str]:
    """The size of a file and a digest of its first bytes."""
    with open(file, "rb") as opened:
        head = hashlib.blake2b(opened.read(_HEAD), digest_size=16).hexdigest()
        return os.fstat(opened.fileno()).st_size, head


def holds(key: str) -> bool:
    """Whether this process has the data of a key."""
    return key in _here.kept


def open_data(key: str, content: bytes, place: str) -> None:
    """Have data; its squares are on this host by now.

    Raises
    ------
    ValueError, OSError
        If a module of it is not here, or its squares are gone.
    """
    data = Reader(content, _Squares(place)).read()
    for part in (getattr(data, "train", data), getattr(data, "valid", None)):
        if isinstance(part, DataLoader) and not torch.cuda.is_available():
            part.pin_memory = False
    _here.kept[key] = _Kept(data)
    while len(_here.kept) > _MOST:
        del _here.kept[next(iter(_here.kept))]


class _Squares(dict):
    """Files of squares by name, each opened once."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self._place = place

    def __missing__(self, name: str) -> torch.Tensor:
        self[name] = squares.opened(name.removeprefix(SQUARES), self._place)
        return self[name]


def data_of(key: str) -> object:
    """The data of a key, always the same object.

    Raises
    ------
    ValueError
        If it is not here.
    """
    if key not in _here.kept:
        raise ValueError("this engine has lost the data of the run; start it again")
    _here.kept[key] = _here.kept.pop(key)
    return _here.kept[key].data


def features_of(key: str | None, wanted: object, seed: int) -> FeatureCache:
    """The features that were computed of some data, as far as they are still those of a network."""
    kept = _here.kept.get(key)
    if kept is None:
        return FeatureCache(wanted, seed)
    features = kept.features.setdefault((wanted, type(wanted), seed), FeatureCache(wanted, seed))
    features._versions = []  # of tensors that are gone; the bytes of the new ones are compared
    return features


def drop_data() -> None:
    """Forget all data, and delete the files of it in the cache folder of this host."""
    _here.kept.clear()
    _here.arriving.drop()
    squares.sweep(0)


class FilesElsewhere:
    """In the place of what squares were decoded from: the files alone are known."""

    def __init__(self, files: Sequence[str | None]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def file_of(self, i: int) -> Path | None:
        """The file of item i, None if it has none; see `ImageDataset.path`."""
        file = self._files[i]
        return None if file is None else Path(file)

    def __getitem__(self, i: int) -> tuple:
        raise ValueError(f"the whole picture of item {i} is not here but in the notebook")


def dataset_of(
    items: object, are_files: bool, targets: list, side: int, cache: object, rest: dict
) -> ImageDataset:
    """A data set, of what `giving` gave of it."""
    items = [Path(file) for file in items] if are_files else items
    made = ImageDataset(items, targets, side, cache, rest.pop("rows"))
    vars(made).update(rest)
    return made
