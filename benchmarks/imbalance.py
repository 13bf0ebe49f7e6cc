"""What helps where some classes have few pictures: weights, logit adjustment, a balanced sampler.

    python benchmarks/imbalance.py [--sets cifar shapes cats breeds] [--ratios 15] [--head]
        [--sides logit_adjustment class_weights sampler]

Sets: CIFAR-10 in `--cifar` (folders train and test of class folders), 64 px, class counts falling
from 150 to 150 / ratio, test pictures of their own; drawn shapes, 64 px, from 80 to 80 / ratio;
pets (`NBFINETUNE_PETS`) as cats against dogs, 128 px, with ratio times as many dogs, and as breeds,
96 px, a third of them with 2 photos in place of 7, 3 photos of each for the test. Which classes are
rare, and which pictures, depends on the seed. Each side trains with `fine_tune(1)`, or with
`--head` as its first stage does; "post hoc" is the plain network, its probabilities divided by the
shares of the classes in training. "error" is that where classes are as common as in training,
"balanced" the mean over classes, both on the test pictures, which no choice has seen.
"""

import argparse
import os
import random
import tempfile
import warnings
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from statistics import mean

import torch
from conditions import conditions, table
from torch import Tensor
from torch.utils.data import DataLoader, WeightedRandomSampler

from nbfinetune import ImageDataLoaders, samples, vision_learner
from nbfinetune.data.numbers import class_counts

Items = list[tuple[Path, str]]  # files and their classes

HEAD_STEPS, HEAD_RATE = 100, 2e-3  # of the first stage of fine_tune
SIDES = {
    "plain": {},  # which the others are compared with
    "logit_adjustment": {"logit_adjustment": True},
    "class_weights": {"class_weights": "balanced"},
    "sampler": {},
}


def by_class(files: Sequence[Path], label: Callable[[Path], str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in sorted(files):
        found.setdefault(label(file), []).append(file)
    return found


def flat(classes: dict[str, list[Path]]) -> Items:
    return [(file, name) for name, files in classes.items() for file in files]


def long_tail(classes: dict[str, list[Path]], most: int, ratio: float, seed: int) -> Items:
    """Counts that fall from `most` by the same factor from class to class, in random order."""
    rng, kept = random.Random(seed), {}
    names = rng.sample(list(classes), len(classes))
    for k, name in enumerate(names):
        n = round(most * ratio ** (-k / (len(names) - 1)))
        kept[name] = rng.sample(classes[name], n)
    return flat(kept)


def cifar(args: argparse.Namespace, seed: int, ratio: float) -> tuple[Items, Items, int]:
    parts = [by_class([*(args.cifar / p).rglob("*.jpg")], lambda f: f.parent.name)
             for p in ("train", "test")]  # fmt: skip
    return long_tail(parts[0], 150, ratio, seed), flat(parts[1]), 64


def shapes(args: argparse.Namespace, seed: int, ratio: float) -> tuple[Items, Items, int]:
    parts = []
    for part, n in enumerate((80, 40)):
        how = {"n": n, "size": 64, "wrong": 0, "seed": seed + 1000 * part}
        path = samples.draw_shapes(args.folder / f"shapes-{seed}-{part}", **how)
        parts.append(by_class([*path.rglob("*.png")], lambda f: f.parent.name))
    return long_tail(parts[0], 80, ratio, seed), flat(parts[1]), 64


def pets(seed: int) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Breeds of 7 photos to train on and of 3 for the test."""
    files = [*Path(os.environ["NBFINETUNE_PETS"]).rglob("*.jpg")]
    breeds, rng = by_class(files, lambda f: f.name.rsplit("_", 1)[0]), random.Random(seed)
    mixed = {name: rng.sample(found, len(found)) for name, found in breeds.items()}
    return {k: v[3:] for k, v in mixed.items()}, {k: v[:3] for k, v in mixed.items()}


def cats(args: argparse.Namespace, seed: int, ratio: float) -> tuple[Items, Items, int]:
    def kinds(part: dict[str, list[Path]]) -> dict[str, list[Path]]:
        files = [file for files in part.values() for file in files]  # cats have capitals
        return by_class(files, lambda f: "cat" if f.name[0].isupper() else "dog")

    train, test = (kinds(part) for part in pets(seed))
    train["cat"] = random.Random(seed).sample(train["cat"], round(len(train["dog"]) / ratio))
    return flat(train), flat(test), 128


def breeds(args: argparse.Namespace, seed: int, ratio: float) -> tuple[Items, Items, int]:
    train, test = pets(seed)
    for name in random.Random(seed).sample(list(train), len(train) // 3):
        train[name] = train[name][:2]
    return flat(train), flat(test), 96


SETS = {"cifar": cifar, "shapes": shapes, "cats": cats, "breeds": breeds}


def loaders(train: Items, test: Items, size: int, seed: int) -> tuple[ImageDataLoaders, DataLoader]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dls = ImageDataLoaders.from_lists("/", *zip(*train, strict=True), size=size, seed=seed)
        held = [False] * len(train) + [True] * len(test)
        both = zip(*train, *test, strict=True)
        return dls, ImageDataLoaders.from_lists("/", *both, is_valid=held, size=size).valid


def log_shares(dls: ImageDataLoaders) -> Tensor:
    counts = torch.tensor(class_counts(dls.train.dataset.targets, dls.c), dtype=torch.float32)
    return (counts / counts.sum()).log()


def balanced_sampler(dls: ImageDataLoaders) -> DataLoader:
    data = dls.train.dataset
    weights = (-log_shares(dls)).exp()[torch.tensor(data.targets)]
    return DataLoader(data, dls.bs, sampler=WeightedRandomSampler(weights.tolist(), len(data)))


def outputs(args: argparse.Namespace, side: str, made: tuple, seed: int) -> tuple[Tensor, Tensor]:
    """Logarithms of the probabilities that a side gives the test pictures, and their targets."""
    dls, test = made
    learn = vision_learner(dls, "efficientnet_lite0", seed=seed, **SIDES[side])
    usual = dls.train
    dls.train = balanced_sampler(dls) if side == "sampler" else usual
    with learn.quiet():
        if args.head:
            n_epoch = ceil(HEAD_STEPS / len(dls.train))
            learn.fit_one_cycle(n_epoch, HEAD_RATE, pct_start=0.99)
        else:
            learn.fine_tune(1)
    dls.train = usual
    preds, targets = learn.get_preds(test)
    return preds.log(), targets


def errors(preds: Tensor, targets: Tensor, shares: Tensor) -> tuple[float, float]:
    wrong = (preds.argmax(1) != targets).float()
    each = torch.stack([wrong[targets == t].mean() for t in range(len(shares))])
    return (each * shares).sum().item(), each.mean().item()


def run(args: argparse.Namespace, name: str, ratio: float, seed: int) -> dict[str, tuple]:
    made = loaders(*SETS[name](args, seed, ratio), seed)
    log_prior = log_shares(made[0])
    found = {side: outputs(args, side, made, seed) for side in ("plain", *args.sides)}
    preds, targets = found["plain"]
    found["post hoc"] = preds - log_prior, targets
    return {side: errors(*of_side, log_prior.exp()) for side, of_side in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--ratios", type=float, nargs="+", default=[15])
    parser.add_argument("--seeds", type=int, nargs="+", default=range(3))
    parser.add_argument("--sides", nargs="+", choices=[*SIDES][1:], default=[*SIDES][1:])
    parser.add_argument("--cifar", type=Path, default=Path("cifar10"))
    parser.add_argument("--head", action="store_true", help="train the head alone")
    args = parser.parse_args()
    print(conditions(), vars(args), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        for name in args.sets:
            for ratio in args.ratios if name != "breeds" else [3.5]:
                found = [run(args, name, ratio, seed) for seed in args.seeds]
                rows = []
                for side in found[0]:
                    means = [mean(f[side][k] for f in found) for k in (0, 1)]
                    gains = [f[side][1] - f["plain"][1] for f in found]
                    cells = [f"{value:.3f}" for value in means]
                    rows.append((side, *cells, f"{min(gains):+.3f} to {max(gains):+.3f}"))
                print(f"\n{name}, ratio {ratio:g}")
                heads = ("side", "error", "balanced", "balanced against plain")
                print(table(heads, rows), flush=True)


if __name__ == "__main__":
    main()
