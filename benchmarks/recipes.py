"""Errors and CPU seconds of `fine_tune` and of other recipes, on test pictures no choice saw.

    NBFINETUNE_PETS=folder python benchmarks/recipes.py --cifar10 FOLDER --omniglot FOLDER
        [--sets pets128 pets224 cifar omniglot shapes] [--seeds 0 1 2] [--epochs 2] ...

FOLDER of CIFAR-10 has train and test, each with a folder a class; that of Omniglot has a folder a
character. Sides, all with the weights of `efficientnet_lite0`, the same pictures and one thread:

logistic : scikit-learn's logistic regression on the frozen features, C by cross-validation
plain : a loop in torch over all layers: 5 epochs in batches of 32, AdamW at 3e-4 (body) and 3e-3
    (head), warm-up and cosine, RandomResizedCrop and mirror image, BatchNorm statistics fixed
fastai : its `fine_tune(3)` with its defaults
ours : `fine_tune` with its defaults, and `head`, what its first stage ends with
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from conditions import conditions, table
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.transforms import v2

from nbfinetune import Callback, ImageDataLoaders, Learner, samples, vision_learner
from nbfinetune.data.datasets import even_loader

ARCH = "efficientnet_lite0"
SIZES = {"pets128": 128, "pets224": 224, "cifar": 64, "omniglot": 64, "shapes": 96}
_WRONG = 0.1  # of the labels of the shapes to train on
Files = list[tuple[Path, str]]


def files_of(folder: Path) -> dict[str, list[Path]]:
    return {f.name: sorted(f.iterdir()) for f in sorted(folder.iterdir()) if f.is_dir()}


def parted(classes: dict[str, list[Path]], n: int, seed: int) -> tuple[Files, Files]:
    """`n` of each class to train and hold out, the others to test."""
    known, test = [], []
    for name, files in classes.items():
        files = random.Random(f"{seed}{name}").sample(files, len(files))
        known += [(file, name) for file in files[:n]]
        test += [(file, name) for file in files[n:]]
    return known, test


def pictures(name: str, args: argparse.Namespace, seed: int) -> tuple[Files, Files]:
    """The pictures to train and hold out, and those to test, with their labels."""
    if name.startswith("pets"):
        classes: dict[str, list[Path]] = {}
        for file in sorted(samples.pets().rglob("*.jpg")):
            classes.setdefault(file.stem.rpartition("_")[0], []).append(file)
        return parted(classes, 7, seed)
    if name == "omniglot":
        return parted(files_of(args.omniglot), 8, seed)
    if name == "cifar":
        parts = (files_of(args.cifar10 / part) for part in ("train", "test"))
        return tuple([(f, name) for name, files in p.items() for f in files] for p in parts)
    known, test = (
        samples.draw_shapes(n=n, size=128, wrong=wrong, seed=10 * seed + k)
        for k, (n, wrong) in enumerate(((40, _WRONG), (60, 0.0)))
    )
    return tuple(
        [(f, name) for name, files in files_of(p).items() for f in files] for p in (known, test)
    )


def loaders(known: Files, size: int, seed: int) -> ImageDataLoaders:
    files, labels = zip(*known, strict=True)
    return ImageDataLoaders.from_lists(".", files, labels, seed=seed, size=size)


class Task:
    """A set of one seed: what the sides train on, and how their errors are counted."""

    def __init__(self, name: str, args: argparse.Namespace, seed: int) -> None:
        self.known, test = pictures(name, args, seed)
        self.size, self.seed, self.args = SIZES[name], seed, args
        files, labels = zip(*test, *self.known, strict=True)
        n = len(test)
        both = ImageDataLoaders.from_lists(
            ".", files, labels, is_valid=[i < n for i in range(len(files))], size=self.size
        )
        self.test, self.vocab = both.valid, both.vocab
        self.targets = torch.tensor(self.test.dataset.targets)

    def learner(self) -> Learner:
        dls = loaders(self.known, self.size, self.seed)
        return vision_learner(dls, ARCH, seed=self.seed, device="cpu")

    def wrong(self, predicted: Tensor) -> np.ndarray:
        return (predicted != self.targets).numpy()


def ours(task: Task) -> dict[str, tuple[np.ndarray, float]]:
    class Head(Callback):
        """What the first stage ends with."""

        def after_fit(self, learn: Learner) -> None:
            if learn.frozen:
                pause = time.process_time()
                self.weights = {k: v.clone() for k, v in learn.model.state_dict().items()}
                self.at = pause - started
                self.waited = time.process_time() - pause

    started, head = time.process_time(), Head()
    learn = task.learner()
    with learn.quiet():
        learn.fine_tune(task.args.epochs, cbs=head)
    seconds = time.process_time() - started - head.waited
    wrong = task.wrong(learn.get_preds(task.test)[0].argmax(1))
    learn.model.load_state_dict(head.weights)
    learn.features.drop()
    of_head = task.wrong(learn.get_preds(task.test)[0].argmax(1))
    return {"ours": (wrong, seconds), "head": (of_head, head.at)}


def logistic(task: Task) -> dict[str, tuple[np.ndarray, float]]:
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    started = time.process_time()
    learn = task.learner()
    body = learn.model[0] if len(learn.model) == 2 else learn.model[:-1]

    def features(loader: object) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            parts = [(body(learn.prepare(x, training=False)), y) for x, y in loader]
        return tuple(torch.cat(p).float().numpy() for p in zip(*parts, strict=True))

    x, y = features(even_loader(learn.dls.train.dataset, 64, shuffle=False))
    search = LogisticRegressionCV(
        Cs=np.logspace(-4, 0, 5),
        cv=3,
        scoring="neg_log_loss",
        max_iter=200,
        use_legacy_attributes=False,
    )
    model = make_pipeline(StandardScaler(), search).fit(x, y)
    seconds = time.process_time() - started
    return {"logistic": (task.wrong(torch.tensor(model.predict(features(task.test)[0]))), seconds)}


def plain(task: Task) -> dict[str, tuple[np.ndarray, float]]:
    started = time.process_time()
    learn = task.learner()
    data, model = learn.dls.train.dataset, learn.model.requires_grad_(True).eval()
    body, head = [*model[:-1].parameters()], [*model[-1].parameters()]
    torch.manual_seed(task.seed)
    opt = torch.optim.AdamW(
        [{"params": body, "lr": 3e-4}, {"params": head, "lr": 3e-3}], fused=True
    )
    loader, epochs = even_loader(data, 32, shuffle=True), 5
    sched = OneCycleLR(opt, [3e-4, 3e-3], total_steps=epochs * len(loader), pct_start=0.1)
    crop = v2.Compose([v2.RandomResizedCrop(task.size, antialias=True), v2.RandomHorizontalFlip()])
    for _ in range(epochs):
        for x, y in loader:
            x = torch.stack([crop(picture) for picture in x])
            loss = F.cross_entropy(model(_normal(learn, x)), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            sched.step()
    seconds = time.process_time() - started
    return {"plain": (task.wrong(learn.get_preds(task.test)[0].argmax(1)), seconds)}


def _normal(learn: Learner, x: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (learn.transforms.mean, learn.transforms.std)
    )
    return ((x / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def fastai(task: Task) -> dict[str, tuple[np.ndarray, float]]:
    from fastai.vision.all import set_seed
    from fastai_side import lite0_learner, silent
    from fastai_side import loaders as fastai_loaders

    split = loaders(task.known, task.size, task.seed)  # not in the seconds
    set_seed(task.seed)
    started = time.process_time()
    learn = lite0_learner(fastai_loaders(split, bs=64))
    with silent(learn):
        learn.fine_tune(3)
    seconds = time.process_time() - started
    files = [task.test.dataset.path(i) for i in range(len(task.test.dataset))]
    with silent(learn):
        preds, _ = learn.get_preds(dl=learn.dls.test_dl(files))
    return {"fastai": (task.wrong(preds.argmax(1)), seconds)}


SIDES: dict[str, Callable[[Task], dict]] = {
    "logistic": logistic,
    "plain": plain,
    "fastai": fastai,
    "ours": ours,
}


def report(name: str, found: dict[str, list[tuple[np.ndarray, float]]]) -> list[Sequence[str]]:
    """A row for each side: errors and seconds, and how much better ours is."""
    rows = []
    for side, results in found.items():
        errors, seconds = [w.mean() for w, _ in results], [s for _, s in results]
        cells = [f"{name} {side}", f"{mean(errors):.3f}", " ".join(f"{e:.3f}" for e in errors)]
        cells += [f"{mean(seconds):.1f}", "", ""]
        if side not in ("ours", "head") and "ours" in found:
            pairs = zip(results, found["ours"], strict=True)
            apart = np.concatenate([theirs[0] - mine[0].astype(float) for theirs, mine in pairs])
            chance = apart.std(ddof=1) / sqrt(len(apart))
            cells[4] = f"{apart.mean():+.3f} +- {chance:.3f}"
            cells[5] = f"{mean(s for _, s in found['ours']) / mean(seconds):.2f}"
        rows.append(cells)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=Path, help="folder with train and test")
    parser.add_argument("--omniglot", type=Path, help="folder with a folder a character")
    parser.add_argument("--sets", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=[*SIDES])
    parser.add_argument("--seeds", type=int, nargs="+", default=range(3))
    parser.add_argument("--epochs", type=int, default=2, help="of fine_tune here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(conditions("scikit-learn"))
    print(vars(args))
    lines = []
    for name in args.sets:
        found: dict[str, list] = {}
        for seed in args.seeds:
            task = Task(name, args, seed)
            for side in args.sides:
                for part, result in SIDES[side](task).items():
                    found.setdefault(part, []).append(result)
                    print(name, part, seed, f"{result[0].mean():.3f} {result[1]:.1f} s", flush=True)
        lines += report(name, found)
    print(
        table(
            ("set and side", "error", "by seed", "CPU s", "above ours", "CPU of ours to it"), lines
        )
    )


if __name__ == "__main__":
    main()
