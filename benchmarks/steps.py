"""CPU time of training, per picture: body frozen, from cached features, and all layers.

    python benchmarks/steps.py [--size 128] [--rounds 5]

- Frozen, no cache: steps on one batch in memory, here against fastai's default (BatchNorm of the
  frozen body trains) and `train_bn=False`. Both have fastai's head.
- Frozen, cached features: whole epochs with a validation from the second on, against fastai's
  epochs on the batch in memory, as above.
- All layers: the training of whole epochs from the second on, pictures and augmentation included,
  against a bare loop on float batches in memory: AdamW, BatchNorm of the body fixed as here.

efficientnet_lite0 has its weights, resnet18 random ones; nothing is learnt here.
"""

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from statistics import median
from types import SimpleNamespace

import fastai_side
import torch
from conditions import conditions, in_turn, ratios, spread, table
from fastai.callback.core import Callback as FastaiCallback
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from nbfinetune import Callback, ImageDataLoaders, Learner, vision_learner
from nbfinetune.data.transforms import presize

BS, LR = 16, 1e-3
VOCAB = [f"class {k}" for k in range(37)]  # as many as the pets' breeds
ARCHS = {"lite0": "efficientnet_lite0", "resnet18": "resnet18"}
Batch = tuple[Tensor, Tensor]


class Clock(Callback):
    """CPU seconds of each epoch: of its training, and with its validation."""

    def __init__(self) -> None:
        self.training: list[float] = []
        self.whole: list[float] = []

    def before_epoch(self, learn: Learner) -> None:
        self.started = time.process_time()

    def after_batch(self, learn: Learner) -> None:
        if learn.training:
            self.trained = time.process_time()

    def after_epoch(self, learn: Learner) -> None:
        self.training.append(self.trained - self.started)
        self.whole.append(time.process_time() - self.started)


class FastaiClock(FastaiCallback):
    """The same for fastai."""

    def __init__(self) -> None:
        self.clock = Clock()

    def before_epoch(self) -> None:
        self.clock.before_epoch(self.learn)

    def after_batch(self) -> None:
        self.clock.after_batch(self.learn)

    def after_epoch(self) -> None:
        self.clock.after_epoch(self.learn)


def a_batch(size: int) -> Batch:
    return torch.randn(BS, 3, size, size), torch.arange(BS) % len(VOCAB)


def pictures(n: int, side: int) -> list[tuple[Tensor, int]]:
    """Drawn pictures in memory: blurred noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(256, (n, 3, 9, 9), dtype=torch.uint8, generator=generator)
    return [(F.resize(picture, [side, side]), i % len(VOCAB)) for i, picture in enumerate(coarse)]


def our_learner(dls: ImageDataLoaders | SimpleNamespace, arch: str, *, cache: bool) -> Learner:
    """A learner with fastai's head whose body is frozen, as a pretrained one."""
    weights = None if arch == "resnet18" else "DEFAULT"
    options = {"weights": weights, "head": "fastai", "train_bn": False, "cache_features": cache}
    learn = vision_learner(dls, ARCHS[arch], **options)
    learn.freeze_to(-1, quiet=True)
    return learn


def our_step(arch: str, batch: Batch, n: int) -> Callable[[], float]:
    size = batch[0].shape[-1]
    x = batch[0].contiguous(memory_format=torch.channels_last)  # as the transforms give it
    loaders = {"train": [(x, batch[1])] * n, "valid": [(x, batch[1])]}
    learn = our_learner(
        SimpleNamespace(**loaders, vocab=VOCAB, size=size, aug=False), arch, cache=False
    )
    learn.transforms = None

    def fit() -> float:
        clock = Clock()
        learn.fit(1, LR, cbs=[clock], show=False)
        return clock.training[0]

    return fit


def fastai_epoch(
    arch: str, batch: Batch, n: int, *, whole: bool = False, train_bn: bool = True
) -> Callable[[], float]:
    dls = fastai_side.in_memory(batch, n)
    options = {"n_out": len(VOCAB), "loss_func": nn.CrossEntropyLoss(), "normalize": False}
    make = fastai_side.lite0_learner if arch == "lite0" else fastai_side.resnet18_learner
    learn = make(dls, train_bn=train_bn, **options)

    def fit() -> float:
        clock = FastaiClock()
        with fastai_side.silent(learn):
            learn.fit(1, LR, cbs=[clock])
        return (clock.clock.whole if whole else clock.clock.training)[0]

    return fit


def our_cached_epoch(arch: str, size: int, n: int) -> Callable[[], float]:
    """n batches to train on and one for validation; the first epoch was before."""
    side = presize(size)
    dls = ImageDataLoaders.from_datasets(
        pictures(n * BS, side), pictures(BS, side), VOCAB, size=size, bs=BS
    )
    learn = our_learner(dls, arch, cache=True)
    learn.fit(1, LR, show=False)

    def fit() -> float:
        clock = Clock()
        learn.fit(1, LR, cbs=[clock], show=False)
        return clock.whole[0]

    return fit


def unfrozen(arch: str, size: int, n: int) -> dict[str, Callable[[], float]]:
    """Epochs of all layers, ours and bare, from the same weights and in the same precision."""
    side = presize(size)
    drawn = pictures(n * BS, side)
    dls = ImageDataLoaders.from_datasets(drawn, drawn[:BS], VOCAB, size=size, bs=BS)
    learn = our_learner(dls, arch, cache=False)
    learn.unfreeze()
    model = deepcopy(learn.model)
    opt, loss_func = torch.optim.AdamW(model.parameters(), LR), nn.CrossEntropyLoss()
    batches = [(learn.prepare(x, training=False), y) for x, y in dls.train]

    def ours() -> float:
        clock = Clock()
        learn.fit(1, LR, cbs=[clock], show=False)
        return clock.training[0]

    def bare() -> float:
        started = time.process_time()
        model.train()
        for module in model[0].modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        for x, y in batches:
            with learn.autocast():
                loss = loss_func(model(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
        return time.process_time() - started

    return {"bare": bare, "ours": ours}


def show(what: str, sides: dict[str, Callable[[], float]], rounds: int, n: int) -> list[tuple]:
    """A row for each side: ms a picture, and the ratio to the first side."""
    in_turn(sides, 1)  # first calls of everything
    values = in_turn(sides, rounds)
    first = next(iter(values))
    rows = []
    for name, times in values.items():
        ms = [1000 * t / (n * BS) for t in times]
        over = "" if name == first else spread(ratios(times, values[first]))
        rows.append((f"{what}: {name}", spread(ms, 3 if median(ms) < 1 else 1), over))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=8, help="in an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--archs", nargs="+", choices=ARCHS, default=list(ARCHS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(conditions("fastai", "timm"))
    print(vars(args))
    size, n, batch, rows = args.size, args.batches, a_batch(args.size), []
    for arch in args.archs:
        step = {
            "ours": our_step(arch, batch, n),
            "fastai": fastai_epoch(arch, batch, n),
            "fastai, train_bn=False": fastai_epoch(arch, batch, n, train_bn=False),
        }
        rows += show(f"{arch}, step of the frozen", step, args.rounds, n)
        epoch = {
            "ours, cached": our_cached_epoch(arch, size, n),
            "fastai": fastai_epoch(arch, batch, n, whole=True),
        }
        rows += show(f"{arch}, epoch of the frozen", epoch, args.rounds, n)
        rows += show(f"{arch}, epoch of all layers", unfrozen(arch, size, n), args.rounds, n)
    print(table(("", "ms a picture", "times the first"), rows))


if __name__ == "__main__":
    main()
