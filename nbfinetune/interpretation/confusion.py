"""Confusion: which classes are predicted of which, and what changed from one model to another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from nbfinetune.data.datasets import PictureItems
from nbfinetune.objectives.chance import log_binomial
from nbfinetune.rendering.tables import Table

_DENSE = 2000  # classes up to which a matrix is counted whole: 32 MB

Cells = tuple[Tensor, Tensor, Tensor]


class Predicted(Protocol):
    """What matrices and pictures need of a `ClassificationInterpretation`, which says it all."""

    vocab: list[str]
    targets: Tensor
    predicted: Tensor
    losses: Tensor
    target_probs: Tensor
    predicted_probs: Tensor
    dataset: PictureItems | None
    cells: Cells

    def __len__(self) -> int: ...
    def path(self, i: int) -> Path | None: ...
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


def confused_text(cells: Cells, min_val: int = 1) -> str:
    """How many pairs are confused `min_val` times and more; if none is, what there is instead.

    Parameters
    ----------
    cells : as `cells_of` gives them
    """
    rows, columns, counts = cells
    errors, n = counts[rows != columns], int(counts.sum())
    if not n:
        return "nothing was predicted"
    if not len(errors):
        return f"nothing is confused: {'the one item is' if n == 1 else f'all {n:,} are'} right"
    found = int((errors >= min_val).sum())
    if found:
        often = f" {min_val} times or more" if min_val > 1 else ""
        return f"{_pairs(found)} confused{often}"
    most = int(errors.max())
    there, often = int((errors == most).sum()), "once" if most == 1 else f"{most} times"
    pairs = f"{there:,} {'is' if there == 1 else 'are'} confused {often}"
    return f"no pair is confused {min_val} times; {pairs}: %most_confused {most}"


def _pairs(n: int) -> str:
    return "1 pair is" if n == 1 else f"{n:,} pairs are"


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


@dataclass(frozen=True)
class Comparison:
    """Items by what became of them, from an earlier model to a later one.

    Parameters
    ----------
    fixed : wrong before, right now
    broken : right before, wrong now
    still_wrong : wrong both times
    n : all items
    """

    fixed: list[int] = field(repr=False)
    broken: list[int] = field(repr=False)
    still_wrong: list[int] = field(repr=False)
    n: int

    @property
    def p_value(self) -> float:
        """McNemar's exact test (1947): how likely such a difference is if neither is better.

        Two-sided: 2 P(X <= min(fixed, broken)) of X ~ Binomial(fixed + broken, 1/2), at most 1.

        Examples
        --------
        >>> round(Comparison([0, 1, 2, 3, 4, 5], [], [], n=10).p_value, 5)
        0.03125
        """
        n, least = len(self.fixed) + len(self.broken), min(len(self.fixed), len(self.broken))
        logs = [log_binomial(n, k) - n * math.log(2) for k in range(least + 1)]
        return min(2 * math.fsum(map(math.exp, logs)), 1.0)

    def __repr__(self) -> str:
        change = (len(self.fixed) - len(self.broken)) / max(self.n, 1)
        return (
            f"{len(self.fixed)} fixed, {len(self.broken)} broken, {len(self.still_wrong)} still "
            f"wrong of {self.n} items: accuracy {change:+.4f}, McNemar p = {self.p_value:.2g}"
        )
