"""Label issues: labels that are worth a look, and how many are wrong, by confident learning.

Northcutt, Jiang and Chuang 2021 (JAIR 70, arXiv 1911.00068): an item counts for the class that is
as probable for it as that class is, on average, for the items labelled so. It is worth a look if
that is another class than its label.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nbfinetune.data.datasets import PictureItems
from nbfinetune.interpretation.activation_map import NetworkOf
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.prediction import loader_of
from nbfinetune.rendering.names import shown
from nbfinetune.rendering.numbers import counted
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training import loop
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.state import Callback, LearnerState, as_callbacks
from nbfinetune.training.steering import Steering, exclusive_run

_FOLDS = 5  # cross-validation of the head, as cleanlab's default
_L2 = 0.1  # weight penalty of the head on standardised features
_SPREAD = 1e-3  # a feature that hardly varies is not blown up
_SOUND = 0.8  # share of labels the heads agree with; at 0.39 they saw 294 wrong ones where 38 were
_SLACK = 1e-6  # of the thresholds (cleanlab's)


def confident_issues(probs: Tensor, targets: Tensor) -> list[int]:
    """The items whose labels are worth a look, the least probable label first.

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
    counts_for, best = _confident_classes(probs, targets)
    wrong = (counts_for >= 0) & (counts_for != targets) & (best != targets)
    items = wrong.nonzero()[:, 0]
    of_label = probs.gather(1, targets[:, None])[:, 0]
    return items[of_label[items].argsort(stable=True)].tolist()


def estimated_wrong(probs: Tensor, targets: Tensor) -> float:
    """How many of the labels are wrong: an estimate, of no item in particular.

    Confident learning's: the items that count for a class, by label and class, with each label's
    row scaled to all items labelled so, are n times the joint distribution of label and true class
    (equation 3 of Northcutt et al. 2021). The estimate is what lies off its diagonal. It differs
    from how many `confident_issues` names: these are items whose most probable class, too, is not
    their label, and no item stands for others there. It is no better than the predictions: weak
    ones take right labels for wrong.

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
    c = probs.shape[1]
    counts_for, _ = _confident_classes(probs, targets)
    sure = counts_for >= 0
    rows = torch.bincount(targets[sure], minlength=c).double()
    right = torch.bincount(targets[sure & (counts_for == targets)], minlength=c).double()
    rows, right = rows + (right == 0), right.clamp_min(1)  # one is right, of each class (cleanlab)
    return float((torch.bincount(targets, minlength=c) * (1 - right / rows)).sum())


def _confident_classes(probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The class that each item counts for, -1 for none, and its most probable class."""
    c = probs.shape[1]
    of_label = probs.gather(1, targets[:, None])[:, 0]
    sums = torch.zeros(c, dtype=probs.dtype).index_add_(0, targets, of_label)
    sizes = torch.bincount(targets, minlength=c)
    thresholds = torch.where(sizes > 0, sums / sizes.clamp_min(1), torch.inf)
    confident = probs >= thresholds - _SLACK
    best = probs.argmax(1)
    counts_for = torch.where(confident.sum(1) > 1, best, confident.int().argmax(1))
    return counts_for.where(confident.any(1), -1), best


@dataclass(frozen=True)
class LabelIssues:
    """What `label_issues` found.

    Parameters
    ----------
    interp : predictions of heads that had not seen the item, for all items
    items : those worth a look, the least probable label first
    n_wrong : how many labels are wrong by the estimate, see `estimated_wrong`
    """

    interp: ClassificationInterpretation
    items: list[int] = field(repr=False)
    n_wrong: float

    @property
    def headline(self) -> str:
        """How many are worth a look and how many may be wrong; without any, what to do next."""
        n = len(self.interp)
        wrong = f"about {self.n_wrong:,.0f} {'is' if round(self.n_wrong) == 1 else 'are'}"
        estimate = f"{wrong} estimated to be wrong"
        if self.interp.accuracy < _SOUND:
            share = f"{self.interp.accuracy:.0%}"
            estimate += f" (likely fewer: the predictions agree with only {share} of the labels)"
        if self.items:
            worth = "label is" if n == 1 else "labels are"
            return f"{len(self.items):,} of {n:,} {worth} worth a look; {estimate}"
        return (
            f"none of {counted(n, 'label')} is worth a look; {estimate}. %top_losses shows the "
            "pictures that the network finds hardest"
        )


def label_issues(
    learn: LearnerState, ds: str = "all", *, cbs: Sequence[Callback] = ()
) -> LabelIssues:
    """The items of a learner whose labels are worth a look, and how many may be wrong.

    What trained on wrong labels has learned them too. So a linear head is trained on the features
    that the network's body gives, five times on four fifths of the items, and says of the rest what
    is probable. The learner is not changed.

    Parameters
    ----------
    ds : "valid", "train" or "all"
    cbs : see each batch

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
    features, targets = _features(learn, loaders, cbs)
    probs = _out_of_fold(features, targets, len(learn.vocab), learn.seed)
    parts = [getattr(loader, "dataset", None) for loader in loaders]
    known = all(isinstance(part, PictureItems) for part in parts)
    interp = ClassificationInterpretation.from_predictions(targets, probs, learn.vocab)
    interp = replace(
        interp, dataset=_Joined(parts) if known else None, network=NetworkOf(learn, None)
    )
    found = confident_issues(probs, targets)
    return LabelIssues(interp, found, estimated_wrong(probs, targets))


@dataclass(frozen=True)
class _Joined(PictureItems):
    """The pictures of several data sets, one after the other."""

    parts: Sequence[PictureItems]

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
def _features(
    learn: LearnerState, loaders: Sequence[DataLoader], cbs: Sequence[Callback]
) -> tuple[Tensor, Tensor]:
    """What the head gets, [n, d], and the targets, [n]."""
    features, targets = [], []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach().float()
        features.append((x.mean((2, 3)) if x.ndim == 4 else x.flatten(1)).cpu())

    layers = (m for part in learn.groups[-1] for m in part.modules())
    first = next(m for m in layers if any(True for _ in m.parameters(recurse=False)))
    hook = first.register_forward_pre_hook(keep)
    try:
        with seeded_rng(learn.seed):
            for loader in loaders:
                for _, y in loop.predictions(learn, loader, [Steering(), *as_callbacks(cbs)]):
                    targets.append(y.cpu())
    except CancelFit:
        raise RuntimeError("stopped; nothing was changed") from None
    finally:
        hook.remove()
    return torch.cat(features), torch.cat(targets)


def _out_of_fold(features: Tensor, targets: Tensor, c: int, seed: int) -> Tensor:
    """Probabilities [n, c] of linear heads that did not train on the item."""
    x = (features - features.mean(0)) / (features.std(0, correction=0) + _SPREAD)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    probs = torch.zeros(len(x), c)
    for fold in order.chunk(_FOLDS):
        others = torch.ones(len(x), dtype=torch.bool)
        others[fold] = False
        weight, bias = _logistic_regression(x[others], targets[others], c)
        probs[fold] = (x[fold] @ weight + bias).softmax(1)
    return probs


def _logistic_regression(x: Tensor, targets: Tensor, c: int) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(x.shape[1], c, requires_grad=True)
    bias = torch.zeros(c, requires_grad=True)
    opt = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        opt.zero_grad()
        value = nn.functional.cross_entropy(x @ weight + bias, targets)
        value = value + _L2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        opt.step(loss)
    return weight.detach(), bias.detach()
