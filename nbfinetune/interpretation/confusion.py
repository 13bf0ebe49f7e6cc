"""Confusion: which classes are predicted of which, as counts, shares and scores of each class."""

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from nbfinetune.data.datasets import PictureItems
from nbfinetune.rendering.tables import Table

_DENSE = 2000  # classes up to which a matrix is counted whole: 32 MB

Cells = tuple[Tensor, Tensor, Tensor]


class Predicted(Protocol):
    """What matrices and pictures need of a `ClassificationInterpretation`, which says it all."""

    vocab: list[str]
    targets: Tensor
    predicted: Tensor
    losses: Tensor
    predicted_probs: Tensor
    dataset: PictureItems | None
    cells: Cells

    def __len__(self) -> int: ...
    def image(self, i: int) -> Image.Image: ...
    def top_losses(self, k: int | None, *, largest: bool) -> tuple[Tensor, Tensor]: ...
    def report(self) -> Table: ...


def cells_of(targets: Tensor, predicted: Tensor, c: int) -> Cells:
    """The cells that are not empty, row by row: actual, predicted, count, each shape [m].

    Parameters
    ----------
    targets, predicted : class indices, shape [n]
    """
    numbers = targets * c + predicted
    if c <= _DENSE:
        counts = torch.bincount(numbers, minlength=c * c)
        numbers = counts.nonzero()[:, 0]
        counts = counts[numbers]
    else:
        numbers, counts = numbers.unique(return_counts=True)
    return numbers // c, numbers % c, counts


def matrix_of(cells: Cells, c: int, normalize: str) -> Tensor:
    """The matrix [c, c]; see `ClassificationInterpretation.confusion_matrix`."""
    rows, columns, counts = cells
    values = counts
    if normalize == "all":
        values = counts / counts.sum().clamp_min(1)
    elif normalize != "none":
        of = rows if normalize == "true" else columns
        values = counts / torch.zeros(c, dtype=counts.dtype).index_add_(0, of, counts)[of]
    if c > _DENSE:
        places = torch.stack([rows, columns])
        return torch.sparse_coo_tensor(
            places, values, (c, c), check_invariants=True, is_coalesced=True
        )
    matrix = torch.zeros(c, c, dtype=values.dtype)
    matrix[rows, columns] = values
    return matrix


def class_scores(targets: Tensor, predicted: Tensor, c: int) -> dict[str, Tensor]:
    """Precision, recall and f1, 0 where undefined, and support; shape [c].

    Parameters
    ----------
    targets, predicted : class indices, shape [n]
    """
    support = torch.bincount(targets, minlength=c)
    guessed = torch.bincount(predicted, minlength=c)
    hit = torch.bincount(targets[targets == predicted], minlength=c).double()
    return {
        "precision": hit / guessed.clamp_min(1),
        "recall": hit / support.clamp_min(1),
        "f1": 2 * hit / (support + guessed).clamp_min(1),
        "support": support,
    }


def scores_table(scores: dict[str, Tensor], vocab: Sequence[str], title: str) -> Table:
    """A row for each class, and the means over the classes."""
    values = zip(*(scores[name].tolist() for name in scores), strict=True)
    rows = [
        (name, *(f"{v:.3f}" for v in row[:3]), f"{row[3]:,}")
        for name, row in zip(vocab, values, strict=True)
    ]
    means = [f"{scores[name].mean():.3f}" for name in ("precision", "recall", "f1")]
    last = ("mean of classes", *means, f"{int(scores['support'].sum()):,}")
    return Table(title, ("class", *scores), [*rows, last])


def print_classification_report(interp: Predicted) -> None:
    """Print precision, recall, f1 and support of each class, as fastai does."""
    print(interp.report())
