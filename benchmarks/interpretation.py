"""Time and memory of the confusion matrix, the confused pairs and the top losses.

    python benchmarks/interpretation.py [--items 50000] [--classes 1000] [--rounds 5] [--browser]

From predictions that are there, and from raw probabilities. fastai 2.8.12 asks for items x classes
x classes bytes for the matrix alone: 50 GB for the default sizes. Then how often the network sees
the pictures for all three and the report, and with `--browser` what a page of JupyterLab takes to
show a matrix and the pictures of a cell.
"""

import argparse
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from torch import nn

from nbfinetune import Callback, ClassificationInterpretation, Learner

SCREENS = Path(__file__).parents[1] / "tests" / "browser" / "test_matrix.py"


def ms(work, rounds: int) -> str:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return f"{median(times):.1f} ms ({min(times):.1f} to {max(times):.1f})"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """What was the peak before does not count (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def n_passes() -> float:
    """Batches that the network sees for all that is asked of it, over those there are."""
    batches = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(5)]
    loaders = SimpleNamespace(train=batches, valid=batches, vocab=["a", "b"])
    learn = Learner(loaders, nn.Linear(4, 2), device="cpu")
    seen = []

    class Count(Callback):
        def after_batch(self, learn: Learner) -> None:
            seen.append(1)

    for look in (
        ClassificationInterpretation.confusion_matrix,
        ClassificationInterpretation.most_confused,
        ClassificationInterpretation.top_losses,
        ClassificationInterpretation.report,
    ):
        look(ClassificationInterpretation.from_learner(learn, cbs=[Count()]))
    return len(seen) / len(batches)


def all_three(interp: ClassificationInterpretation) -> None:
    interp.confusion_matrix()
    interp.most_confused()
    interp.top_losses(9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--browser", action="store_true")
    args = parser.parse_args()
    n, c = args.items, args.classes
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(c, (n,), generator=generator)
    probs = torch.empty(n, c)
    for rows, of in zip(probs.split(4096), targets.split(4096), strict=True):
        rows.copy_(torch.randn(rows.shape, generator=generator))
        rows[torch.arange(len(of)), of] += 3
        rows.copy_(rows.softmax(1))
    vocab = [f"class {k}" for k in range(c)]
    from_predictions = ClassificationInterpretation.from_predictions
    print(f"{n:,} items of {c:,} classes, {torch.get_num_threads()} threads")
    from_predictions(targets[:10], probs[:10], vocab)  # torch's own first calls
    forget_peak()
    before = peak_mb()
    interp = from_predictions(targets, probs, vocab)
    all_three(interp)
    print(f"extra memory at the peak: {peak_mb() - before:.0f} MB")
    # Copies, as each counts its cells once.
    print("from predictions:   ", ms(lambda: all_three(replace(interp)), args.rounds))

    def from_probs() -> None:
        all_three(from_predictions(targets, probs, vocab))

    print("from probabilities: ", ms(from_probs, args.rounds))
    print(f"passes over the data for matrix, pairs, losses and report: {n_passes():.0f}")
    if args.browser:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-s",
            "-k",
            "matrices_and or thousand",
            str(SCREENS),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        shown = [line.lstrip(".") for line in done.stdout.splitlines()]
        print("\n".join(line for line in shown if line.startswith("ms ") or "kB" in line))


if __name__ == "__main__":
    main()
