"""Activation map: where in a picture a network saw what speaks for a class.

Zhou et al. 2016 (CVPR, arXiv 1512.04150): with one linear layer on the mean of a feature map f the
logit of class c is mean_xy sum_k w_ck f_k(x, y) + b_c, so the sum under the mean is a map whose
mean is the logit, less its bias. That is exact; for other heads there is no such map.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.hooks import RemovableHandle

from nbfinetune.data.datasets import PictureItems
from nbfinetune.data.transforms import ImageTransforms, presize, to_square
from nbfinetune.networks.outputs import hooked, logits_of, output_of
from nbfinetune.networks.weights_digest import weights_digest
from nbfinetune.runtime.interrupts import defers_interrupts
from nbfinetune.training.state import LearnerState

_ROUNDING = 1e-4  # of the means of a feature map, relative to the largest
# matplotlib's magma from its middle on, evenly spaced: its lightness grows evenly (CIECAM02).
_COLOURS = ((140, 41, 129), (200, 62, 115), (246, 110, 92), (254, 176, 120),
            (252, 253, 191))  # fmt: skip
_GREY = 0.6  # how far the picture's own colours are taken back, which else mix with the map's
_STRONG = 0.72  # share of the map's colour where it is most
_LEAST_SIDE = 400  # px of a picture that a map is laid over


@dataclass(frozen=True)
class ActivationMaps:
    """The maps of one picture.

    Parameters
    ----------
    maps : of each class, shape [c, h, w], on the CPU; the mean of one and its bias are its logit
    bias, logits : shape [c]
    """

    maps: Tensor
    bias: Tensor
    logits: Tensor


@defers_interrupts
def activation_maps(learn: LearnerState, square: Tensor) -> ActivationMaps:
    """The maps of a picture by a learner's network, from one pass in full precision.

    The learner is as before afterwards.

    Parameters
    ----------
    square : the decoded picture, uint8, shape [3, side, side]

    Raises
    ------
    RuntimeError
        While a run is on.
    ValueError
        If the network does not end with one linear layer on the mean of a feature map.
    """
    if learn.control.running:
        raise RuntimeError("a run is on; ask for the activation map after it")
    if not isinstance(learn.transforms, ImageTransforms):
        raise ValueError(_no_map("the learner has no transforms for pictures"))
    model = learn.model
    pools = [m for m in model.modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    pooled, given = [], []  # feature maps that pools got; linear layers, what they got and gave

    def watch() -> list[RemovableHandle]:
        seen = [m.register_forward_pre_hook(lambda _, x: pooled.append(x[0])) for m in pools]
        return seen + [
            m.register_forward_hook(lambda m, x, out: given.append((m, x[0], out))) for m in linears
        ]

    # The claim keeps a run from beginning meanwhile, from whatever thread.
    with learn.control.claim(scales_rates=False), _evaluating(model), hooked(watch):
        x = learn.prepare(square[None], training=False)
        logits = logits_of(output_of(model, x), model=model)
    linear, features = _linear_on_mean(pooled, given, logits)
    bias = torch.zeros_like(logits[0]) if linear.bias is None else linear.bias.detach()
    maps = torch.einsum("ck,kxy->cxy", linear.weight.detach(), features[0])
    return ActivationMaps(maps.cpu(), bias.cpu(), logits[0].cpu())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, without a graph; each module's mode is given back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def _linear_on_mean(
    pooled: list[Tensor], given: list[tuple[nn.Linear, Tensor, Tensor]], logits: Tensor
) -> tuple[nn.Linear, Tensor]:
    """The layer that gave the logits and the feature map, [1, k, h, w], whose mean it got."""
    if not given or not torch.equal(given[-1][2], logits):
        raise ValueError(_no_map("no linear layer gives the network's logits"))
    linear, got, _ = given[-1]
    if len(given) > 1:
        raise ValueError(_no_map(f"the network has {len(given)} linear layers in a row, not one"))
    if not pooled:
        raise ValueError(_no_map("the network has no layer that takes the mean of a feature map"))
    means = pooled[-1].mean((2, 3))
    if means.shape != got.shape or (means - got).abs().max() > _ROUNDING * got.abs().max():
        raise ValueError(
            _no_map(
                "more than flattening and dropout lies between the mean of the feature map and the "
                "linear layer, such as a norm, an activation or another pooling"
            )
        )
    return linear, pooled[-1]


def _no_map(reason: str) -> str:
    return f"the activation map is not available because {reason}"


class NetworkOf:
    """The network behind some predictions: that of a learner, which is not kept alive.

    Parameters
    ----------
    learn : the learner
    digest : of the weights that predicted; None if heads of their own did, on its body
    """

    def __init__(self, learn: LearnerState, digest: bytes | None) -> None:
        self._learn, self._digest = weakref.ref(learn), digest

    def __getstate__(self) -> dict:
        """Without the learner: what is pickled has none."""
        return {"_learn": _nobody, "_digest": self._digest}

    def maps(self, items: PictureItems | None, i: int) -> ActivationMaps:
        """The maps of item i; raises as `activation_maps`, and if learner or picture are gone."""
        return activation_maps(self._there(), self._square(items, i))

    def seen(self, items: PictureItems | None, i: int) -> Image.Image:
        """The part of item i's picture that the network saw, in all its pixels."""
        size, picture = self._there().transforms.size, items.image(i)
        inside = size / presize(size) if self._square(items, i).shape[-1] == presize(size) else 1
        side = round(inside * min(picture.size))
        left, top = ((length - side) // 2 for length in picture.size)
        return picture.crop((left, top, left + side, top + side))

    @property
    def note(self) -> str:
        """In what the network is not the one that predicted; empty if it is."""
        if self._digest is None:
            return "by the learner's own head, not by the heads of this list"
        if weights_digest(self._there().model) != self._digest:
            return "by the weights of now, which have changed since the prediction"
        return ""

    def _there(self) -> LearnerState:
        learn = self._learn()
        if learn is None:
            raise ValueError(_no_map("the learner that predicted is gone"))
        return learn

    def _square(self, items: PictureItems | None, i: int) -> Tensor:
        if items is None:
            raise ValueError(_no_map("the pictures of these items are not known"))
        cached = items.cached_image(i)
        if cached is not None:
            return cached
        transforms = self._there().transforms
        if not isinstance(transforms, ImageTransforms):
            raise ValueError(_no_map("the learner has no transforms for pictures"))
        return to_square(items.image(i), presize(transforms.size))


def _nobody() -> None:
    """What a weak reference gives when its object is gone."""


def overlay(picture: Image.Image, activation: Tensor) -> Image.Image:
    """A map laid over the picture: greyish where it is 0 or less, bright where it is most.

    Parameters
    ----------
    picture : what the network saw, square
    activation : shape [h, w]
    """
    side = max(picture.width, _LEAST_SIDE)
    picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    positive = activation.float().clamp_min(0)[None, None]
    smooth = interpolate(positive, (side, side), mode="bilinear", align_corners=False)[0, 0].numpy()
    share = smooth / max(float(smooth.max()), 1e-12)
    at = share[..., None] * (len(_COLOURS) - 1)
    low = np.minimum(at.astype(np.int64), len(_COLOURS) - 2)
    table = np.array(_COLOURS, np.float64)
    colour = table[low[..., 0]] * (1 - (at - low)) + table[low[..., 0] + 1] * (at - low)
    rgb = np.asarray(picture.convert("RGB"), np.float64)
    grey = np.asarray(picture.convert("L"), np.float64)[..., None]
    muted = rgb * (1 - _GREY) + grey * _GREY
    alpha = _STRONG * share[..., None]
    return Image.fromarray((muted * (1 - alpha) + colour * alpha).round().astype(np.uint8))
