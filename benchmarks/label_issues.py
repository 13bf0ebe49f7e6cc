"""Wrong labels found on drawn shapes, and what correcting them is worth.

    python benchmarks/label_issues.py [--wrong 0.1] [--size 96] [--epochs 6] [--seeds 0 1 2]

For each seed shapes are drawn, some with the label of another class, and a network is trained on
them. A person looks at the first pictures that `label_issues` names, twice as many as are wrong,
and corrects those that are (here with wrong_labels.csv); the network is trained again. Both errors
are those on pictures drawn anew whose labels are all right.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from nbfinetune import Corrections, ImageDataLoaders, Learner, samples, vision_learner
from nbfinetune.interpretation.label_issues import label_issues


def train(args: argparse.Namespace, path: Path, seed: int, corrections: Path | None) -> Learner:
    dls = ImageDataLoaders.from_folder(path, size=args.size, seed=seed, corrections=corrections)
    learn = vision_learner(dls, "efficientnet_lite0", seed=seed)
    learn.fine_tune(args.epochs, 3e-3, freeze_epochs=3, lr_mult=5)
    return learn


def run(args: argparse.Namespace, seed: int, folder: Path) -> tuple[float, ...]:
    """Precision at 10 and at the number of wrong labels, share found, errors before and after."""
    path = samples.draw_shapes(folder / "shapes", wrong=args.wrong, seed=seed)
    fresh = samples.draw_shapes(folder / "fresh", wrong=0, seed=seed + 1000)
    test = ImageDataLoaders.from_folder(fresh, size=args.size, valid_pct=0.95).valid
    truth = samples.wrong_labels(path)
    learn = train(args, path, seed, None)
    found = label_issues(learn)
    interp, items = found.interp, found.items
    files = [interp.path(i) for i in items]
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
    parser.add_argument("--seeds", type=int, nargs="+", default=range(3))
    parser.add_argument("--wrong", type=float, default=0.1)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    print(vars(args))
    names = ("p at 10", "p at n", "found", "error", "corrected", "CPU s")
    print("seed   " + "".join(f"{name:>11}" for name in names))
    rows = []
    for seed in args.seeds:
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            row = run(args, seed, Path(folder))
        rows.append((*row, time.process_time() - started))
        print(f"{seed:<7}" + "".join(f"{value:>11.3f}" for value in rows[-1]), flush=True)
    medians = [median(column) for column in zip(*rows, strict=True)]
    print("median " + "".join(f"{value:>11.3f}" for value in medians))


if __name__ == "__main__":
    main()
