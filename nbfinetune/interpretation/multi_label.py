"""Multi-label interpretation: a 2 x 2 matrix for each label of items that have several."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nbfinetune.interpretation.given import as_array, given_probabilities, given_vocab
from nbfinetune.rendering.frames import data_frame
from nbfinetune.rendering.names import shown
from nbfinetune.rendering.tables import Table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class MultiLabelInterpretation:
    """The predictions on items with any number of labels. Made by `from_predictions`.

    Parameters
    ----------
    vocab : label names, c of them
    matrix : for each label [[absent right, absent wrong], [present missed, present found]], int64,
        shape [c, 2, 2]; row = actual, column = predicted, as scikit-learn's
    n : items
    """

    vocab: list[str]
    matrix: Tensor = field(repr=False)
    n: int

    @classmethod
    def from_predictions(
        cls, targets: Iterable, preds: Iterable, vocab: Iterable[str], *, thresh: float = 0.5
    ) -> "MultiLabelInterpretation":
        """From the labels of each item and what a model predicted.

        Lists of rows, Tensors, NumPy arrays and pandas DataFrames, by position.

        Parameters
        ----------
        targets : 0 or 1, shape [n, c]
        preds : probabilities of each label, or 0 and 1, shape [n, c]
        vocab : the label names
        thresh : a label is predicted from this probability on (fastai's accuracy_multi)

        Raises
        ------
        ValueError
            If shapes or values do not fit.

        Examples
        --------
        >>> from torch import tensor
        >>> targets, preds = tensor([[1, 0], [1, 1]]), tensor([[0.9, 0.2], [0.3, 0.8]])
        >>> MultiLabelInterpretation.from_predictions(targets, preds, "ab").matrix.tolist()
        [[[0, 0], [1, 1]], [[1, 0], [0, 1]]]
        """
        if not (isinstance(thresh, Real) and 0 < thresh <= 1):
            raise ValueError(
                f"thresh is {shown(thresh)}; it must lie above 0 and up to 1, such as 0.5"
            )
        vocab = given_vocab(vocab)
        targets, preds = as_array(targets, vocab, "targets"), as_array(preds, vocab, "preds")
        if targets.ndim != 2 or targets.shape != preds.shape or targets.shape[1] != len(vocab):
            raise ValueError(
                f"targets {list(targets.shape)} and preds {list(preds.shape)} for {len(vocab)} "
                "labels; give both the shape [n, labels]"
            )
        targets = given_probabilities(targets, vocab, "targets")
        preds = given_probabilities(preds, vocab, "preds")
        soft = (targets > 0) & (targets < 1)
        if soft.any():
            raise ValueError(
                f"targets have {int(soft.sum())} values between 0 and 1, such as "
                f"{targets[soft][0]:.3g}; give 1 for a label that is there and 0 for others"
            )
        actual, predicted = targets == 1, preds >= thresh
        found = (actual & predicted).sum(0)
        missed, wrong = actual.sum(0) - found, predicted.sum(0) - found
        rows = torch.stack([len(actual) - found - missed - wrong, wrong, missed, found], 1)
        return cls(vocab, rows.view(-1, 2, 2), len(actual))

    def report(self) -> Table:
        """The four counts of each label, with precision, recall and f1, 0 where undefined."""
        columns = self._columns()
        texts = [
            values if name == "label" else [_text(value) for value in values]
            for name, values in columns.items()
        ]
        rows = list(zip(*texts, strict=True))
        return Table(f"{self.n:,} items of {len(self.vocab):,} labels", tuple(columns), rows)

    def to_df(self) -> "DataFrame":
        """A pandas DataFrame of what `report` shows, a row for each label.

        `learn.get_preds().to_df(probs=True)` has the probabilities of each item.

        Raises
        ------
        ImportError
            Without pandas.
        """
        return data_frame(self._columns())

    def _columns(self) -> dict[str, list]:
        (right, wrong), (missed, found) = self.matrix.permute(1, 2, 0).tolist()
        sides = [list(zip(found, other, strict=True)) for other in (wrong, missed)]
        precision, recall = ([n / max(n + m, 1) for n, m in side] for side in sides)
        counts = zip(found, wrong, missed, strict=True)
        return {
            "label": list(self.vocab),
            "found": found,
            "missed": missed,
            "wrong": wrong,
            "rightly absent": right,
            "precision": precision,
            "recall": recall,
            "f1": [2 * n / max(2 * n + extra + lost, 1) for n, extra, lost in counts],
        }

    def __repr__(self) -> str:
        return repr(self.report())

    def _repr_html_(self) -> str:
        return self.report()._repr_html_()


def _text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
