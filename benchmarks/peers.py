"""Errors and CPU seconds of `fine_tune` here and of fastai on the 370 pets photos.

    NBFINETUNE_PETS=folder python benchmarks/peers.py [--size 224] [--seeds 0 1 2 3 4] ...

Sides: "ours", `fine_tune` with its defaults; "fastai", the recipe of its lectures (their
augmentation, batches of 16, 3 epochs frozen at 1e-2, 6 of all layers at slice(5e-5, 2e-3)); "best",
the best known of it on these photos (`train_bn=False` and BnFreeze, 30 epochs frozen). All have the
same weights and the same split, one thread and no worker. Reading files is in the seconds.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from conditions import conditions, ratios, spread, table
from fastai.vision.all import BnFreeze, set_seed
from fastai_side import lite0_learner, loaders, silent

from nbfinetune import ImageDataLoaders, samples, vision_learner
from nbfinetune.training.fine_tuning.stages import BASE_LR

BS = 16  # of fastai's sides
Row = tuple[float, float, float, float]  # error frozen, final, of the best epoch; CPU seconds


def data(args: argparse.Namespace, seed: int) -> ImageDataLoaders:
    return ImageDataLoaders.from_name_re(
        samples.pets(), None, r"(.+)_\d+", valid_pct=0.3, seed=seed, size=args.size
    )


def ours(args: argparse.Namespace, seed: int) -> Row:
    started = time.process_time()
    learn = vision_learner(data(args, seed), "efficientnet_lite0", seed=seed)
    base_lr = learn.lr_find().lr if args.lr_find else args.base_lr
    result = learn.fine_tune(args.epochs, base_lr)
    seconds = time.process_time() - started
    errors = [row["error_rate"] for row in result.rows]
    frozen = errors[len(result.stages[0].rows) - 1]
    return frozen, learn.validate()[1], min(errors), seconds


def fastai(args: argparse.Namespace, seed: int, *, best: bool = False) -> Row:
    split = data(args, seed)  # not in the seconds
    set_seed(seed)
    started = time.process_time()
    learn = lite0_learner(
        loaders(split, bs=BS, presize=args.presize),
        channels_last=args.channels_last,
        train_bn=not best,
        cbs=[BnFreeze()] if best else [],
    )
    stages = []
    with silent(learn):
        learn.fit_one_cycle(args.best_epochs if best else args.freeze_epochs, 1e-2)
        stages.append([row[-1] for row in learn.recorder.values])
        if not best:
            learn.unfreeze()
            learn.fit_one_cycle(args.fastai_epochs, slice(5e-5, 2e-3))
            stages.append([row[-1] for row in learn.recorder.values])
    seconds = time.process_time() - started
    return stages[0][-1], stages[-1][-1], min(min(stage) for stage in stages), seconds


SIDES: dict[str, Callable[[argparse.Namespace, int], Row]] = {
    "ours": ours,
    "fastai": fastai,
    "best": lambda args, seed: fastai(args, seed, best=True),
}


def cells(row: Sequence[float]) -> list[str]:
    return [*(f"{error:.3f}" for error in row[:3]), f"{row[3]:.1f}"]


def times(rows: dict[str, list[Row]], side: str) -> str:
    """How many times the CPU time of ours a side takes, seed by seed."""
    values = ratios([row[3] for row in rows[side]], [row[3] for row in rows["ours"]])
    return f"{side} takes {spread(values, 1)} times the CPU seconds of ours"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["ours", "fastai"])
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=1, help="of fine_tune here")
    parser.add_argument("--base-lr", type=float, default=BASE_LR, help="of fine_tune here")
    parser.add_argument("--lr-find", action="store_true", help="search that rate first")
    parser.add_argument("--freeze-epochs", type=int, default=3, help="of fastai")
    parser.add_argument("--fastai-epochs", type=int, default=6, help="of fastai, all layers")
    parser.add_argument("--best-epochs", type=int, default=30, help="of fastai at its best")
    parser.add_argument("--presize", type=int, help="px of fastai's item_tfms, such as 460")
    parser.add_argument("--channels-last", action="store_true", help="fastai too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(conditions("fastai", "timm"))
    print(vars(args))
    lines, rows = [], {side: [] for side in args.sides}
    for seed in args.seeds:
        for side in args.sides:
            rows[side].append(SIDES[side](args, seed))
            lines.append((side, str(seed), *cells(rows[side][-1])))
            print(*lines[-1], flush=True)
    for side in args.sides:
        lines.append((side, "median", *cells([median(c) for c in zip(*rows[side], strict=True)])))
    print(table(("side", "seed", "error frozen", "final", "best epoch", "CPU s"), lines))
    for side in args.sides if "ours" in args.sides else ():
        if side != "ours":
            print(times(rows, side))


if __name__ == "__main__":
    main()
