"""Predictions: probabilities of pictures, beside the files that they are of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nbfinetune.rendering.frames import data_frame
from nbfinetune.rendering.names import first_few
from nbfinetune.rendering.numbers import counted
from nbfinetune.rendering.tables import Table

if TYPE_CHECKING:
    from pandas import DataFrame

_ROWS = 10  # that show themselves; to_df has all
_LIKELY = 0.5  # from this probability on a label of several is there (fastai's accuracy_multi)


class Predictions(tuple):
    """(preds, targets) or (preds, targets, losses), as `get_preds` gives them.

    Attributes
    ----------
    preds : probabilities, shape [n, c]
    targets : class indices, shape [n], or labels, shape [n, c]; None if there are none
    losses : shape [n], or None
    vocab : the class names
    files : of each item, None where it is not known
    exclusive : whether an item is of one class; else it has any number of labels
    unread : number, in what was given, of each picture that could not be read and is left out ->
        its name and why
    """

    vocab: list[str]
    files: list[Path | None]
    exclusive: bool
    unread: dict[int, str]

    @classmethod
    def of(
        cls,
        parts: tuple,
        vocab: Sequence[str] | None,
        files: Sequence[Path | None] | None,
        *,
        exclusive: bool,
        unread: Mapping[int, str] = MappingProxyType({}),
    ) -> "Predictions":
        """Of probabilities, targets and perhaps losses.

        Parameters
        ----------
        files : of each item, None if they are not known
        unread : see the attribute
        """
        made = cls(parts)
        c = parts[0].shape[1]
        made.vocab = [*vocab] if vocab and len(vocab) == c else [str(k) for k in range(c)]
        made.files = [None] * len(parts[0]) if files is None else [*files]
        made.exclusive, made.unread = exclusive, dict(unread)
        return made

    @property
    def preds(self) -> Tensor:
        return self[0]

    @property
    def targets(self) -> Tensor | None:
        return self[1]

    @property
    def losses(self) -> Tensor | None:
        return self[2] if len(self) > 2 else None

    @property
    def labels(self) -> list[str]:
        """The most probable class of each item; of several labels those that are likely."""
        if self.exclusive:
            return [self.vocab[k] for k in self.preds.argmax(1).tolist()]
        return [self._named(row) for row in self.preds >= _LIKELY]

    def _named(self, row: Tensor) -> str:
        return ", ".join(self.vocab[k] for k in row.nonzero()[:, 0].tolist())

    def _columns(self, items: Sequence[int]) -> dict[str, list]:
        """What is known of these items: file, predicted, probability; actual and loss if known."""
        chosen = torch.tensor(items, dtype=torch.int64)
        preds = self.preds[chosen]
        some = Predictions.of((preds, None), self.vocab, None, exclusive=self.exclusive)
        files = [self.files[i] for i in items]
        columns = {
            "file": [None if file is None else str(file) for file in files],
            "predicted": some.labels,
        }
        if self.exclusive:
            columns["probability"] = preds.max(1).values.tolist()
        if self.targets is not None:
            targets = self.targets[chosen]
            columns["actual"] = [
                self.vocab[t] if self.targets.ndim == 1 else self._named(t >= _LIKELY)
                for t in (targets.tolist() if targets.ndim == 1 else targets)
            ]
        if self.losses is not None:
            columns["loss"] = self.losses[chosen].tolist()
        return columns

    def to_df(self, *, probs: bool = False) -> "DataFrame":
        """A DataFrame with a row for each item: file, predicted class, probability.

        Actual class and loss are there if they are known.

        Parameters
        ----------
        probs : whether the probability of each class has a column, `p(CLASS)`

        Raises
        ------
        ImportError
            Without pandas.
        """
        columns = self._columns(range(len(self.preds)))
        if probs:
            columns |= {
                f"p({name})": self.preds[:, k].tolist() for k, name in enumerate(self.vocab)
            }
        return data_frame(columns)

    @property
    def table(self) -> Table:
        """The first rows."""
        n = len(self.preds)
        columns = self._columns(range(min(n, _ROWS)))
        columns["file"] = [file or f"item {i}" for i, file in enumerate(columns["file"])]
        return _table(columns, n, list(self.unread.values()))

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        printer.text(repr(self))  # IPython would show a tuple


def _table(columns: Mapping[str, Sequence], n: int, unread: Sequence[str]) -> Table:
    """The first rows of n, and what is left out."""
    rows = list(zip(*(map(_cell, column) for column in columns.values()), strict=True))
    more = f"and {n - _ROWS:,} more; to_df() has all" if n > _ROWS else ""
    gone = f"{len(unread)} left out, as they cannot be read: {first_few(unread)}" if unread else ""
    footer = "; ".join(filter(None, [more, gone]))
    return Table(f"predictions of {counted(n, 'item')}", list(columns), rows, footer)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


class PredictedItems(list):
    """(label, index, probs) of each item of a list, in its order; three None if it was unreadable.

    Attributes
    ----------
    names : the file of each item, else its number
    unread : number of each item that could not be read -> why
    vocab : the class names
    """

    names: list[str]
    unread: dict[int, str]
    vocab: list[str]

    @classmethod
    def of(
        cls, found: Predictions, names: Sequence[str], unread: Mapping[int, str]
    ) -> "PredictedItems":
        """Of the predictions of the items that were read."""
        read = iter(zip(found.preds.argmax(1), found.preds, strict=True))
        made = cls()
        for i in range(len(names)):
            index, probs = (None, None) if i in unread else next(read)
            made.append((None if index is None else found.vocab[index], index, probs))
        made.names, made.unread, made.vocab = list(names), dict(unread), found.vocab
        return made

    def _columns(self, items: Sequence[int]) -> dict[str, list]:
        rows = [self[i] for i in items]
        columns = {
            "file": [self.names[i] for i in items],
            "predicted": [label for label, _, _ in rows],
            "probability": [None if probs is None else probs.max().item() for _, _, probs in rows],
        }
        if self.unread:
            why = {i: text.removeprefix(f"{self.names[i]}: ") for i, text in self.unread.items()}
            columns["unread"] = [why.get(i) for i in items]
        return columns

    def to_df(self, *, probs: bool = False) -> "DataFrame":
        """A DataFrame with a row for each item; see `Predictions.to_df`."""
        columns = self._columns(range(len(self)))
        if probs:
            for k, name in enumerate(self.vocab):
                columns[f"p({name})"] = [p if p is None else p[k].item() for _, _, p in self]
        return data_frame(columns)

    @property
    def table(self) -> Table:
        """The first rows."""
        if len(self) != len(self.names):  # something was added or taken away by hand
            return Table("", ("label", "index"), [(str(row[0]), str(row[1])) for row in self])
        return _table(self._columns(range(min(len(self), _ROWS))), len(self), [])

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        printer.text(repr(self))
