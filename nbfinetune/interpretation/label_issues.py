"""Label issues: all labels ranked, how many are worth a look, and how many are wrong.

They are ranked by self-confidence, the probability that heads which had not seen an item give to
its label; how many are worth a look confident learning says (Northcutt, Jiang and Chuang 2021, JAIR
70, arXiv 1911.00068). benchmarks/label_issues.py compares that with other orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader

from nbfinetune.data.datasets import PictureItems
from nbfinetune.interpretation.activation_map import NetworkOf
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.item_list import ItemsReport
from nbfinetune.interpretation.prediction import loader_of
from nbfinetune.networks.logistic import fit_penalised
from nbfinetune.rendering.names import shown
from nbfinetune.rendering.numbers import counted
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.fine_tuning.refit import layer_inputs
from nbfinetune.training.spmd.spread import spread
from nbfinetune.training.state import Callback, LearnerState, as_callbacks
from nbfinetune.training.steering import Steering, exclusive_run

if TYPE_CHECKING:
    from pandas import DataFrame

_FOLDS = 5  # cross-validation of the head, as cleanlab's default
_PENALTY = 1.0  # of half the squared weights, on standardised features: best order of 0.006 to 20
_SHARPENING = 1.5  # of logits so penalised: least loss out of fold at 1.2 to 2 times (measured)
_SPREAD = 1e-3  # a feature that hardly varies is not blown up
_SOUND = 0.8  # share of labels the heads agree with; at 0.39 they saw 294 wrong ones where 38 were
_SLACK = 1e-6  # of the thresholds (cleanlab's)


def confident_issues(probs: Tensor, targets: Tensor) -> list[int]:
    """The items that confident learning takes for mislabelled, the least probable label first.

    As many as the joint distribution of label and true class has off its diagonal, pair by pair
    those whose true class leads their label most ("prune by noise rate", section 3.2 of Northcutt
    et al. 2021), without those whose label is their most probable class: the default filter of
    cleanlab 2.9.

    Parameters
    ----------
    probs : probabilities that a model gave which had not seen these items, shape [n, c]
    targets : class indices, shape [n]

    Examples
    --------
    >>> from torch import tensor
    >>> probs = tensor([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.9, 0.1]])
    >>> confident_issues(probs, tensor([0, 0, 1, 1]))
    [3]
    """
    counts = _prune_counts(_joint(probs, targets))
    own = _self_confidence(probs, targets)
    found = torch.zeros(len(probs), dtype=torch.bool)
    for label, true in counts.nonzero().tolist():
        items = (targets == label).nonzero()[:, 0]
        lead = probs[items, true] - own[items]
        found[items[lead.argsort(descending=True, stable=True)[: counts[label, true]]]] = True
    found &= own + _SLACK < probs.max(1).values
    items = found.nonzero()[:, 0]
    return items[own[items].argsort(stable=True)].tolist()


def estimated_wrong(probs: Tensor, targets: Tensor) -> float:
    """How many of the labels are wrong: an estimate, of no item in particular.

    Confident learning's: what lies off the diagonal of the joint distribution of label and true
    class. It is no better than the predictions: weak ones take right labels for wrong.

    Parameters
    ----------
    probs, targets : as for `confident_issues`

    Examples
    --------
    >>> from torch import tensor
    >>> probs = tensor([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.9, 0.1]])
    >>> estimated_wrong(probs, tensor([0, 0, 1, 1]))
    1.0
    """
    joint = _joint(probs, targets)
    return float(joint.sum() - joint.trace())


def _self_confidence(probs: Tensor, targets: Tensor) -> Tensor:
    """The probability of each item's own label, shape [n]."""
    return probs.gather(1, targets[:, None])[:, 0]


def _joint(probs: Tensor, targets: Tensor) -> Tensor:
    """How many items have a label (row) and in truth are of a class (column), shape [c, c].

    The items that count for a class, with each label's row scaled to all items labelled so
    (equation 3 of Northcutt et al. 2021).
    """
    c = probs.shape[1]
    counts_for = _confident_classes(probs, targets)
    sure = counts_for >= 0
    counted_for = torch.bincount(targets[sure] * c + counts_for[sure], minlength=c * c)
    joint = counted_for.view(c, c).double()
    joint.diagonal().clamp_(min=1)  # one is right, of each class (cleanlab)
    return joint / joint.sum(1, keepdim=True) * torch.bincount(targets, minlength=c)[:, None]


def _prune_counts(joint: Tensor) -> Tensor:
    """How many items to take of each label for each class: rounded, rows keep their sums."""
    counts = joint.round()
    remainders = joint - counts
    missing = (joint.sum(1).round() - counts.sum(1)).int()
    for row in missing.nonzero()[:, 0].tolist():
        order = remainders[row].argsort(stable=True)
        order = order.flip(0) if missing[row] > 0 else order
        counts[row, order[: missing[row].abs()]] += missing[row].sign()
    counts[counts.diagonal() == 0] -= 1  # a label without a right item keeps some (cleanlab)
    return counts.fill_diagonal_(0).clamp_min(0).long()


def _confident_classes(probs: Tensor, targets: Tensor) -> Tensor:
    """The class as probable for an item as, on average, for those labelled so; -1 for none."""
    c = probs.shape[1]
    own = _self_confidence(probs, targets)
    sums = torch.zeros(c, dtype=probs.dtype).index_add_(0, targets, own)
    sizes = torch.bincount(targets, minlength=c)
    thresholds = torch.where(sizes > 0, sums / sizes.clamp_min(1), torch.inf)
    confident = probs >= thresholds - _SLACK
    counts_for = torch.where(confident.sum(1) > 1, probs.argmax(1), confident.int().argmax(1))
    return counts_for.where(confident.any(1), -1)


@dataclass(frozen=True)
class LabelIssues:
    """What `label_issues` found.

    Parameters
    ----------
    interp : predictions of heads that had not seen the item, for all items
    ranking : all items, the least probable label first
    n_marked : how many are worth a look, as many as `confident_issues` has
    n_wrong : how many labels are wrong by the estimate, see `estimated_wrong`
    """

    interp: ClassificationInterpretation
    ranking: list[int] = field(repr=False)
    n_marked: int
    n_wrong: float

    @property
    def items(self) -> list[int]:
        """Those worth a look: the first of the ranking.

        These, not the very items of `confident_issues`: of wrong labels more are among them.
        """
        return self.ranking[: self.n_marked]

    def to_df(self) -> "DataFrame":
        """A pandas DataFrame of all items as they are ranked: see `interp.to_df`.

        One more column, worth_a_look, tells the first `n_marked` from the others. What
        `actual` says is the label, and `predicted` what the heads say that had not seen it.
        """
        marked = [rank < self.n_marked for rank in range(len(self.ranking))]
        return self.interp.to_df(self.ranking).assign(worth_a_look=marked)

    @property
    def report(self) -> ItemsReport:
        """Those worth a look, with the first pictures."""
        return ItemsReport(self.interp, self.items, self.headline)

    def __repr__(self) -> str:
        return repr(self.report)

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    @property
    def headline(self) -> str:
        """How many are worth a look and how many may be wrong; without any, what to do next."""
        n = len(self.interp)
        wrong = f"about {self.n_wrong:,.0f} {'is' if round(self.n_wrong) == 1 else 'are'}"
        estimate = f"{wrong} estimated to be wrong"
        if self.interp.accuracy < _SOUND:
            share = f"{self.interp.accuracy:.0%}"
            estimate += f" (likely fewer: the predictions agree with only {share} of the labels)"
        if self.n_marked:
            worth = "label is" if n == 1 else "labels are"
            return f"{self.n_marked:,} of {n:,} {worth} worth a look; {estimate}"
        return (
            f"none of {counted(n, 'label')} is worth a look; {estimate}. %top_losses shows the "
            "pictures that the network finds hardest"
        )


def label_issues(
    learn: LearnerState,
    ds: str = "all",
    *,
    cbs: Sequence[Callback] = (),
    workers: int | None = None,
    cluster: str | None = None,
) -> LabelIssues:
    """A learner's items ranked by their labels, how many are worth a look and may be wrong.

    What trained on wrong labels has learned them too. So a linear head is trained on the features
    that the network's body gives, five times on four fifths of the items, and says of the rest what
    is probable. The learner is not changed.

    Parameters
    ----------
    ds : "valid", "train" or "all"
    cbs : see each batch
    workers, cluster : see `Learner.fit`

    Raises
    ------
    ValueError, RuntimeError
        For an unknown `ds`, no data, or a network without a body.
    """
    if len(learn.groups) < 2:
        raise ValueError(
            "label issues need a network with a body and a head, such as vision_learner's"
        )
    if ds not in ("valid", "train", "all"):
        raise ValueError(f'ds is {shown(ds)}; it must be "valid", "train" or "all"')
    loaders = [loader_of(learn, part) for part in (("train", "valid") if ds == "all" else (ds,))]
    features, targets = _features(learn, loaders, cbs, workers=workers, cluster=cluster)
    probs = _out_of_fold(features, targets, len(learn.vocab), learn.seed)
    parts = [getattr(loader, "dataset", None) for loader in loaders]
    known = all(isinstance(part, PictureItems) for part in parts)
    interp = ClassificationInterpretation.from_predictions(targets, probs, learn.vocab)
    interp = replace(
        interp, dataset=_Joined(parts) if known else None, network=NetworkOf(learn, None)
    )
    ranking = _self_confidence(probs, targets).argsort(stable=True).tolist()
    n_marked = len(confident_issues(probs, targets))
    return LabelIssues(interp, ranking, n_marked, estimated_wrong(probs, targets))


@dataclass(frozen=True)
class _Joined(PictureItems):
    """The pictures of several data sets, one after the other."""

    parts: Sequence[PictureItems]

    def kept_by_others(self) -> PictureItems:
        return _Joined([part.kept_by_others() for part in self.parts])

    def _find(self, i: int) -> tuple[PictureItems, int]:
        for part in self.parts:
            if i < len(part):
                return part, i
            i -= len(part)
        raise IndexError(i)

    def path(self, i: int) -> Path | None:
        part, k = self._find(i)
        return part.path(k)

    def image(self, i: int) -> Image.Image:
        part, k = self._find(i)
        return part.image(k)

    def cached_image(self, i: int) -> Tensor | None:
        part, k = self._find(i)
        return part.cached_image(k)


@exclusive_run(scales_rates=False)
@spread
def _features(
    learn: LearnerState, loaders: Sequence[DataLoader], cbs: Sequence[Callback]
) -> tuple[Tensor, Tensor]:
    """What the head gets, [n, d], and the targets, [n]."""
    layers = (m for part in learn.groups[-1] for m in part.modules())
    first = next(m for m in layers if any(True for _ in m.parameters(recurse=False)))
    try:
        with seeded_rng(learn.seed):
            return layer_inputs(learn, first, loaders, [Steering(), *as_callbacks(cbs)])
    except CancelFit:
        raise RuntimeError("stopped; nothing was changed") from None


def _out_of_fold(features: Tensor, targets: Tensor, c: int, seed: int) -> Tensor:
    """Probabilities [n, c] of linear heads that did not train on the item."""
    x = (features - features.mean(0)) / (features.std(0, correction=0) + _SPREAD)
    y = one_hot(targets, c).float()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    probs = torch.zeros(len(x), c)
    for fold in order.chunk(_FOLDS):
        others = torch.ones(len(x), dtype=torch.bool)
        others[fold] = False
        weight, bias = fit_penalised(x[others], y[others], _PENALTY)
        probs[fold] = (_SHARPENING * (x[fold] @ weight.T + bias)).softmax(1)
    return probs
