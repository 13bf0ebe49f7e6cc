"""Time until a session can begin: `%load_ext nbfinetune`, and the imports with a first learner.

    python benchmarks/imports.py [--rounds 7] [--pictures 10] [--peer-python PYTHON]

Each time is that of a fresh process, without the start of Python; all kinds of processes take
turns, in the reverse order in every other round, after a round that is not counted. `%load_ext` is
timed in an IPython shell that is there; the heavy modules that it imports are named. The learner is
a resnet18 without pretrained weights on drawn shapes at 64 px, 12 classes of `--pictures` pictures
each, which are decoded when the loaders are made and were drawn before. With `--peer-python`, a
Python that has fastai, `from fastai.vision.all import *` is timed in it beside its own torch.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

from nbfinetune import samples

HEAVY = ("torch", "torchvision", "bqplot", "ipywidgets", "numpy", "pandas", "sklearn")
# Runs the steps in the arguments; the times after each, and which heavy modules are there.
PROGRAM = f"""
import json, sys, time
times = [(time.perf_counter(), time.process_time())]
for step in sys.argv[1:]:
    exec(step)
    times.append((time.perf_counter(), time.process_time()))
print(json.dumps([times, [name for name in {HEAVY} if name in sys.modules]]))
"""
TORCH = ["import torch, torchvision"]
SHELL = "from IPython.core.interactiveshell import InteractiveShell as IS; shell = IS.instance()"
LOAD_EXT = [SHELL, "shell.run_line_magic('load_ext', 'nbfinetune')"]
FASTAI = ["from fastai.vision.all import *"]


def learner(folder: Path) -> list[str]:
    return [
        "from nbfinetune import ImageDataLoaders, vision_learner",
        f"dls = ImageDataLoaders.from_folder({str(folder)!r}, size=64)",
        "learn = vision_learner(dls, 'resnet18', weights=None)",
    ]


def run(python: str, steps: list[str]) -> tuple[list[tuple[float, float]], list[str]]:
    """Wall and CPU seconds of each step, and the heavy modules that are there in the end."""
    command = [python, "-c", PROGRAM, *steps]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    times, modules = json.loads(done.stdout.splitlines()[-1])
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(times)], modules


def text(name: str, times: list[tuple[float, float]]) -> str:
    wall, cpu = zip(*times, strict=True)
    ends = f"({min(wall):.3f} to {max(wall):.3f})"
    return f"{name:44} {median(wall):.3f} s {ends}, CPU {median(cpu):.3f} s"


def total(times: list[tuple[float, float]]) -> tuple[float, float]:
    return tuple(map(sum, zip(*times, strict=True)))


def ratios(runs: list, others: list) -> str:
    """Of wall time and of CPU time, in each round."""
    both = zip(runs, others, strict=True)
    each = [[a / b for a, b in zip(total(x), total(y), strict=True)] for x, y in both]
    return " and ".join(
        f"{median(side):.2f} ({min(side):.2f} to {max(side):.2f})"
        for side in zip(*each, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--peer-python")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        drawn = samples.draw_shapes(Path(folder) / "shapes", n=args.pictures)
        kinds = {
            "load_ext": (sys.executable, LOAD_EXT),
            "torch": (sys.executable, TORCH),
            "learner": (sys.executable, learner(drawn)),
        }
        if args.peer_python:
            kinds["peer torch"] = args.peer_python, TORCH
            kinds["fastai"] = args.peer_python, FASTAI
        runs = {name: [] for name in kinds}
        modules = {}
        for i in range(-1, args.rounds):
            for name in list(kinds)[:: 1 if i % 2 else -1]:
                times, modules[name] = run(*kinds[name])
                if i >= 0:
                    runs[name].append(times)
    print(text("%load_ext nbfinetune", [times[1] for times in runs["load_ext"]]))
    print(f"  heavy modules there: {', '.join(modules['load_ext']) or 'none'}")
    print(text("import torch, torchvision", [total(times) for times in runs["torch"]]))
    print(text("import nbfinetune's and a first learner", [total(t) for t in runs["learner"]]))
    for k, part in enumerate(("imports", f"loaders of {12 * args.pictures} pictures", "learner")):
        print(text(f"  {part}", [times[k] for times in runs["learner"]]))
    print(f"  over torch and torchvision, wall and CPU: {ratios(runs['learner'], runs['torch'])}")
    if args.peer_python:
        print(text("peer: import torch, torchvision", [total(t) for t in runs["peer torch"]]))
        print(text("peer: from fastai.vision.all import *", [total(t) for t in runs["fastai"]]))
        over = ratios(runs["fastai"], runs["peer torch"])
        print(f"  over its torch and torchvision, wall and CPU: {over}")


if __name__ == "__main__":
    main()
