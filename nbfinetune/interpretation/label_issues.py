"""Label issues: items whose label is probably wrong, by confident learning.

Northcutt, Jiang and Chuang 2021 (arXiv 1911.00068): an item is suspected if a class other than its
label is as probable for it as that class is, on average, for the items labelled so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nbfinetune.data.datasets import PictureItems
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.prediction import loader_of
from nbfinetune.rendering.names import shown
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training import loop
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.state import Callback, LearnerState, as_callbacks
from nbfinetune.training.steering import Steering, exclusive_run

_FOLDS = 5  # cross-validation of the head, as cleanlab's default
_L2 = 0.1  # weight penalty of the head on standardised features
_SPREAD = 1e-3  # a feature that hardly varies is not blown up
_SLACK = 1e-6  # of the thresholds (cleanlab's)


def confident_issues(probs: Tensor, targets: Tensor) -> list[int]:
    """The items whose labels are probably wrong, the least probable label first.

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
    c = probs.shape[1]
    of_label = probs.gather(1, targets[:, None])[:, 0]
    sums = torch.zeros(c, dtype=probs.dtype).index_add_(0, targets, of_label)
    sizes = torch.bincount(targets, minlength=c)
    thresholds = torch.where(sizes > 0, sums / sizes.clamp_min(1), torch.inf)
    confident = probs >= thresholds - _SLACK
    best = probs.argmax(1)
    guess = torch.where(confident.sum(1) > 1, best, confident.int().argmax(1))
    wrong = confident.any(1) & (guess != targets) & (best != targets)
    items = wrong.nonzero()[:, 0]
    return items[of_label[items].argsort(stable=True)].tolist()


def label_issues(
    learn: LearnerState, ds: str = "all", *, cbs: Sequence[Callback] = ()
) -> tuple[ClassificationInterpretation, list[int]]:
    """The items of a learner whose labels are probably wrong.

    What trained on wrong labels has learned them too. So a linear head is trained on the features
    that the network's body gives, five times on four fifths of the items, and says of the rest what
    is probable. The learner is not changed.

    Parameters
    ----------
    ds : "valid", "train" or "all"
    cbs : see each batch

    Returns
    -------
    interp : predictions of these heads for all items of `ds`
    items : the suspected ones, the least probable label first

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
    interp = replace(interp, dataset=_Joined(parts) if known else None)
    return interp, confident_issues(probs, targets)


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
