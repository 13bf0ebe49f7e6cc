"""Prediction: losses, metrics and probabilities for a part of the data or one picture.

Each function is a method of `Learner`. None changes the learner or anyone's random numbers.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import deepcopy
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nbfinetune.data.datasets import even_loader
from nbfinetune.data.transforms import presize, to_square
from nbfinetune.images.decoding import as_image, read_pixels
from nbfinetune.objectives.losses import batch_loss, probabilities
from nbfinetune.rendering.names import shortened, shown
from nbfinetune.runtime.interrupts import defers_interrupts
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training import loop
from nbfinetune.training.finite import check_finite
from nbfinetune.training.state import LearnerState

_URL = re.compile("[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # C:/ is none
_BS = 64  # pictures, where a loader does not tell


def validate(learn: LearnerState, ds: str | DataLoader = "valid") -> list[float]:
    """The loss and each metric on a part of the data.

    Parameters
    ----------
    ds : "valid", "train" (as validation sees pictures), or a loader of (inputs, targets)
    """
    learn.check_idle()  # before it waits for random numbers that the run draws from
    loader = loader_of(learn, ds)
    check_finite(learn, "what it predicts")
    with seeded_rng(learn.seed):
        return loop.validate(learn, loader)[0]


def get_preds(
    learn: LearnerState, ds: str | DataLoader = "valid", *, with_loss: bool = False
) -> tuple:
    """Predictions for a part of the data, in its order.

    Parameters
    ----------
    ds : as in `validate`
    with_loss : whether the loss of each item is returned too

    Returns
    -------
    preds : probabilities, shape [n, c]; rows sum to 1 unless the loss is one of several labels, as
        nn.BCEWithLogitsLoss, or says otherwise by its attribute `activation`
    targets : class indices, shape [n], or labels, shape [n, c]
    losses : shape [n], if asked for
    """
    learn.check_idle()  # before it waits for random numbers that the run draws from
    loader = loader_of(learn, ds)
    check_finite(learn, "what it predicts")
    with seeded_rng(learn.seed):
        _, outputs, targets = loop.validate(learn, loader)
    preds = probabilities(outputs, learn.activation)
    if not with_loss:
        return preds, targets
    each = item_losses(learn)
    return preds, targets, each(outputs.to(learn.device), targets.to(learn.device)).cpu()


@defers_interrupts
def predict(
    learn: LearnerState, item: str | PathLike | Image.Image | np.ndarray | Tensor
) -> tuple[str, Tensor, Tensor]:
    """The class of one picture.

    Parameters
    ----------
    item : a file, a Pillow picture, an array [h, w, 3] or a tensor [3, h, w], of uint8 or of
        floats in [0, 1], red first

    Returns
    -------
    label : the name of the most probable class
    index : its number, a scalar
    probs : probabilities, shape [c]

    Raises
    ------
    ValueError
        If the file is missing or cannot be decoded, the item is no picture, or the learner is not
        one of pictures.
    """
    learn.check_idle()
    if learn.transforms is None:
        raise ValueError("predict takes pictures; this learner has no transforms for them")
    check_finite(learn, "what it predicts")
    if hasattr(learn.transforms, "batch_of_picture"):  # loaders of others transform by themselves
        x = learn.transforms.batch_of_picture(item)
    else:
        side = presize(learn.transforms.size)
        is_file = isinstance(item, (str, PathLike))
        x = to_square(_pixels_of(item, side) if is_file else as_image(item), side)[None]
    with torch.no_grad():
        outputs = learn.logits(
            learn.prepare(x, training=False), learn.precision_split(training=False)
        )
    probs = probabilities(outputs.float().cpu(), learn.activation)[0]
    index = probs.argmax()
    return learn.vocab[index], index, probs


def _pixels_of(file: str | PathLike, side: int) -> np.ndarray:
    """As `read_pixels`, but a file that cannot be read is named."""
    if _URL.match(str(file)):
        raise ValueError(f"{file} is a URL, and nothing is downloaded; pass a file or a picture")
    try:
        return read_pixels(Path(file).expanduser(), side)
    except ValueError as error:
        raise ValueError(f"{shortened(file)}: {error}; pass a picture file") from None


def item_losses(learn: LearnerState) -> Callable[[Tensor, Tensor], Tensor]:
    """The learner's loss as a function (outputs [n, c], targets) -> losses [n].

    The losses of an item's labels are averaged. A loss that only gives means is asked for each item
    alone.
    """
    loss_func, options = learn.loss_func, {"reduction": "none"}
    if isinstance(loss_func, nn.Module):
        loss_func, options = deepcopy(loss_func), {}
        loss_func.reduction = "none"

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            with suppress(TypeError):  # no such argument
                each = loss_func(outputs, targets, **options)
                if getattr(each, "shape", None) in (outputs.shape[:1], outputs.shape):
                    return each.float().flatten(1).mean(1) if each.ndim > 1 else each.float()
            alone = zip(outputs.split(1), targets.split(1), strict=True)
            return torch.stack([batch_loss(loss_func, x, y).float() for x, y in alone])

    return losses


def loader_of(learn: LearnerState, ds: str | DataLoader) -> DataLoader:
    """The loader that `ds` names, in the order of its data set.

    Raises
    ------
    ValueError, RuntimeError
        For another name, or without data.
    """
    if not isinstance(ds, (str, Tensor)) and isinstance(ds, Iterable):
        return ds
    if not isinstance(ds, str) or ds not in ("train", "valid"):
        raise ValueError(f'ds is {shown(ds)}; it must be "valid", "train" or a DataLoader')
    if learn.dls is None:
        raise RuntimeError("this learner has no data; pass a DataLoader")
    if ds == "valid":
        return learn.dls.valid
    train = learn.dls.train
    if hasattr(train, "as_validation"):  # a loader of others
        return train.as_validation()
    if not hasattr(train, "dataset"):
        raise RuntimeError("the training loader has no data set to go through; pass a DataLoader")
    bs = getattr(learn.dls, "bs", None) or train.batch_size or _BS
    return even_loader(train.dataset, bs, shuffle=False)
