"""Time and memory per picture from 1,000 to 100,000 pictures and from 10 to 1,000 classes.

    python benchmarks/growth.py [--sizes 1000 3000 10000 30000 100000] [--plot growth.svg]

Small drawn files, a hundred for each class. Each size runs in a process of its own: making the
loaders, one epoch of a tiny network with its validation, and the interpretation (predictions,
matrix, most confused pairs). Memory is the peak above what the process had before (Linux), over all
pictures; seconds are over all pictures, those of the interpretation over the ones held out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conditions import conditions, table
from PIL import Image
from torch import nn

from nbfinetune import ClassificationInterpretation, ImageDataLoaders, Learner, accuracy
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.rendering import axes, figures

SIDE, SIZE = 40, 32  # px of the files, and that the network sees
IN_CLASS = 100  # pictures of a class
STAGES = ("data", "epoch", "interpretation")
Costs = dict[str, tuple[float, float]]  # stage -> CPU ms a picture, peak kB a picture


def draw(folder: Path, n: int) -> Path:
    """n files of blurred noise in class folders."""
    noise = np.random.default_rng(0)
    for i in range(n):
        if i % IN_CLASS == 0:
            inside = folder / f"class_{i // IN_CLASS:04}"
            inside.mkdir(parents=True)
        coarse = Image.fromarray(noise.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(inside / f"{i:06}.jpg")
    return folder


def memory(what: str) -> float:
    """kB of this process: VmRSS, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(what))


def tiny(n_out: int) -> nn.Sequential:
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 16, 4, stride=4), nn.ReLU(), pool, nn.Linear(16, n_out))


def peak_and_time(work: Callable[[], object]) -> tuple[float, float, object]:
    """CPU ms and the peak of memory in kB while something is made, and what was made."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak before does not count
    started = time.process_time()
    made = work()
    return 1000 * (time.process_time() - started), memory("VmHWM"), made


def interpret(learn: Learner) -> None:
    interp = ClassificationInterpretation.from_learner(learn)
    interp.confusion_matrix()
    interp.most_confused()


def measure(folder: Path) -> Costs:
    """What the three stages cost for the pictures of a folder."""
    before = memory("VmRSS")
    *data, dls = peak_and_time(lambda: ImageDataLoaders.from_folder(folder, size=SIZE))
    transforms = ImageTransforms(SIZE, aug=dls.aug)
    model = tiny(len(dls.vocab))
    learn = Learner(dls, model, transforms=transforms, metrics=accuracy, device="cpu")
    *epoch, _ = peak_and_time(lambda: learn.fit_one_cycle(1, show=False))
    *interpretation, _ = peak_and_time(lambda: interpret(learn))
    n_valid = len(dls.valid.dataset)
    n = n_valid + len(dls.train.dataset)
    stages = zip(STAGES, (data, epoch, interpretation), (n, n, n_valid), strict=True)
    return {name: (ms / over, (peak - before) / n) for name, (ms, peak), over in stages}


def in_own_process(n: int, folder: Path) -> Costs:
    """The costs of n pictures, in a process that has seen no others but a few to warm up."""
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        draw(Path(inside, "few"), 2 * IN_CLASS)
        draw(Path(inside, "all"), n)
        command = [sys.executable, __file__, "--measure", inside]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def picture(sizes: list[int], costs: list[Costs], file: Path) -> None:
    """Both costs over the number of pictures."""
    figure = figures.new_figure(figures.WIDTH, 3.5)
    for k, (title, ax) in enumerate(zip(("CPU ms", "peak kB"), figure.subplots(2), strict=True)):
        axes.style_axes(ax)
        ax.set_xscale("log")
        axes.style_axes(ax)
        highest = max(cost[stage][k] for cost in costs for stage in STAGES)
        axes.scale_y(ax, (0, 1.1 * highest), title)
        lines = []
        for i, stage in enumerate(STAGES):
            values = [cost[stage][k] for cost in costs]
            lines.append(axes.draw_line(ax, sizes, values, axes.colour_of(i), marker="s"))
        if k == 0:
            axes.legend(ax, lines, STAGES)
    axes.ticks(ax, "x", sizes, [f"{n:,}" for n in sizes])
    ax.set_xlabel("pictures (classes: a hundredth)", **axes.font())
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [1_000, 3_000, 10_000, 30_000, 100_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, help="hundreds, from 1000")
    parser.add_argument("--plot", type=Path, help="picture to write")
    parser.add_argument("--folder", type=Path, help="where files are drawn, and removed again")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.measure:
        measure(args.measure / "few")
        print(json.dumps(measure(args.measure / "all")))
        return
    print(conditions())
    costs = [in_own_process(n, args.folder) for n in args.sizes]
    heads = ["pictures", "classes"]
    heads += [f"{stage} {unit}" for unit in ("ms", "kB") for stage in STAGES]
    rows = []
    for n, cost in zip(args.sizes, costs, strict=True):
        values = [f"{cost[stage][k]:.{3 - k}f}" for k in range(2) for stage in STAGES]
        rows.append((f"{n:,}", f"{n // IN_CLASS:,}", *values))
    print(table(heads, rows))
    if args.plot:
        picture(args.sizes, costs, args.plot)


if __name__ == "__main__":
    main()
