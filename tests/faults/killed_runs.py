"""Runs that are killed and resumed, each in a process of its own, forked from this one.

python killed_runs.py FOLDER JOBS: the jobs are a JSON list of dicts; a line of JSON is printed for
each. Keys of a job: config (a name below), mode ("run" or "resume"), checkpoint (as of fits), and
how it ends: at (place and number, as ["batch", 7]), after (of the time of the whole run, which is a
job before), writing (number of a file), or sigterm (place and number), which it sends to
itself; thread (true: the run is in a thread, as by --bg).
"""

import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from nbfinetune import Callback, EarlyStopping, ImageDataLoaders, Learner, vision_learner
from nbfinetune.training.resuming.runs_root import run_folders, runs_folder
from nbfinetune.training.resuming.termination import tell_runs_elsewhere

torch.set_num_threads(1)
warnings.simplefilter("ignore")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU())
        self.drop, self.pool, self.flat = nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.flat(self.pool(self.drop(self.b(self.a(x))))))


class Noisy(Dataset):
    """Items that are other ones each time, by all three generators."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        x = torch.full((4,), float(i % 3)) + torch.rand(4) + random.random() + np.random.rand()
        return x.float(), i % 3


def changed(picture: torch.Tensor) -> torch.Tensor:
    """An augmentation of the user's, by Python's and NumPy's random numbers."""
    if random.random() < 0.5:
        picture = picture.flip(2)
    top = np.random.randint(0, picture.shape[1] - 32 + 1)
    return picture[:, top : top + 32, :32].clone()


def photos(folder: Path) -> Path:
    root, noise = folder / "photos", np.random.default_rng(0)
    if not root.exists():
        for k, name in enumerate("abc"):
            (root / name).mkdir(parents=True)
            for i in range(16):
                pixels = noise.integers(0, 180, (40, 40, 3), dtype=np.uint8) + 25 * k
                Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def pictures(folder: Path, frozen: bool, aug: object = True, **options) -> Learner:
    dls = ImageDataLoaders.from_folder(photos(folder), size=32, bs=8, aug=aug)
    learn = vision_learner(dls, Net(), device="cpu", **({"train_bn": False} | options))
    learn.freeze() if frozen else learn.unfreeze()
    return learn


def numbers(**options) -> Learner:
    own = torch.Generator().manual_seed(5)
    train = DataLoader(Noisy(30), batch_size=4, shuffle=True, generator=own)
    loaders = type("Loaders", (), {})()
    loaders.train, loaders.valid = train, DataLoader(Noisy(9), batch_size=4)
    loaders.vocab = ["a", "b", "c"]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return Learner(loaders, net, device="cpu", **options)


def _stopping(how: dict) -> dict:
    return how | {"cbs": [EarlyStopping(patience=3), *how["cbs"]]}


# name -> what makes the learner, and the call
CONFIGS = {
    "fine_tune": (
        lambda f: pictures(f, True),
        lambda learn, how: learn.fine_tune(3, freeze_epochs=4, **how),
    ),
    "as it comes": (
        lambda f: pictures(f, True),
        lambda learn, how: learn.fine_tune(2, **how),
    ),
    "accumulated": (
        lambda f: pictures(f, False, accumulate=3, clip_grad=0.5),
        lambda learn, how: learn.fit_one_cycle(6, 1e-2, keep_best=True, wd=0.1, **_stopping(how)),
    ),
    "views": (
        lambda f: pictures(f, True, aug=changed, cache_features=3),
        lambda learn, how: learn.fine_tune(2, freeze_epochs=5, **how),
    ),
    "as fastai": (
        lambda f: pictures(f, True, head="fastai", train_bn=True, cache_features=False),
        lambda learn, how: learn.fine_tune(3, recipe="fastai", **how),
    ),
    "own loaders": (
        lambda f: numbers(),
        lambda learn, how: learn.fit_flat_cos(5, 1e-2, keep_best=True, **how),
    ),
    "restarts": (
        lambda f: numbers(accumulate=2),
        lambda learn, how: learn.fit_sgdr(2, 2, 1e-2, **how),
    ),
}


class Kills(Callback):
    """Kills the process, or sends it a SIGTERM, at the n-th place of a kind."""

    def __init__(self, place: str, n: int, with_signal: int | None) -> None:
        self.place, self.left, self.signal = place, n, with_signal

    def reached(self, place: str) -> None:
        if place != self.place:
            return
        self.left -= 1
        if self.left == 0:
            if self.signal is None:
                os._exit(9)
            os.kill(os.getpid(), self.signal)

    def after_batch(self, learn: Learner) -> None:
        self.reached("batch" if learn.training else "validation")

    def after_part(self, learn: Learner) -> None:
        self.reached("part")

    def after_train(self, learn: Learner) -> None:
        self.reached("trained")

    def before_epoch(self, learn: Learner) -> None:
        self.reached("epoch")


Kills.__module__ = "nbfinetune.tests"  # no callback of the user's, which resume_run would ask for


def killed_while_writing(n: int) -> None:
    """Kill the process in the n-th of its writes of a checkpoint: the file is there in part."""
    left = [n]

    def counted(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            with suppress(OSError):  # of a folder
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os._exit(9)

    os.fsync = counted


def digest(learn: Learner) -> str:
    """Of weights, optimizer, history and random numbers."""
    seen = hashlib.blake2b(digest_size=8)
    states = [v for state in learn.opt.state_dict()["state"].values() for v in state.values()]
    for tensor in [*learn.model.state_dict().values(), *states]:
        seen.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    for run in learn.recorder.runs:
        rows = [{k: v for k, v in row.items() if k != "time"} for row in run.rows]
        kept = run.kept and {k: v for k, v in run.kept.items() if k != "time"}
        seen.update(repr((run.name, rows, run.losses, run.smooth, run.lrs, run.moms)).encode())
        seen.update(repr((kept, run.kept_why, run.notes, run.status, run.weakest)).encode())
    with learn.own_rng():
        seen.update(repr((torch.rand(3), random.random(), np.random.rand())).encode())
    return seen.hexdigest()


def work(folder: Path, job: dict, begun: Callable[[], None]) -> dict:
    make, call = CONFIGS[job["config"]]
    learn = make(folder)
    kills = [Kills(*job["at"], None)] if job.get("at") else []
    kills += [Kills(*job["sigterm"], signal.SIGTERM)] if job.get("sigterm") else []
    if job.get("writing"):
        killed_while_writing(job["writing"])
    begun()
    started = time.monotonic()
    if job["mode"] == "run":
        how = {"show": False, "cbs": kills}
        if job.get("checkpoint"):
            how["checkpoint"] = job["checkpoint"]
        in_thread(call, learn, how) if job.get("thread") else call(learn, how)
    else:
        try:
            learn.resume_run(show=False, cbs=kills)
        except ValueError as error:
            if "there is no run" in str(error):
                return {"nothing": True}
            raise
    left = [file for folder in run_folders(runs_folder()) for file in folder.path.glob("0*")]
    stages = [f"{run.name} {len(run.rows)}" for run in learn.recorder.runs]
    took = time.monotonic() - started
    return {"digest": digest(learn), "stages": stages, "left": len(left), "took": took}


def in_thread(call: Callable, *args: object) -> None:
    """Call it in a thread, as `--bg` does, while the main one waits."""
    tell_runs_elsewhere()
    thread = threading.Thread(target=call, args=args)
    thread.start()
    while thread.is_alive():
        time.sleep(0.01)


def forked(folder: Path, job: dict, took: dict[str, float]) -> dict:
    """The result of the job's process, and how it ended.

    took : seconds that a whole run of each config takes
    """
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            result = work(folder, job, lambda: os.write(writes, b" "))
            os.write(writes, json.dumps(result).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc(limit=-2)
            os._exit(1)
    os.close(writes)
    with open(reads, "rb") as pipe:
        pipe.read(1)
        if job.get("after") is not None:
            time.sleep(job["after"] * took[job["config"]])
            os.kill(pid, signal.SIGKILL)
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status)} | json.loads(text or "{}")


if __name__ == "__main__":
    os.fsync = lambda descriptor: None  # what a process has written outlives its kill
    took: dict[str, float] = {}
    for job in json.loads(sys.argv[2]):
        result = forked(Path(sys.argv[1]), job, took)
        if "took" in result:
            took.setdefault(job["config"], result["took"])
        print(json.dumps(result), flush=True)
