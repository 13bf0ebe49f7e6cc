"""Training steps beside other work: ms a step with 1 and 2 threads, idle and beside a busy process.

    python benchmarks/busy.py [--rounds 3] [--steps 8] [--arch resnet18] [--size 128] [--bs 16]

Each figure is that of a fresh process, as libgomp reads its variables once: `import nbfinetune`
sets GOMP_SPINCOUNT=1000 before torch comes (policy), or torch comes first, and its threads spin
while they wait (default). The busy process is one that computes without pause. "as a run" is what a
session has that did not choose: several threads by the policy, and, where torch came first, one
thread if a run finds that several are slower. Sides take turns, so that other work on the machine
is on all of them alike; the time is wall time. The last columns are ratios round by round.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from conditions import conditions, in_turn, ratios, spread, table

FIRST = {"default": "", "policy": "from nbfinetune import get_image_files"}  # it imports no torch
PROGRAM = """
import json, sys, time
first, threads, steps, arch, size, bs = json.loads(sys.argv[1])
exec(first)
import torch, torchvision
from statistics import median
from nbfinetune.runtime.cpu_contention import one_thread_if_busy
torch.set_num_threads(threads or 2)
torch.manual_seed(0)
model = torchvision.models.get_model(arch).to(memory_format=torch.channels_last)
x = torch.randn(bs, 3, size, size).contiguous(memory_format=torch.channels_last)
y = torch.arange(bs) % 10
opt, loss_func = torch.optim.AdamW(model.parameters(), 1e-3), torch.nn.CrossEntropyLoss()

def step():
    started = time.perf_counter()
    loss_func(model(x), y).backward()
    opt.step()
    opt.zero_grad()
    return time.perf_counter() - started

def run():
    step()
    return 1000 * median(step() for _ in range(steps))

if threads:
    ms = run()
else:
    with one_thread_if_busy(torch.device("cpu")):
        ms = run()
print(json.dumps(ms))
"""
CHOSEN = "as a run"
THREADS = {"1 thread": 1, "2 threads": 2, CHOSEN: 0}


@contextmanager
def a_busy_process() -> Iterator[None]:
    """Another process that has work all the time."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def ms_a_step(first: str, threads: int, *, busy: bool, sizes: tuple) -> float:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMP_", "GOMP_", "KMP_"))
    }
    command = [sys.executable, "-c", PROGRAM, json.dumps([first, threads, *sizes])]
    options = {"env": environment, "capture_output": True, "text": True, "check": True}
    if not busy:
        return json.loads(subprocess.run(command, **options).stdout)
    with a_busy_process():
        return json.loads(subprocess.run(command, **options).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="of a process, after one")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--bs", type=int, default=16)
    args = parser.parse_args()
    print(conditions())
    print(vars(args))
    sizes = (args.steps, args.arch, args.size, args.bs)
    sides = {
        (beside, threads, how): partial(
            ms_a_step, FIRST[how], THREADS[threads], busy=beside == "busy", sizes=sizes
        )
        for beside in ("idle", "busy")
        for threads in THREADS
        for how in FIRST
    }
    values = in_turn(sides, args.rounds)
    rows = []
    for beside in ("idle", "busy"):
        for threads in THREADS:
            default, policy = (values[beside, threads, how] for how in FIRST)
            over = spread(ratios(default, policy))
            of_one = spread(ratios(policy, values[beside, "1 thread", "policy"]))
            rows.append((f"{beside}, {threads}", spread(default, 0), spread(policy, 0), over))
            rows[-1] += ("" if threads == "1 thread" else of_one,)
    heads = ("ms a step", "default", "policy", "default / policy", "policy / its one thread")
    print(table(heads, rows))


if __name__ == "__main__":
    main()
