"""Error and CPU seconds of `fine_tune` on the 370 pets photos (7 train, 3 valid per breed).

    NBFINETUNE_PETS=folder python benchmarks/pets.py [--seeds 0 1 2 3 4] [--size 224] ...

`--recipe fastai` runs fastai's: its head, one frozen epoch, moving BatchNorm statistics, the last
weights kept.
"""

import argparse
import time
from statistics import median

from nbfinetune import ImageDataLoaders, samples, vision_learner

RECIPES = {
    "default": ({}, {}),
    "fastai": ({"head": "fastai", "train_bn": True}, {"freeze_epochs": 1, "keep_best": False}),
}


def run(args: argparse.Namespace, seed: int) -> tuple[float, ...]:
    """Errors after the frozen stage, after the last epoch and of the weights kept; CPU seconds."""
    learner, fit = RECIPES[args.recipe]
    learner = learner | ({"head": args.head} if args.head else {})
    fit = fit | ({"freeze_epochs": args.freeze_epochs} if args.freeze_epochs else {})
    started = time.process_time()
    dls = ImageDataLoaders.from_name_re(
        samples.pets(), None, r"(.+)_\d+", valid_pct=0.3, seed=seed, size=args.size
    )
    learn = vision_learner(dls, args.arch, seed=seed, **learner)
    result = learn.fine_tune(args.epochs, args.base_lr, **fit)
    seconds = time.process_time() - started
    frozen, full = (stage.rows[-1]["error_rate"] for stage in result.stages)
    return frozen, full, learn.validate()[1], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--base-lr", type=float, default=2e-3)
    parser.add_argument("--freeze-epochs", type=int)
    parser.add_argument("--head", choices=("linear", "fastai"))
    parser.add_argument("--recipe", choices=RECIPES, default="default")
    args = parser.parse_args()
    print(vars(args))
    names = ("error frozen", "error last", "error kept", "CPU s")
    print("seed   " + "  ".join(f"{name:>12}" for name in names))
    rows = []
    for seed in args.seeds:
        rows.append(run(args, seed))
        print(f"{seed:<7}" + "  ".join(f"{value:>12.3f}" for value in rows[-1]), flush=True)
    medians = [median(column) for column in zip(*rows, strict=True)]
    print("median " + "  ".join(f"{value:>12.3f}" for value in medians))


if __name__ == "__main__":
    main()
