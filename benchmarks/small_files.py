"""Pictures a second and peak memory of 60,000 files of 32 px: making the data and two epochs.

    python benchmarks/small_files.py [--files 60000] [--rounds 3] [--suffix png] [--epochs 2]

The files are drawn at random once. Each run is a process of its own, by turns: here, fastai 2.8.12
with its default of worker processes, fastai with none (where it is installed); crops of 32 px,
normalised, batches of 64, one torch thread. Memory is what the process and its children hold, pages
that they share counted once (Linux), looked at five times a second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

SIZE, BS, CLASSES = 32, 64, 10
SIDES = ("here", "fastai", "fastai, no workers")


def draw_files(folder: Path, n: int, suffix: str) -> None:
    random = np.random.default_rng(0)
    for k in range(CLASSES):
        (folder / str(k)).mkdir()
    for i in range(n):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((SIZE, SIZE)).save(folder / str(i % CLASSES) / f"{i}.{suffix}")


def run_here(folder: str, epochs: int) -> float:
    """Pictures a second."""
    from nbfinetune import ImageDataLoaders
    from nbfinetune.data.transforms import ImageTransforms

    started, n = time.perf_counter(), 0
    dls = ImageDataLoaders.from_folder(folder, size=SIZE, bs=BS)
    transforms = ImageTransforms(SIZE)
    for _ in range(epochs):
        n += sum(len(transforms.train(x)) for x, _ in dls.train)
        n += sum(len(transforms.valid(x)) for x, _ in dls.valid)
    return n / (time.perf_counter() - started)


def run_fastai(folder: str, epochs: int, **workers: int) -> float:
    """Pictures a second."""
    from fastai.vision import all as fastai

    started, n = time.perf_counter(), 0
    dls = fastai.ImageDataLoaders.from_folder(
        folder, valid_pct=0.2, bs=BS, device="cpu", **workers,
        item_tfms=fastai.RandomResizedCrop(SIZE, min_scale=0.5),
        batch_tfms=fastai.Normalize.from_stats(*fastai.imagenet_stats, cuda=False),
    )  # fmt: skip
    for _ in range(epochs):
        n += sum(len(x) for x, _ in dls.train)
        n += sum(len(x) for x, _ in dls.valid)
    return n / (time.perf_counter() - started)


def held_mb(pid: int) -> float:
    """Memory of a process and its children."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return 0
    held = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return held + sum(held_mb(int(child)) for child in children)


def run(side: str, folder: Path, epochs: int) -> tuple[float, float]:
    """Pictures a second and the peak of MB, in a new process."""
    command = [sys.executable, "-W", "ignore", __file__, "--side", side, "--folder", str(folder)]
    command += ["--epochs", str(epochs)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, held_mb(process.pid))
        time.sleep(0.2)
    return json.loads(process.stdout.read().splitlines()[-1]), peak


def report(found: dict[str, list[tuple[float, float]]]) -> None:
    for side, pairs in found.items():
        rates, peaks = zip(*pairs, strict=True)
        spread = f"{median(rates):7.0f} ({min(rates):.0f} to {max(rates):.0f}) pictures/s"
        print(f"{side:<20} {spread}, {median(peaks):.0f} MB at the peak")
        r = [ours / rate for (ours, _), rate in zip(found["here"], rates, strict=True)]
        if side != "here":
            print(f"here over {side}: {median(r):.1f} ({min(r):.1f} to {max(r):.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--suffix", choices=("png", "jpg"), default="png")
    parser.add_argument("--folder", help="of files drawn before")
    parser.add_argument("--side", choices=SIDES, help="run one side only, in this process")
    args = parser.parse_args()
    if args.side:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        none = {"num_workers": 0} if args.side == SIDES[2] else {}
        measured = run_here if args.side == SIDES[0] else run_fastai
        print(json.dumps(measured(args.folder, args.epochs, **none)))
        return
    sides = SIDES if find_spec("fastai") else SIDES[:1]
    with tempfile.TemporaryDirectory() as folder:
        draw_files(Path(folder), args.files, args.suffix)
        found = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side in sides:
                found[side].append(run(side, Path(folder), args.epochs))
    print(f"{args.files:,} {args.suffix} files of {SIZE} px, {args.epochs} epochs")
    report(found)


if __name__ == "__main__":
    main()
