"""CPU seconds of `lr_find` with the body frozen, here and of fastai, on the pets photos.

    NBFINETUNE_PETS=folder python benchmarks/lr_find.py [--size 128] [--rounds 3]

The first call of a learner and later ones; "from files" is the first call with the making of the
loaders, where pictures are decoded here, and of the learner. fastai decodes in every call. Both
have the weights of efficientnet_lite0, batches of 16, 100 steps and stop when the loss diverges.
"""

import argparse
import time

import torch
from conditions import conditions, cpu_seconds, ratios, spread, table
from fastai.vision.all import set_seed
from fastai_side import lite0_learner, loaders, silent

from nbfinetune import ImageDataLoaders, samples, vision_learner

BS = 16


def data(args: argparse.Namespace, seed: int) -> ImageDataLoaders:
    options = {"valid_pct": 0.3, "seed": seed, "size": args.size, "bs": BS}
    return ImageDataLoaders.from_name_re(samples.pets(), None, r"(.+)_\d+", **options)


def ours(args: argparse.Namespace, seed: int, steps: set[int]) -> tuple[float, float, float]:
    """CPU seconds of the first call, of a later one, and from the files to the first's end."""
    started = time.process_time()
    learn = vision_learner(data(args, seed), "efficientnet_lite0", seed=seed)
    made = time.process_time() - started
    first, later = (
        cpu_seconds(lambda: steps.add(len(learn.lr_find(num_it=args.num_it, show=False).losses)))
        for _ in range(2)
    )
    return first, later, made + first


def fastai(args: argparse.Namespace, seed: int, steps: set[int]) -> tuple[float, float]:
    """CPU seconds of a call, and from the files to its end."""
    split = data(args, seed)
    set_seed(seed)
    started = time.process_time()
    learn = lite0_learner(loaders(split, bs=BS, presize=args.presize))
    made = time.process_time() - started
    with silent(learn):
        call = cpu_seconds(lambda: learn.lr_find(num_it=args.num_it, show_plot=False))
    steps.add(len(learn.recorder.lrs))
    return call, made + call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-it", type=int, default=100)
    parser.add_argument("--presize", type=int, help="px of fastai's item_tfms, such as 460")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(conditions("fastai", "timm"))
    print(vars(args))
    steps: tuple[set[int], set[int]] = set(), set()
    # A B A B, and every round has another split and other batches.
    rounds = [
        (*ours(args, seed, steps[0]), *fastai(args, seed, steps[1])) for seed in range(args.rounds)
    ]
    first, later, from_files, theirs, theirs_from_files = zip(*rounds, strict=True)
    rows = [
        ("fastai", spread(theirs), ""),
        ("fastai, from files", spread(theirs_from_files), ""),
        ("ours, first call", spread(first), spread(ratios(theirs, first), 1)),
        ("ours, from files", spread(from_files), spread(ratios(theirs_from_files, from_files), 1)),
        ("ours, later call", spread(later), spread(ratios(theirs, later), 1)),
    ]
    print(table(("lr_find, body frozen", "CPU s", "times faster"), rows))
    print(f"steps run: ours {sorted(steps[0])}, fastai {sorted(steps[1])}")


if __name__ == "__main__":
    main()
