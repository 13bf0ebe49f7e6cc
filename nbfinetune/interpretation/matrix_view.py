"""Matrix view: some classes of a confusion matrix in some order, as values for a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from nbfinetune.interpretation.confusion import Predicted

WHOLE = 60  # classes up to which a matrix is shown whole: more names cannot be read
LARGEST = 2000  # classes that are drawn at once, a pixel for each cell
_OF = {
    "none": "of the actual class",
    "true": "of the actual class",
    "pred": "of the predicted class",
    "all": "of all",
}


@dataclass(frozen=True)
class MatrixView:
    """A square of m rows (actual) and columns (predicted); cells without items are left out.

    Parameters
    ----------
    classes : class index of each row
    names : of the rows, with "others" at the end if `others`
    others : whether the last row and column stand for all other classes
    numbers : row * m + column of each cell, ascending
    counts, shares : items of each cell, and their share of what `of` says
    shades : how dark a cell is, in [0, 1]: recall on the diagonal, log of the count elsewhere
    normalize, of, title : what the numbers are
    min_val : errors that are less frequent are left out
    """

    classes: list[int]
    names: list[str]
    others: bool
    numbers: np.ndarray = field(repr=False)
    counts: np.ndarray = field(repr=False)
    shares: np.ndarray = field(repr=False)
    shades: np.ndarray = field(repr=False)
    normalize: str
    of: str
    title: str
    min_val: int

    def place(self, actual: int, predicted: int) -> tuple[int, int]:
        """Row and column of a pair of classes; that of the others, or (-1, -1), if not shown."""
        row, column = (
            self.classes.index(c) if c in self.classes else len(self.classes) if self.others else -1
            for c in (actual, predicted)
        )
        return (row, column) if min(row, column) >= 0 else (-1, -1)


def matrix_view(
    interp: Predicted,
    classes: Sequence[int],
    *,
    normalize: str = "none",
    min_val: int = 1,
    others: bool = False,
) -> MatrixView:
    """The part of the matrix that `classes` name, in their order.

    Parameters
    ----------
    normalize : see `ClassificationInterpretation.confusion_matrix`
    min_val : errors that are less frequent are left out
    others : whether a last row and column sum up the other classes
    """
    classes = list(classes)
    m = len(classes) + others
    row_of = np.full(len(interp.vocab), m - 1 if others else -1)
    row_of[classes] = np.arange(len(classes))
    actual, predicted, counts = (t.numpy() for t in interp.cells)
    i, j = row_of[actual], row_of[predicted]
    shown = (i >= 0) & (j >= 0)
    numbers, inverse = np.unique(i[shown] * m + j[shown], return_inverse=True)
    sums = np.bincount(inverse, counts[shown], len(numbers)).astype(np.int64)
    i, j = numbers // max(m, 1), numbers % max(m, 1)
    of_rows = np.bincount(row_of[interp.targets.numpy()] + 1, minlength=m + 1)[1:]
    of_columns = np.bincount(row_of[interp.predicted.numpy()] + 1, minlength=m + 1)[1:]
    base = {"pred": of_columns[j], "all": np.full(len(j), len(interp))}.get(normalize, of_rows[i])
    shares = sums / base
    # The last cell of the diagonal mixes right and wrong: among others any is confused with any.
    right = (i == j) & ~(others & (i == m - 1))
    kept = right | (sums >= min_val)
    numbers, sums, shares, right, i, j = (v[kept] for v in (numbers, sums, shares, right, i, j))
    errors = sums if normalize == "none" else shares
    # The sums of the others would make all single cells pale.
    single = ~right & ((i < len(classes)) & (j < len(classes)))
    scale = (
        errors / errors[single].max() if single.any() else errors / max(errors.max(initial=1), 1)
    )
    shades = np.where(right, sums / of_rows[i], np.log1p(9 * np.minimum(scale, 1)) / np.log(10))
    names = [interp.vocab[c] for c in classes] + ["others"] * others
    items = "1 item" if len(interp) == 1 else f"{len(interp):,} items"
    title = f"confusion matrix of {items}, accuracy {interp.accuracy:.1%}"
    return MatrixView(
        classes,
        names,
        others,
        numbers,
        sums,
        shares,
        shades,
        normalize,
        _OF[normalize],
        title,
        min_val,
    )


def items_of(view: MatrixView, interp: Predicted, row: int, column: int) -> list[int]:
    """The items of a cell of the view, highest loss first."""
    masks = []
    for k, values in ((row, interp.targets), (column, interp.predicted)):
        if k < len(view.classes):
            masks.append(values == view.classes[k])
        else:
            masks.append(~torch.isin(values, torch.tensor(view.classes)))
    items = (masks[0] & masks[1]).nonzero()[:, 0]
    return items[interp.losses[items].argsort(descending=True, stable=True)].tolist()


def ordered_classes(interp: Predicted, order: str) -> list[int]:
    """The classes in an order for reading.

    Parameters
    ----------
    order : "vocab"; "error", those with most errors in row and column first; "freq", those with
        most items first; "cluster", those that are confused next to each other: the order of the
        Fiedler vector of the graph of errors (Atkins 1998, spectral seriation)
    """
    c = len(interp.vocab)
    if order == "vocab":
        return list(range(c))
    if order == "freq":
        support = torch.bincount(interp.targets, minlength=c)
        return support.argsort(descending=True, stable=True).tolist()
    if order == "cluster" and c > LARGEST:
        raise ValueError(f"order cluster is for up to {LARGEST:,} classes, and these are {c:,}")
    actual, predicted, counts = interp.cells
    wrong = actual != predicted
    errors = torch.zeros(c, dtype=counts.dtype)
    for ends in (actual, predicted):
        errors.index_add_(0, ends[wrong], counts[wrong])
    by_error = errors.argsort(descending=True, stable=True).tolist()
    if order == "error":
        return by_error
    confused = [k for k in by_error if errors[k]]
    place = {k: i for i, k in enumerate(confused)}
    graph = np.full((len(confused),) * 2, 1e-3)  # a little: parts without errors between them
    for i, j, n in zip(*(t[wrong].tolist() for t in (actual, predicted, counts)), strict=True):
        graph[place[i], place[j]] += n
        graph[place[j], place[i]] += n
    if len(confused) > 2:
        _, vectors = np.linalg.eigh(np.diag(graph.sum(1)) - graph)
        confused = [confused[i] for i in np.argsort(vectors[:, 1], kind="stable")]
    return confused + [k for k in by_error if not errors[k]]
