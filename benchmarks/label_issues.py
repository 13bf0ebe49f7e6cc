"""Wrong labels found: average precision beside cleanlab's filter and plain loss.

    NBFINETUNE_PETS=folder python benchmarks/label_issues.py [--cifar10 folder] [--kind pair] ...

For each set, share and seed, labels that are known to be right are made wrong, and a network is
fine-tuned on them. Orders of all its pictures are compared: that of `label_issues`; those that
cleanlab's default filter marks first, by self-confidence, then the others, from the same
probabilities and from those of scikit-learn's logistic regression (its cross_val_predict, as
cleanlab's tutorials do); cleanlab's ranking by the latter; and the loss of the network. Marked are
the first of each, as many as `label_issues`, the filters, and for the loss `label_issues` again
say. CPU seconds do not include fine-tuning, which all but the loss can do without.

    python benchmarks/label_issues.py --correct [--rates 0.1] [--epochs 6] [--seeds 0 1 2]

What correcting is worth, on drawn shapes: a person looks at the first pictures of the ranking,
twice as many as are wrong, and corrects those that are; the network is trained again. Both errors
are those on pictures drawn anew whose labels are all right.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from conditions import conditions, table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nbfinetune import (
    ClassificationInterpretation,
    Corrections,
    ImageDataLoaders,
    Learner,
    samples,
    vision_learner,
)
from nbfinetune.interpretation.label_issues import _features, _out_of_fold, label_issues
from nbfinetune.interpretation.prediction import loader_of

SIZES = {"pets": 128, "cifar10": 64, "shapes": 96}  # px


def right_labels(name: str, cifar10: Path, seed: int, folder: Path) -> tuple[list[Path], list[str]]:
    """Files and their labels, all of them right."""
    if name == "pets":
        files = sorted(samples.pets().rglob("*.jpg"))
        return files, [file.stem.rpartition("_")[0] for file in files]
    path = cifar10 if name == "cifar10" else samples.draw_shapes(folder, wrong=0, seed=seed)
    files = sorted(file for file in path.rglob("*.*") if file.suffix in (".jpg", ".png"))
    return files, [file.parent.name for file in files]


def made_wrong(labels: Sequence[str], rate: float, kind: str, seed: int) -> list[str]:
    """The labels, a share of them of any other class, or always of the next one ("pair")."""
    rng = random.Random(seed)
    vocab = sorted(set(labels))
    given = list(labels)
    for i in rng.sample(range(len(labels)), round(rate * len(labels))):
        step = 1 if kind == "pair" else rng.randrange(1, len(vocab))
        given[i] = vocab[(vocab.index(labels[i]) + step) % len(vocab)]
    return given


def filtered(probs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, int]:
    """Scores that put what cleanlab's default filter marks before the others; how many it marks."""
    marked = find_label_issues(targets, probs, n_jobs=1)
    return marked + 1 - probs[np.arange(len(targets)), targets], int(marked.sum())


def sides(learn: Learner) -> dict[str, tuple[np.ndarray, int, float]]:
    """For each order a score of each item, large if wrong, how many to mark, and CPU seconds."""
    parts = [loader_of(learn, part) for part in ("train", "valid")]

    def ours() -> tuple[np.ndarray, int]:
        found = label_issues(learn)
        return -np.argsort(found.ranking), found.n_marked

    def filter_of_ours() -> tuple[np.ndarray, int]:
        features, targets = _features(learn, parts, [])
        probs = _out_of_fold(features, targets, len(learn.vocab), learn.seed)
        return filtered(probs.numpy().astype(float), targets.numpy())

    def of_sklearn() -> tuple[np.ndarray, np.ndarray]:
        features, targets = (values.numpy() for values in _features(learn, parts, []))
        head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        # Files are in the order of their right classes: unshuffled folds would know these.
        folds = StratifiedKFold(5, shuffle=True, random_state=learn.seed)
        probs = cross_val_predict(head, features, targets, cv=folds, method="predict_proba")
        return probs, targets

    def filter_of_sklearn() -> tuple[np.ndarray, int]:
        return filtered(*of_sklearn())

    def ranking_of_sklearn() -> tuple[np.ndarray, int]:
        probs, targets = of_sklearn()
        return -get_label_quality_scores(targets, probs), filtered(probs, targets)[1]

    def loss() -> tuple[np.ndarray, int]:
        both = [ClassificationInterpretation.from_learner(learn, ds) for ds in ("train", "valid")]
        return torch.cat([interp.losses for interp in both]).numpy(), 0

    results = {}
    for name, side in {
        "ours": ours,
        "cleanlab's filter of ours": filter_of_ours,
        "cleanlab's filter, sklearn": filter_of_sklearn,
        "cleanlab's ranking, sklearn": ranking_of_sklearn,
        "plain loss": loss,
    }.items():
        started = time.process_time()
        scores, n_marked = side()
        seconds = time.process_time() - started
        results[name] = scores, n_marked or results["ours"][1], seconds
    return results


def measure(scores: np.ndarray, n_marked: int, wrong: np.ndarray) -> tuple[float, ...]:
    """Average precision, precision at the number wrong, recall and share of the marked."""
    order = np.argsort(-scores, kind="stable")
    n = wrong.sum()
    found = wrong[order[:n_marked]].sum() / n
    ap = average_precision_score(wrong, scores)
    return float(ap), wrong[order[:n]].mean(), found, n_marked / len(wrong)


def find(args: argparse.Namespace, name: str, rate: float) -> list[list[str]]:
    """A row for each order, means over the seeds."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            files, labels = right_labels(name, args.cifar10, seed, Path(folder) / "shapes")
            given = made_wrong(labels, rate, args.kind, seed)
            is_wrong = {f: a != b for f, a, b in zip(files, labels, given, strict=True)}
            dls = ImageDataLoaders.from_lists("/", files, given, size=SIZES[name], seed=seed)
            learn = vision_learner(dls, "efficientnet_lite0", seed=seed)
            learn.fine_tune(1, show=False)
            data = [loader_of(learn, part).dataset for part in ("train", "valid")]
            wrong = np.array([is_wrong[part.path(i)] for part in data for i in range(len(part))])
            for side, (scores, n_marked, seconds) in sides(learn).items():
                rows.setdefault(side, []).append((*measure(scores, n_marked, wrong), seconds))
    means = {side: map(mean, zip(*values, strict=True)) for side, values in rows.items()}
    return [
        [f"{name} {rate:.0%} {side}", *(f"{value:.3f}" for value in values)]
        for side, values in means.items()
    ]


def train(args: argparse.Namespace, path: Path, seed: int, corrections: Path | None) -> Learner:
    size = SIZES["shapes"]
    dls = ImageDataLoaders.from_folder(path, size=size, seed=seed, corrections=corrections)
    learn = vision_learner(dls, "efficientnet_lite0", seed=seed)
    learn.fine_tune(args.epochs, 3e-3, freeze_epochs=3, lr_mult=5, show=False)
    return learn


def correct(args: argparse.Namespace, rate: float, seed: int, folder: Path) -> tuple[float, ...]:
    """Precision at 10 and at the number of wrong labels, share found, errors before and after."""
    path = samples.draw_shapes(folder / "shapes", wrong=rate, seed=seed)
    fresh = samples.draw_shapes(folder / "fresh", wrong=0, seed=seed + 1000)
    test = ImageDataLoaders.from_folder(fresh, size=SIZES["shapes"], valid_pct=0.95).valid
    truth = samples.wrong_labels(path)
    learn = train(args, path, seed, None)
    found = label_issues(learn)
    files = [found.interp.path(i) for i in found.ranking]
    hits = [file in truth for file in files]
    n = len(truth)
    corrections = Corrections()
    for file in files[: 2 * n]:
        if file in truth:
            corrections.mark(file, "relabel", file.parent.name, truth[file])
    again = train(args, path, seed, corrections.apply(folder / "corrections.csv"))
    errors = (model.validate(test)[1] for model in (learn, again))
    return sum(hits[:10]) / 10, sum(hits[:n]) / n, sum(hits[: 2 * n]) / n, *errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--cifar10", type=Path, help="folder of a folder for each class")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.2])
    parser.add_argument("--kind", choices=("any", "pair"), default="any")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(3))
    parser.add_argument("--correct", action="store_true", help="what correcting is worth")
    parser.add_argument("--epochs", type=int, default=6, help="of --correct")
    args = parser.parse_args()
    if "cifar10" in args.sets and not args.cifar10 and not args.correct:
        args.sets.remove("cifar10")
        print("no --cifar10: without that set")
    print(conditions("cleanlab", "scikit-learn"), vars(args), sep="\n")
    if args.correct:
        heads = ("wrong, seed", "p at 10", "p at n", "found", "error", "corrected")
        rows = []
        for rate in args.rates:
            for seed in args.seeds:
                with tempfile.TemporaryDirectory() as folder:
                    values = correct(args, rate, seed, Path(folder))
                rows.append([f"{rate:.0%} {seed}", *(f"{value:.3f}" for value in values)])
        print(table(heads, rows))
        return
    heads = ("set, wrong, order", "AP", "p at n", "recall", "marked", "CPU s")
    for name in args.sets:
        for rate in args.rates:
            print(table(heads, find(args, name, rate)), flush=True)


if __name__ == "__main__":
    main()
