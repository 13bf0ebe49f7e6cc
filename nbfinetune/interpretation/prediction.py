"""Prediction: losses, metrics and probabilities for a part of the data, or for pictures.

Each function is a method of `Learner`. None changes the learner or anyone's random numbers.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nbfinetune.data.arguments import check_choices, check_no_url
from nbfinetune.data.datasets import even_loader, pictures_of
from nbfinetune.data.sources.prediction_sets import as_pictures, is_data_set, read_pictures
from nbfinetune.data.transforms import presize, to_square
from nbfinetune.images.decoding import as_image, read_pixels
from nbfinetune.interpretation.results.predictions import PredictedItems, Predictions
from nbfinetune.objectives.losses import batch_loss, probabilities, softmax
from nbfinetune.rendering.names import shortened, shown
from nbfinetune.runtime.interrupts import defers_interrupts
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training import loop
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.finite import check_finite
from nbfinetune.training.printing import shows
from nbfinetune.training.spmd.spread import spread
from nbfinetune.training.state import Callback, LearnerState, as_callbacks
from nbfinetune.training.steering import Steering

LABELS = "give them: dls.test_dl(files, labels)"
_BS = 64  # pictures, where a loader does not tell
_CHECKED = 32  # px at which pictures are only found readable


def validate(
    learn: LearnerState,
    ds: str | DataLoader = "valid",
    *,
    workers: int | None = None,
    cluster: str | None = None,
) -> list[float]:
    """The loss and each metric on a part of the data.

    Parameters
    ----------
    ds : "valid", "train" (as validation sees pictures), or a loader of (inputs, targets)
    workers, cluster : see `Learner.fit`
    """
    learn.check_idle()  # before it waits for random numbers that the run draws from
    loader = loader_of(learn, ds)
    if not is_labelled(loader):
        raise ValueError(f"these pictures have no labels; {LABELS}")
    check_finite(learn, "what it predicts")
    return _validated(learn, loader, workers=workers, cluster=cluster)


@spread
def _validated(learn: LearnerState, loader: DataLoader) -> list[float]:
    with seeded_rng(learn.seed):
        return loop.validate(learn, loader)[0]


@shows("infer")
def get_preds(
    learn: LearnerState,
    ds: str | DataLoader = "valid",
    *,
    dl: DataLoader | None = None,
    with_loss: bool = False,
    cbs: Sequence[Callback] = (),
    workers: int | None = None,
    cluster: str | None = None,
) -> Predictions:
    """Predictions for a part of the data, in its order.

    In a notebook a pass of more than a second shows how far it is, and has a button to stop it.

    Parameters
    ----------
    ds : as in `validate`
    dl : a loader in place of a part, such as `dls.test_dl(files)`, which needs no labels
    with_loss : whether the loss of each item is returned too
    cbs : see each batch
    workers, cluster : see `Learner.fit`
    show : False shows no progress

    Returns
    -------
    preds : probabilities, shape [n, c]; rows sum to 1 unless the loss is one of several labels, as
        nn.BCEWithLogitsLoss, or says otherwise by its attribute `activation`
    targets : class indices, shape [n], or labels, shape [n, c]; None if there are no labels
    losses : shape [n], if asked for

    They are a tuple that shows each file with its prediction, and has them as `to_df()`.

    Raises
    ------
    ValueError, RuntimeError
        For what is no loader, no data, or a loss without labels; if the pass is stopped.
    """
    learn.check_idle()  # before it waits for random numbers that the run draws from
    loader = loader_of(learn, ds, dl)
    labelled = is_labelled(loader)
    if with_loss and not labelled:
        raise ValueError("with_loss=True, but these pictures have no labels; leave it out")
    check_finite(learn, "what it predicts")
    by = {"workers": workers, "cluster": cluster}
    outputs, targets = _passed(learn, loader, as_callbacks(cbs), labelled, **by)
    preds = probabilities(outputs, learn.activation)
    parts = (preds, targets)
    if with_loss:
        each = item_losses(learn)
        parts += (each(outputs.to(learn.device), targets.to(learn.device)).cpu(),)
    pictures = pictures_of(loader)
    files = None if pictures is None else [pictures.path(i) for i in range(len(preds))]
    several = preds.shape[1] > 1 and learn.activation is not softmax
    unread = getattr(getattr(loader, "dataset", None), "unread", {})
    return Predictions.of(parts, learn.vocab, files, exclusive=not several, unread=unread)


@spread
def _passed(
    learn: LearnerState, loader: DataLoader, cbs: list[Callback], labelled: bool
) -> tuple[Tensor, Tensor | None]:
    """Outputs and targets of all items; of pictures without labels no loss is asked for."""
    in_run = learn.control.running  # such as that of a callback
    cbs = cbs if in_run else [Steering(), *cbs]
    try:
        with learn.control.claim(scales_rates=False), seeded_rng(learn.seed):
            if labelled:
                return loop.validate(learn, loader, cbs)[1:]
            outputs = [out.float().cpu() for out, _ in loop.predictions(learn, loader, cbs)]
            return torch.cat(outputs), None
    except CancelFit:
        if in_run:
            raise
        raise RuntimeError("stopped before all was predicted; nothing was changed") from None


Item = str | PathLike | Image.Image | np.ndarray | Tensor | bytes


@defers_interrupts
def predict(
    learn: LearnerState, item: Item | Sequence[Item], *, on_bad: str = "error"
) -> tuple[str, Tensor, Tensor] | PredictedItems:
    """The class of one picture, or of each in a list.

    Parameters
    ----------
    item : a file, a Pillow picture, an array [h, w, 3] or a tensor [3, h, w], of uint8 or of
        floats in [0, 1], red first, or the bytes of a file; or a list of these, which are
        predicted in batches
    on_bad : "error" refuses a list with pictures that cannot be read, naming them; "skip" warns of
        them, and gives (None, None, None) in their place

    Returns
    -------
    label : the name of the most probable class
    index : its number, a scalar
    probs : probabilities, shape [c]

    Of a list, a list of these in its order, which shows itself as a table and has `to_df()`.

    Raises
    ------
    ValueError
        If the file is missing or cannot be decoded, the item is no picture, or the learner is not
        one of pictures.
    """
    learn.check_idle()
    if learn.transforms is None:
        raise ValueError(
            "predict takes pictures; this learner has no transforms for them: give it some, "
            "transforms=..., or batches as its loaders give, learn.get_preds(dl=loader)"
        )
    check_choices(True, on_bad)
    if is_data_set(item):
        raise ValueError(
            "this is a data set; give learn.get_preds(dl=dls.test_dl(data)), or its pictures alone"
        )
    if _is_list(item):
        return _predict_list(learn, as_pictures(item), on_bad)
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


def _is_list(item: object) -> bool:
    """Whether these are several pictures; a batch in one array is refused as before."""
    if isinstance(item, (np.ndarray, Tensor)):
        return isinstance(item, np.ndarray) and item.dtype == object
    no_list = (str, PathLike, bytes, bytearray, memoryview, dict, Image.Image)
    is_open_file = hasattr(item, "read")
    return isinstance(item, Iterable) and not isinstance(item, no_list) and not is_open_file


def _predict_list(learn: LearnerState, listed: list, on_bad: str) -> PredictedItems:
    own = getattr(learn.transforms, "loader_of", None)  # as of `batch_of_picture`
    read = read_pictures(listed, presize(_CHECKED if own else learn.transforms.size), on_bad, [])
    bs = getattr(learn.dls, "bs", None) or _BS
    loader = even_loader(read, bs, shuffle=False)
    if own:
        loader = own([item for i, item in enumerate(listed) if i not in read.unread], bs)
    found = get_preds(learn, dl=loader)
    names = [str(item) if isinstance(item, Path) else f"item {i}" for i, item in enumerate(listed)]
    return PredictedItems.of(found, names, read.unread)


def _pixels_of(file: str | PathLike, side: int) -> np.ndarray:
    """As `read_pixels`, but a file that cannot be read is named."""
    check_no_url(file)
    try:
        return read_pixels(Path(file).expanduser(), side)
    except ValueError as error:
        how = "pass a picture file"
        if os.path.isdir(file):
            how = "of a folder, learn.get_preds(dl=dls.test_dl(folder)) predicts all pictures"
        raise ValueError(f"{shortened(file)}: {error}; {how}") from None


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


def loader_of(
    learn: LearnerState, ds: str | DataLoader, dl: DataLoader | None = None
) -> DataLoader:
    """The loader that `ds` names, in the order of its data set; `dl` in its place.

    Raises
    ------
    ValueError, RuntimeError
        For another name, or without data.
    """
    if dl is not None:
        if ds != "valid":
            raise ValueError("ds and dl are given; leave one of them out")
        ds = learn.dls.taken(dl) if hasattr(learn.dls, "taken") else dl
    if isinstance(ds, Path) or _are_pictures(ds):
        raise ValueError(
            "these are pictures, no loader of batches; give dls.test_dl(files), or use "
            "learn.predict(files)"
        )
    if not isinstance(ds, (str, Tensor)) and isinstance(ds, Iterable):
        return ds
    if not isinstance(ds, str) or ds not in ("train", "valid"):
        raise ValueError(
            f'ds is {shown(ds)}; it must be "valid", "train" or a DataLoader, such as '
            "dls.test_dl(files)"
        )
    if learn.dls is None:
        raise RuntimeError("this learner has no data; pass a DataLoader")
    if ds == "valid":
        return learn.dls.valid
    train = learn.dls.train
    if not hasattr(train, "dataset"):
        raise RuntimeError("the training loader has no data set to go through; pass a DataLoader")
    if hasattr(train, "as_validation"):  # a loader of others
        return train.as_validation()
    bs = getattr(learn.dls, "bs", None) or getattr(train, "batch_size", None) or _BS
    collate = getattr(train, "collate_fn", None)
    return even_loader(train.dataset, bs, shuffle=False, collate_fn=collate)


def _are_pictures(ds: object) -> bool:
    """Whether this is a list or column of files or pictures."""
    first = next(iter(ds), None) if isinstance(ds, (list, tuple)) or hasattr(ds, "iloc") else None
    return isinstance(first, (str, PathLike, Image.Image, bytes))


def is_labelled(loader: object) -> bool:
    """Whether the items of a loader have labels, as far as is known."""
    return getattr(getattr(loader, "dataset", None), "labelled", True)


def n_batches(learn: LearnerState, ds: str | DataLoader, dl: DataLoader | None) -> int:
    """How many batches a pass over parts goes through, 0 if that is not known."""
    try:
        parts = ("train", "valid") if ds == "all" else (ds,)  # of label_issues
        return sum(len(loader_of(learn, part, dl)) for part in parts)
    except (TypeError, ValueError, RuntimeError):
        return 0
