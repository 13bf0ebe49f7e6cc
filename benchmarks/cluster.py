"""Training by workers of this machine: CPU and wall time, start, latency, bytes, for 1 and 2.

    python benchmarks/cluster.py FOLDER [--workers 1 2] [--rounds 3] [--epochs 1] [--size 128]

FOLDER holds photos of pets as breed_12.jpg, such as Oxford-IIIT pets. All layers of
efficientnet_lite0 train; "0 workers" is the notebook's own process, with as many threads as one
worker has. The kinds take turns, in the reverse order in every other round, after a round that is
not counted. Times are those of the call, from its first line to the weights in the learner; CPU
seconds are of all processes. "first step" is from the call to the end of its first batch. How old
an event is when the callbacks here get it is measured in a run of its own, by a callback in the
first worker. Bytes are those that the loopback device carried meanwhile (all processes of the
machine: run it alone). The load of the machine is printed, as it decides about wall times.
"""

import argparse
import os
import time
from pathlib import Path
from statistics import median

import psutil
import torch

from nbfinetune import ImageDataLoaders, vision_learner
from nbfinetune.training.state import Callback


class Arrivals(Callback):
    """When the training batches of a run are told here."""

    runs_on = "console"

    def __init__(self) -> None:
        self.times: list[float] = []

    def after_batch(self, learn: object) -> None:
        if learn.training:
            self.times.append(time.time())


class Departures(Arrivals):
    """The same, in the first worker."""

    runs_on = "first"


def cpu() -> float:
    """CPU seconds of this process and its children, those of engines too."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def loopback() -> int:
    """Bytes that went through the loopback device so far."""
    counters = psutil.net_io_counters(pernic=True)
    return next((c.bytes_sent for name, c in counters.items() if name.startswith("lo")), 0)


def one(learn: object, workers: int, epochs: int) -> tuple[float, float, float, float]:
    """Wall and CPU seconds, those to the first step, MB sent."""
    arrivals, began = Arrivals(), (time.time(), cpu(), loopback())
    by = {"workers": workers} if workers else {}
    learn.fit(epochs, 1e-4, cbs=[arrivals], checkpoint="off", show=False, **by)
    wall, used = time.time() - began[0], cpu() - began[1]
    return wall, used, arrivals.times[0] - began[0], (loopback() - began[2]) / 1e6


def ages(learn: object, workers: int) -> list[float]:
    """Seconds between the end of each batch and its event here."""
    departures, arrivals = Departures(), Arrivals()
    learn.fit(1, 1e-4, cbs=[departures, arrivals], checkpoint="off", show=False, workers=workers)
    return [b - a for a, b in zip(departures.times, arrivals.times, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    kinds = [0, *args.workers]
    torch.set_num_threads(max((os.cpu_count() or 1) // max(kinds), 1))
    dls = ImageDataLoaders.from_name_re(args.folder, None, r"(.+)_\d+", size=args.size)
    learn = vision_learner(dls, "efficientnet_lite0")
    learn.unfreeze()
    found: dict[int, list] = {kind: [] for kind in kinds}
    for i in range(args.rounds + 1):
        for kind in kinds if i % 2 else kinds[::-1]:
            got = one(learn, kind, args.epochs)
            if i:
                found[kind].append(got)
            else:
                print(
                    f"{kind} workers, first call: {got[0]:.1f} s, first step after {got[2]:.1f} s"
                )
    print(f"{len(dls.train.dataset)} photos, {args.size} px, load {os.getloadavg()[0]:.1f}")
    for kind, rows in found.items():
        wall, used, first, sent = (median(values) for values in zip(*rows, strict=True))
        line = f"{kind} workers: {wall:6.1f} s, CPU {used:6.1f} s, first step after {first:.2f} s"
        print(f"{line}, {sent:.0f} MB sent")
    for kind in args.workers:
        old = sorted(1000 * age for age in ages(learn, kind))
        print(f"{kind} workers: events {median(old):.0f} ms old, the oldest {old[-1]:.0f} ms")


if __name__ == "__main__":
    main()
