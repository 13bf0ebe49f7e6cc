"""Time and memory of the confusion matrix, the confused pairs and the top losses.

    python benchmarks/interpretation.py [--items 50000] [--classes 1000] [--rounds 5]

From predictions that are there, and from raw probabilities. fastai 2.8.12 asks for items x classes
x classes bytes for the matrix alone: 50 GB for the default sizes. Then the pictures of one cell:
from a click to the bytes that are sent.
"""

import argparse
import resource
import time
from dataclasses import replace
from statistics import median

import torch

from nbfinetune import ClassificationInterpretation


def ms(work, rounds: int) -> str:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return f"{median(times):.1f} ms ({min(times):.1f} to {max(times):.1f})"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def all_three(interp: ClassificationInterpretation) -> None:
    interp.confusion_matrix()
    interp.most_confused()
    interp.top_losses(9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
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
    before = peak_mb()
    interp = from_predictions(targets, probs, vocab)
    all_three(interp)
    print(f"extra memory at the peak: {peak_mb() - before:.0f} MB")
    # Copies, as each counts its cells once.
    print("from predictions:   ", ms(lambda: all_three(replace(interp)), args.rounds))

    def from_probs() -> None:
        all_three(from_predictions(targets, probs, vocab))

    print("from probabilities: ", ms(from_probs, args.rounds))


if __name__ == "__main__":
    main()
