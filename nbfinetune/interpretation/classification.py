"""Interpretation: what a classifier got right and wrong, of each item, from one pass.

Kept are target, prediction, loss, two probabilities and the first few classes of each item: O(n k),
never the pictures, never all probabilities.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from os import PathLike
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from nbfinetune.arguments import as_whole_number
from nbfinetune.data.datasets import PictureItems, pictures_of, shuffles
from nbfinetune.images.decoding import open_image
from nbfinetune.interpretation import confusion, matrix_figure, thumbnails
from nbfinetune.interpretation.activation_map import NetworkOf
from nbfinetune.interpretation.confusion import Comparison
from nbfinetune.interpretation.given import given_paths, given_vocab
from nbfinetune.interpretation.matrix_options import NORMALIZE
from nbfinetune.interpretation.prediction import LABELS, is_labelled, loader_of
from nbfinetune.interpretation.results import frames
from nbfinetune.interpretation.sample_predictions import (
    SamplePredictions,
    depends_on,
    predict_samples,
)
from nbfinetune.networks.weights_digest import weights_digest
from nbfinetune.rendering.names import shown
from nbfinetune.rendering.tables import Table
from nbfinetune.training.state import Callback, LearnerState


@dataclass(frozen=True, eq=False)
class ClassificationInterpretation:
    """The predictions on labelled items. Made by `from_learner` or `from_predictions`.

    Parameters
    ----------
    vocab : class names, c of them
    targets, predicted : class indices, int64, shape [n]
    losses : shape [n]
    target_probs, predicted_probs : probabilities of these classes, shape [n]
    top, top_probs : the k most probable classes of each item and their probabilities, [n, k]
    paths : file of each item, or None
    dataset : what pictures come from; item i of it is item i here
    n_planned : items asked for; n is smaller if the pass was stopped
    network : what predicted, None if it is not known
    """

    vocab: list[str]
    targets: Tensor = field(repr=False)
    predicted: Tensor = field(repr=False)
    losses: Tensor = field(repr=False)
    target_probs: Tensor = field(repr=False)
    predicted_probs: Tensor = field(repr=False)
    top: Tensor = field(repr=False)
    top_probs: Tensor = field(repr=False)
    paths: Sequence[str | PathLike] | None = field(default=None, repr=False)
    dataset: PictureItems | None = field(default=None, repr=False)
    n_planned: int = 0
    network: NetworkOf | None = field(default=None, repr=False)

    @classmethod
    def from_learner(
        cls,
        learn: LearnerState,
        ds: str | DataLoader = "valid",
        *,
        cbs: Sequence[Callback] = (),
        workers: int | None = None,
        cluster: str | None = None,
    ) -> "ClassificationInterpretation":
        """Predict a part of the data once; the same again is taken from memory.

        What is in memory is used while weights, data, loss and transforms are the same. A pass
        ended by `learn.control.stop` gives the items so far and is not remembered.

        Parameters
        ----------
        ds : "valid", "train" (as validation sees pictures), or a loader of (inputs, targets)
        cbs : see each batch
        workers, cluster : see `Learner.fit`

        Raises
        ------
        ValueError, RuntimeError
            For an unknown `ds`, no data, or no classes.
        """
        loader = loader_of(learn, ds)
        if not is_labelled(loader):
            raise ValueError(f"these pictures have no labels; {LABELS}")
        if not learn.vocab:
            raise ValueError("this learner has no vocab; its loaders need the class names")
        if shuffles(loader):
            raise ValueError('this loader shuffles; pass "train" for the training data')
        key = depends_on(learn, loader) if isinstance(ds, str) else None
        remembered = _REMEMBERED.setdefault(learn, {})
        if key and ds in remembered and remembered[ds][0] == key:
            return remembered[ds][1]
        by = {"workers": workers, "cluster": cluster}
        items, complete = predict_samples(learn, loader, cbs, **by)
        dataset = getattr(loader, "dataset", None)
        n = len(items.targets) if dataset is None else len(dataset)
        pictures = pictures_of(loader)
        network = NetworkOf(learn, key[0] if key else weights_digest(learn.model))
        interp = cls(learn.vocab, *items.tensors(), dataset=pictures, n_planned=n, network=network)
        if key and complete:
            remembered[ds] = key, interp
        return interp

    @classmethod
    def from_predictions(
        cls,
        targets: Iterable[int | str],
        preds: Iterable[int | str] | Tensor,
        vocab: Iterable[str],
        paths: Iterable[str | PathLike] | None = None,
    ) -> "ClassificationInterpretation":
        """From classes, or from probabilities, that any model predicted.

        Lists, generators, Tensors, NumPy arrays and pandas Series, which go by their order whatever
        their index.

        Parameters
        ----------
        targets : class indices or names, shape [n]; whole numbers are indices
        preds : as targets, or probabilities [n, c] whose rows sum to 1
        vocab : the class names
        paths : file of each item

        Raises
        ------
        ValueError
            If shapes, indices or probabilities do not fit.

        Examples
        --------
        >>> interp = ClassificationInterpretation.from_predictions([0, 1, 1], [0, 1, 0], "ab")
        >>> interp.most_confused()
        [('b', 'a', 1)]
        """
        vocab = given_vocab(vocab)
        items = SamplePredictions.given(targets, preds, vocab)
        n = len(items.targets)
        return cls(vocab, *items.tensors(), paths=given_paths(paths, n), n_planned=n)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def n_wrong(self) -> int:
        """Items of which another class was predicted."""
        return int((self.targets != self.predicted).sum())

    @property
    def accuracy(self) -> float:
        """Share of the items predicted right, 0 if there are none."""
        return 1 - self.n_wrong / len(self) if len(self) else 0.0

    def confusion_matrix(self, *, normalize: str = "none") -> Tensor:
        """How often class j was predicted of class i.

        Parameters
        ----------
        normalize : "none" = counts; shares of the "true" class (rows), of the "pred"icted class
            (columns) or of "all" items. A class without items has shares of 0.

        Returns
        -------
        Tensor
            Shape [c, c], int64 or float32; sparse (COO) above 2,000 classes.
        """
        if normalize not in NORMALIZE:
            raise ValueError(
                f"normalize is {shown(normalize)}; it is one of {', '.join(NORMALIZE)}"
            )
        return confusion.matrix_of(self.cells, len(self.vocab), normalize)

    plot_confusion_matrix = matrix_figure.plot_confusion_matrix
    plot_top_losses = thumbnails.plot_top_losses
    print_classification_report = confusion.print_classification_report
    to_df = frames.to_df

    @cached_property
    def cells(self) -> tuple[Tensor, Tensor, Tensor]:
        """The cells that are not empty, row by row: actual, predicted, count, each shape [m]."""
        return confusion.cells_of(self.targets, self.predicted, len(self.vocab))

    def most_confused(self, min_val: int = 1) -> list[tuple[str, str, int]]:
        """Wrong pairs as (actual, predicted, how often), the most frequent first.

        Parameters
        ----------
        min_val : the least count, from 1 up
        """
        rows, columns, counts = self._confused(min_val)
        name = self.vocab.__getitem__
        return list(zip(map(name, rows), map(name, columns), counts, strict=True))

    def confused_cells(self, min_val: int = 1) -> list[tuple[int, int, int]]:
        """As `most_confused`, with class indices."""
        return list(zip(*self._confused(min_val), strict=True))

    def _confused(self, min_val: int) -> list[list[int]]:
        """Rows, columns and counts; equal counts in the order of the matrix."""
        min_val = min(as_whole_number("min_val", min_val, 1), len(self) + 1)  # torch has an end
        rows, columns, counts = self.cells
        wrong = (rows != columns) & (counts >= min_val)
        rows, columns, counts = rows[wrong], columns[wrong], counts[wrong]
        order = counts.argsort(descending=True, stable=True)
        return [t[order].tolist() for t in (rows, columns, counts)]

    def top_losses(self, k: int | None = None, *, largest: bool = True) -> tuple[Tensor, Tensor]:
        """The k largest losses and their items; all if k is None or larger than n.

        Returns
        -------
        losses, items : shape [k], sorted
        """
        if k is not None and not (isinstance(k, Integral) and k >= 0):
            raise ValueError(
                f"k is {shown(k)}; it must be a whole number from 0 up, or None for all"
            )
        k = len(self) if k is None else min(k, len(self))
        return self.losses.topk(k, largest=largest)

    def cell(self, actual: int | str, predicted: int | str) -> list[int]:
        """The items of one cell, highest loss first."""
        i, j = self.index(actual), self.index(predicted)
        items = ((self.targets == i) & (self.predicted == j)).nonzero()[:, 0]
        return items[self.losses[items].argsort(descending=True, stable=True)].tolist()

    def index(self, name: int | str) -> int:
        """The index of a class given by its index or its name.

        Raises
        ------
        ValueError
            If there is no such class.
        """
        c = len(self.vocab)
        if isinstance(name, str):
            if name in self.vocab:
                return self.vocab.index(name)
        elif isinstance(name, Integral) and not isinstance(name, bool) and 0 <= name < c:
            return int(name)
        raise ValueError(f"no class {shown(name)}; give a name of the vocab, or an index below {c}")

    def scores(self) -> dict[str, Tensor]:
        """Precision, recall and f1 of each class, 0 where undefined, and support; shape [c]."""
        return confusion.class_scores(self.targets, self.predicted, len(self.vocab))

    def report(self) -> Table:
        """Precision, recall, f1 and support of each class, and their means over the classes."""
        return confusion.scores_table(self.scores(), self.vocab, f"accuracy {self.accuracy:.4f}")

    def compare(self, other: "ClassificationInterpretation") -> Comparison:
        """What a later model, `other`, gets right that this one does not, and the reverse.

        Raises
        ------
        ValueError
            If they are not of the same items.
        """
        if not isinstance(other, ClassificationInterpretation):
            raise ValueError(
                f"other is a {type(other).__name__}; it must be a ClassificationInterpretation, "
                "such as cm.interp"
            )
        same = self.vocab == other.vocab and torch.equal(self.targets, other.targets)
        files = [[part.path(i) for i in range(len(part))] for part in (self, other)] if same else []
        if not same or (None not in files[0] + files[1] and files[0] != files[1]):
            raise ValueError(
                f"{len(self)} and {len(other)} items, not the same ones; compare predictions on "
                "the same items in the same order"
            )
        before, after = self.predicted == self.targets, other.predicted == self.targets
        parts = (~before & after, before & ~after, ~before & ~after)
        return Comparison(*(part.nonzero()[:, 0].tolist() for part in parts), n=len(self))

    def path(self, i: int) -> Path | None:
        """The file of item i, None if it is not known."""
        if self.paths is not None:
            return Path(self.paths[i])
        return None if self.dataset is None else self.dataset.path(i)

    def image(self, i: int) -> Image.Image:
        """The whole picture of item i.

        Raises
        ------
        ValueError
            If it cannot be read, or is not known.
        """
        if self.dataset is not None:
            return self.dataset.image(i)
        if self.paths is None:
            raise ValueError("no picture is known of these items")
        return open_image(self.paths[i])

    def activation_map(self, i: int, of: int | str | None = None) -> Tensor:
        """Where the network saw what speaks for a class: its class activation map, exact.

        The network looks at the picture once more, with its weights of now.

        Parameters
        ----------
        i : number of the item
        of : the class, by name or index; None = the one that was predicted

        Returns
        -------
        Tensor
            Shape [h, w], of the middle of the picture that validation crops. Its mean and the bias
            of the class are the logit; below 0 is what speaks against the class.

        Raises
        ------
        ValueError
            If the network is not known or does not end with one linear layer on the mean of a
            feature map; the message says why.
        RuntimeError
            While a run is on.

        Examples
        --------
        >>> interp.activation_map(0, "pug").shape  # doctest: +SKIP
        torch.Size([4, 4])
        """
        k = int(self.predicted[i]) if of is None else self.index(of)
        if self.network is None:
            raise ValueError("these predictions come from no learner, so nothing can be asked")
        return self.network.maps(self.dataset, i).maps[k]


# Of each learner: "valid" or "train" -> what its predictions depend on, and what became of them.
_REMEMBERED: "WeakKeyDictionary[LearnerState, dict[str, tuple]]" = WeakKeyDictionary()
