"""Lost files: pictures that vanish or change while a run decodes them anew in each epoch.

A run goes on with the rest and names them at its end; outside of one they are refused by name.
Pictures whose squares are kept in memory need no file.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from nbfinetune.images.rgb import UnreadableImage
from nbfinetune.rendering.names import first_few

T = TypeVar("T")


class LostFiles:
    """The files of a data set that can no longer be read.

    Attributes
    ----------
    reasons : file -> why, of those left out
    leaves_out : whether they are left out
    """

    def __init__(self) -> None:
        self.reasons: dict[Path, str] = {}
        self.leaves_out = False
        self._made = time.time()
        self._seen: dict[Path, tuple[int, int]] = {}  # size and time of change

    def read(self, file: Path, read: Callable[[Path], T]) -> T:
        """What `read` gives of a file, which is named if it cannot be read, or is another now."""
        try:
            found = os.stat(file)
            stamp = (found.st_size, found.st_mtime_ns)
            if self._seen.setdefault(file, stamp) != stamp:
                raise UnreadableImage("it was changed since it was read first")
            return read(file)
        except (UnreadableImage, OSError) as error:
            reason = _reason(error)
            if self.leaves_out:
                self.reasons[file] = reason
            raise UnreadableImage(f"{file}: {reason}") from None

    def look(self, files: Sequence[object]) -> None:
        """Find the files that are gone or changed: processes that load cannot tell of theirs."""
        for file in files:
            if not isinstance(file, Path):
                continue
            try:
                if os.stat(file).st_mtime > self._made:
                    self.reasons[file] = "it was changed since it was read first"
            except OSError as error:
                self.reasons[file] = _reason(error)

    def others(self, tasks: Sequence[Callable[[], T]], each: Callable = map) -> list[T]:
        """What the tasks give, in their order; in a run without those whose file is lost.

        Raises
        ------
        UnreadableImage
            Outside of a run, and if all are lost.
        """

        def outcome(task: Callable[[], T]) -> T | UnreadableImage:
            try:
                return task()
            except UnreadableImage as error:
                return error

        outcomes = list(each(outcome, tasks))
        lost = [found for found in outcomes if isinstance(found, UnreadableImage)]
        if lost and (not self.leaves_out or len(lost) == len(outcomes)):
            raise lost[0]
        return [found for found in outcomes if not isinstance(found, UnreadableImage)]


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return str(getattr(error, "strerror", None) or error)


def those_there(dataset: object, numbers: Tensor) -> Tensor:
    """The numbers of items whose file is there, in a run; of squares in memory all are."""
    if dataset.cache is not None or not dataset.lost.leaves_out:
        return numbers

    def there(i: int) -> bool:
        try:
            dataset.lost.read(dataset.items[i], lambda file: None)
        except UnreadableImage:
            return False
        return True

    is_file = [isinstance(dataset.path(i), Path) for i in numbers.tolist()]
    kept = [i for i, file in zip(numbers.tolist(), is_file, strict=True) if not file or there(i)]
    return torch.tensor(kept, dtype=numbers.dtype)


@contextmanager
def leaving_out(loaders: Sequence[object], say: Callable[[str], None]) -> Iterator[None]:
    """Inside, files that are lost are left out; what is to be said of them is said at the end."""
    parts = []
    for loader in loaders:
        dataset = getattr(loader, "dataset", None)
        if isinstance(getattr(dataset, "lost", None), LostFiles) and dataset.cache is None:
            parts.append((dataset, loader.num_workers))
            dataset.lost.leaves_out = True
            dataset.lost.reasons.clear()
    try:
        yield
    finally:
        texts = []
        for dataset, workers in parts:
            dataset.lost.leaves_out = False
            if workers:
                dataset.lost.look(dataset.items)
            texts += [f"{file}: {why}" for file, why in dataset.lost.reasons.items()]
        if texts:
            say(
                f"{len(texts)} pictures could not be read any more and were left out: "
                f"{first_few(texts)}"
            )
