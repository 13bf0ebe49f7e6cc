"""Recipe: how the second stage of `fine_tune` trains, by what the head made of the body's features.

The rule. The loss of the head on pictures left out, as a share of that of a guess, tells how far
these pictures are from those that the body knows: near at a share of 0.25 or less, far at 0.45 or
more. Far ones have to move the body: it trains at 3e-4, and the head is scaled down to 0.3 before,
since one that fits the training pictures to the end leaves nothing to learn from. Near ones need
not: it trains at 3e-5, from the head as it is. Between, both go along a line (of their logarithms).
The layers that see a picture at a quarter of its size or larger stay fixed: they take 22 % of a
step's time (96 px), and training them made no difference that was seen. An epoch has 60 steps or
more, if batches of 16 allow that. At the end of both stages the head is fitted anew (`refit`).
`benchmarks/README.md` has the evidence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite, log

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nbfinetune.arguments import as_whole_number
from nbfinetune.data.datasets import even_loader, gives_pictures
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.networks.head_fit import HeadFit
from nbfinetune.networks.layer_groups import modules_of
from nbfinetune.networks.outputs import hooked
from nbfinetune.rendering.names import shown
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.runtime.interrupts import interrupts_held, whole
from nbfinetune.training.batches.microbatches import PICTURES
from nbfinetune.training.fine_tuning.second_stage import SecondStage
from nbfinetune.training.state import LearnerState

RECIPES = ("measured", "fastai")
_NEAR, _FAR = 0.25, 0.45  # loss of the head over that of a guess
_NEAR_RATE, _FAR_RATE = 3e-5, 3e-4  # of the body
# Transformers and ConvNeXts, which have no BatchNorm, are tuned at 5e-5 (Liu et al. 2022, arXiv
# 2201.03545); not measured here.
_WITHOUT_BN = 0.2
_SOFTER = 0.3  # times the weights of the head, far
_STEPS = 60  # of an epoch, or more


def check_recipe(learn: LearnerState, recipe: str, bs: int | None) -> None:
    """Raise ValueError for a recipe that there is not, or batches that cannot be made."""
    if recipe not in RECIPES:
        raise ValueError(f"recipe is {shown(recipe)}; it must be one of {', '.join(RECIPES)}")
    if bs is not None:
        as_whole_number("bs", bs, 1)
        if not gives_pictures(learn.dls.train):
            raise ValueError(
                f"bs is {bs}, but these loaders make batches of their own; leave it out"
            )


def second_stage(learn: LearnerState, fit: HeadFit | None) -> SecondStage:
    """What the rule says.

    Parameters
    ----------
    fit : of the head in the first stage; where it was not fitted (None), or nothing could be left
        out, the careful rate is taken
    """
    known = fit is not None and isfinite(fit.loss)
    share = fit.loss / log(len(fit.bias)) if known else None
    far = 0.0 if share is None else min(max((share - _NEAR) / (_FAR - _NEAR), 0.0), 1.0)
    rate = _NEAR_RATE * (_FAR_RATE / _NEAR_RATE) ** far
    if not any(isinstance(m, _BatchNorm) for m in learn.model.modules()):
        rate *= _WITHOUT_BN
    why = f"the body trains at {rate_text(rate)}"
    if share is not None:
        what = "near" if far == 0 else "far from" if far == 1 else "not far from"
        why += (
            f": the loss of the head on pictures left out is {share:.0%} of a guess's, so they are "
            f"{what}{' to' if far == 0 else ''} those that the network knows"
        )
    return SecondStage(rate, _SOFTER**far, why)


@contextmanager
def first_layers_fixed(learn: LearnerState) -> Iterator[None]:
    """Inside, the layers of a pretrained body that see large pictures do not train."""
    first = [] if learn.train_bn else first_layers(learn)
    fixed = [p for m in first for p in m.parameters(recurse=False) if p.requires_grad]
    try:
        for p in fixed:
            p.requires_grad_(False)
        yield
    finally:
        with interrupts_held():  # a second interrupt must not leave some fixed
            for p in fixed:
                p.requires_grad_(True)


def first_layers(learn: LearnerState) -> list[nn.Module]:
    """The layers before the first one that gives less than a quarter of the picture's sides."""
    if not isinstance(learn.transforms, ImageTransforms):
        return []
    size, found, left = learn.transforms.size, [], []

    def look(module: nn.Module, inputs: tuple, out: object) -> None:
        sides = out.shape[2:] if isinstance(out, Tensor) and out.ndim == 4 else ()
        if sides and 1 < min(sides) < size // 4:  # of one pixel are the means inside of a block
            left.append(module)
        elif not left:
            found.append(module)

    body = [m for group in learn.groups[:-1] for m in modules_of(group)]
    layers = [m for m in body if next(m.parameters(recurse=False), None) is not None]
    with torch.no_grad(), hooked(lambda: [m.register_forward_hook(look) for m in layers]):
        learn.model.eval()(torch.zeros(1, 3, size, size, device=learn.device))
    return found if left else []


@whole
def soften(head: nn.Linear, scale: float) -> None:
    """Scale the logits of a linear head; what it predicts stays the same."""
    with torch.no_grad():
        head.weight *= scale
        head.bias *= scale


def batch_size(learn: LearnerState) -> int | None:
    """Pictures in a batch of the second stage; None = as the loaders have them."""
    train = learn.dls.train
    if not gives_pictures(train):
        return None
    parts = max(len(train.dataset) // _STEPS // PICTURES, 1)
    return min(learn.dls.bs, parts * PICTURES)


@contextmanager
def batches_of(learn: LearnerState, bs: int | None) -> Iterator[None]:
    """Inside, training batches have at most `bs` pictures.

    With None, and where loaders make batches of their own, they are as they are.
    """
    dls, train = learn.dls, learn.dls.train
    if bs is None or not gives_pictures(train):
        yield
        return
    dls.train = even_loader(train.dataset, bs, shuffle=True, num_workers=train.num_workers)
    try:
        yield
    finally:
        dls.train = train
