"""Milliseconds of a picture, from its JPEG and from the kept squares, to the network's batch.

    NBFINETUNE_PETS=folder python benchmarks/loader.py [--sizes 224 128] [--files 128] [--rounds 7]

One thread, CPU time, batches of 64. Rows of fastai 2.8.12 appear where it is installed: "crop" is
a random crop alone (RandomResizedCrop; here with mirror images), "default" what each does by itself
(here crop, mirror image and lighting; there also rotation and warp). fastai decodes in every epoch,
so its rows are to be compared with both of ours: the first epoch and each later one.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from nbfinetune import ImageDataLoaders, get_image_files, samples
from nbfinetune.data.augmentation import changed, draw_changes, normalized
from nbfinetune.data.image_cache import allocate_cache, store
from nbfinetune.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageTransforms,
    presize,
    to_square,
)
from nbfinetune.images.decoding import read_pixels

try:
    from fastai.vision import all as fastai
except ImportError:
    fastai = None

BS = 64


def ours(files: list[Path], size: int) -> dict[str, Callable[[], int]]:
    """Passes over all files; each gives the number of pictures that came out."""
    side, labels = presize(size), [file.stem.rsplit("_", 1)[0] for file in files]
    dls = ImageDataLoaders.from_lists(
        files[0].parent, files, labels, is_valid=[False] * (len(files) - 1) + [True], size=size
    )

    def crop(x: Tensor) -> Tensor:
        pixels = changed(x, draw_changes(len(x), side, side), size)
        return normalized(pixels, IMAGENET_MEAN, IMAGENET_STD)

    def first_epoch(train: Callable[[Tensor], Tensor]) -> int:
        for part in range(0, len(files), BS):
            squares = allocate_cache(len(files[part : part + BS]), side)
            for file, place in zip(files[part : part + BS], squares, strict=True):
                store(to_square(read_pixels(file, side), side), place)
            train(squares.permute(0, 3, 1, 2))
        return len(files)

    def later_epoch(train: Callable[[Tensor], Tensor]) -> int:
        return sum(len(train(x)) for x, _ in dls.train)

    tasks = {}
    for name, train in (("crop", crop), ("default", ImageTransforms(size).train)):
        tasks[f"here, {name}, from JPEG"] = partial(first_epoch, train)
        tasks[f"here, {name}, from squares"] = partial(later_epoch, train)
    return tasks


def theirs(files: list[Path], size: int) -> dict[str, Callable[[], int]]:
    """The same of fastai, without processes and without its dropping of the last batch."""
    normalize = fastai.Normalize.from_stats(*fastai.imagenet_stats, cuda=False)
    recipes = {
        "crop": (fastai.RandomResizedCrop(size, min_scale=0.5), [normalize]),
        "default": (fastai.Resize(size), [*fastai.aug_transforms(), normalize]),
    }
    tasks = {}
    for name, (item_tfms, batch_tfms) in recipes.items():
        dls = fastai.ImageDataLoaders.from_name_func(
            files[0].parent, files, lambda name: name.rsplit("_", 1)[0], valid_pct=0.01, seed=0,
            bs=BS, num_workers=0, item_tfms=item_tfms, batch_tfms=batch_tfms, device="cpu",
        )  # fmt: skip
        loader = dls.train.new(drop_last=False)
        tasks[f"fastai, {name}, from JPEG"] = lambda t=loader: sum(len(x) for x, _ in t)
    return tasks


def ms_a_picture(task: Callable[[], int]) -> float:
    started = time.process_time()
    n = task()
    return 1000 * (time.process_time() - started) / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 128])
    parser.add_argument("--files", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # deprecations of the libraries
    files = get_image_files(samples.pets())
    files = files[:: max(1, len(files) // args.files)][: args.files]
    print(f"{len(files)} files of {sum(f.stat().st_size for f in files) / len(files) / 1e3:.0f} kB")
    for size in args.sizes:
        tasks = ours(files, size) | (theirs(files, size) if fastai else {})
        times = {name: [] for name in tasks}
        for _ in range(args.rounds):  # by turns, so that what else the machine does hits all alike
            for name, task in tasks.items():
                times[name].append(ms_a_picture(task))
        print(f"\n{size} px: ms a picture, median (range)")
        for name, ms in times.items():
            print(f"{name:<30} {median(ms):6.2f} ({min(ms):.2f} to {max(ms):.2f})")
        for name in ("crop", "default") if fastai else ():
            theirs_ms = times[f"fastai, {name}, from JPEG"]
            for source in ("JPEG", "squares"):
                ours_ms = times[f"here, {name}, from {source}"]
                ratios = [t / o for t, o in zip(theirs_ms, ours_ms, strict=True)]
                spread = f"({min(ratios):.1f} to {max(ratios):.1f})"
                print(f"fastai over here, {name}, from {source}: {median(ratios):.1f} {spread}")


if __name__ == "__main__":
    main()
