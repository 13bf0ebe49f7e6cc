"""Giving: the data of a notebook, sent to each host once.

Decoded pictures go as a file that the processes of a host share; others are read by their paths,
which have to be the same there. All else of loaders goes by pickle, and again only if it changed.
"""

import hashlib
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from nbfinetune.cluster.data import kept, squares
from nbfinetune.cluster.travel.pickles import as_bytes
from nbfinetune.data.datasets import ImageDataset
from nbfinetune.data.lost_files import LostFiles
from nbfinetune.rendering.names import first_few
from nbfinetune.rendering.numbers import counted
from nbfinetune.runtime.calls import Call

if TYPE_CHECKING:
    from nbfinetune.cluster.engines import Engines

_SAMPLE = 20  # files that each host is asked for
_ON_THE_WAY = 4  # chunks to a host that are sent before the first one has arrived
_PATIENCE = 600.0  # seconds that a host may take for a chunk, or to look at files


def give_all(engines: "Engines", data: Mapping[str, object]) -> dict[str, str]:
    """Let all engines have some data; returns their keys by the same names. See `give_data`."""
    return {name: give_data(engines, value) for name, value in data.items()}


def give_data(engines: "Engines", data: object) -> str:
    """Let all engines have loaders, or a data set; returns the key by which they know them.

    What an engine has from an earlier run is not sent again; decoded pictures come to each host
    once, whatever the number of its engines.

    Raises
    ------
    FileNotFoundError
        If a host does not see the files of pictures that are not kept decoded.
    Exception
        Of whatever kind, if the loaders cannot be pickled.
    """
    packed = _Packed(data)
    ranks = range(len(engines.ids))
    firsts = {engines.info(rank).host: rank for rank in reversed(ranks)}
    _check_files(engines, firsts, packed.sample())
    place = _send_squares(engines, firsts, packed.squares)
    holds = {rank: engines.call(rank, kept.holds, packed.key) for rank in ranks}
    opening = [
        engines.call(rank, kept.open_data, packed.key, packed.content, place)
        for rank in ranks
        if not holds[rank].get(_PATIENCE)
    ]
    for pending in opening:
        pending.get(_PATIENCE)
    return packed.key


class _Packed:
    """Loaders or a data set as bytes.

    Attributes
    ----------
    content, key : these, and a digest of them
    squares : the decoded pictures, which are not in them, by the name of their file
    """

    def __init__(self, data: object) -> None:
        self.squares: dict[str, Tensor] = {}
        self._files: list[str] = []
        self._names: dict[int, str] = {}
        reducers = {ImageDataset: self._dataset, LostFiles: _anew, Call: _nothing}
        self.content = as_bytes([data], {}, reducers=reducers, stays=self._squares_name)
        self.key = hashlib.blake2b(self.content, digest_size=16).hexdigest()

    def sample(self) -> dict[str, tuple[int, str]]:
        """Some of the files that have to be seen: size and digest of those that are there."""
        step = max(len(self._files) // _SAMPLE, 1)
        found = {}
        for file in self._files[::step][:_SAMPLE]:
            with suppress(OSError):  # lost here too, which the run says
                found[file] = kept.stamp(file)
        return found

    def _squares_name(self, value: object) -> str | None:
        return self._names.get(id(value))

    def _dataset(self, dataset: ImageDataset) -> tuple:
        n, cache = len(dataset), dataset.cache
        are_files = isinstance(dataset.items, list) and n > 0 and dataset._is_file(0)
        items = [str(file) for file in dataset.items] if are_files else dataset.items
        if cache is not None:
            name = squares.name_of(cache)
            self.squares[name] = cache
            self._names[id(cache)] = f"{kept.SQUARES}{name}"
            if not are_files:
                paths = [dataset.path(i) for i in range(n)]
                items = kept.FilesElsewhere([p if p is None else str(p) for p in paths])
        elif are_files:
            self._files += items
        taken = ("items", "targets", "side", "cache", "lost")
        rest = {name: value for name, value in vars(dataset).items() if name not in taken}
        arguments = (items, are_files, dataset.targets, dataset.side, cache, rest)
        return kept.dataset_of, arguments


def _anew(lost: LostFiles) -> tuple:
    return LostFiles, ()


def _nothing(call: Call) -> tuple:
    """What was called to make the loaders stays in the notebook."""
    return type(None), ()


def _check_files(
    engines: "Engines", firsts: Mapping[str, int], sample: Mapping[str, tuple[int, str]]
) -> None:
    """Raise FileNotFoundError for the first host that does not see the files of a sample."""
    if not sample:
        return
    asked = {host: engines.call(rank, kept.unseen, dict(sample)) for host, rank in firsts.items()}
    for host, pending in asked.items():
        if texts := pending.get(_PATIENCE):
            raise FileNotFoundError(
                f"{host} does not see the pictures: of a sample of {counted(len(sample), 'file')} "
                f"{len(texts)} are not there or are others ({first_few(texts)}); have the folder "
                "at the same path on all hosts, or make the loaders with a smaller size=, so that "
                "the decoded pictures are kept and sent"
            )


def _send_squares(
    engines: "Engines", firsts: Mapping[str, int], caches: Mapping[str, Tensor]
) -> str:
    """Let each host have the files of decoded pictures; returns the folder of the notebook's."""
    place = str(squares.folder())
    ask = partial(_lacking, engines, firsts, list(caches), place)
    if caches and (missing := ask()):
        for name in set().union(*missing.values()):
            with suppress(OSError):  # no room here; the hosts may have some
                squares.write(caches[name])
        for rank, names in ask().items():
            for name in names:
                _send(engines, rank, name, caches[name])
    return place


def _lacking(
    engines: "Engines", firsts: Mapping[str, int], names: list[str], place: str
) -> dict[int, list[str]]:
    asked = {rank: engines.call(rank, kept.lacking, names, place) for rank in firsts.values()}
    found = {rank: pending.get(_PATIENCE) for rank, pending in asked.items()}
    return {rank: missing for rank, missing in found.items() if missing}


def _send(engines: "Engines", rank: int, name: str, cache: Tensor) -> None:
    content, sent = squares.flat(cache), deque()
    for i, start in enumerate(range(0, len(content), squares.CHUNK)):
        chunk = content[start : start + squares.CHUNK].tobytes()
        sent.append(engines.call(rank, kept.take_chunk, name, i, chunk))
        if len(sent) == _ON_THE_WAY:
            sent.popleft().get(_PATIENCE)
    for pending in sent:
        pending.get(_PATIENCE)
