"""Soak: hundreds of searches, fits and matrices in one kernel leave nothing behind."""

import json
from pathlib import Path
from statistics import linear_regression

import pytest
from jupyter_client.manager import start_new_kernel

ROUNDS, WARM_UP = 300, 60
SETUP = """
import gc, os, warnings
import torch
from torch import nn
from ipywidgets.widgets import widget
from nbfinetune import ImageDataLoaders, vision_learner
from nbfinetune.live import screens
%load_ext nbfinetune
warnings.simplefilter("ignore")
screens.wait_until_rendered = lambda status, pump: True  # as a page that answers at once
torch.set_num_threads(1)
dls = ImageDataLoaders.from_folder({folder!r}, size=32, bs=6, seed=0)
body = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
learn = vision_learner(dls, nn.Sequential(body, nn.Linear(8, 3)), device="cpu")

def kept():
    gc.collect()
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    comms = get_ipython().kernel.comm_manager.comms
    return [int(status["VmRSS"].split()[0]), int(status["Threads"]),
            len(os.listdir("/proc/self/fd")), len(comms), len(widget._instances)]
"""
ROUND = """
%lr_find --num-it 12 --verify 0;
%fit_one_cycle 1 1e-3;
cm = %confusion_matrix
cm.selected = ("red", "blue")
cm.close()
learn.recorder.runs.clear()  # the history is kept on purpose
print(kept())
"""


@pytest.mark.bulk
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts as Linux does")
@pytest.mark.fault(
    f"{ROUNDS} searches, fits, matrices and drawers in one kernel",
    "memory, threads, files and comms stay as after the first ones",
)
def test_a_session_of_hours_leaves_nothing_behind(photos: Path, record_property) -> None:
    manager, client = start_new_kernel(kernel_name="python3")

    def run(code: str) -> str:
        messages = []
        reply = client.execute_interactive(code, output_hook=messages.append, timeout=300)
        assert reply["content"]["status"] == "ok", reply["content"]
        texts = (m["content"]["text"] for m in messages if m["msg_type"] == "stream")
        return "".join(texts)

    try:
        run(SETUP.format(folder=str(photos)))
        seen = [json.loads(run(ROUND).splitlines()[-1]) for _ in range(ROUNDS)][WARM_UP:]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    memory, *counts = zip(*seen, strict=True)
    slope = linear_regression(range(len(memory)), memory).slope
    names = ("threads", "files", "comms", "widgets")
    ends = [f"{name} {n[0]} to {n[-1]}" for name, n in zip(names, counts, strict=True)]
    record_property("seen", f"memory {slope:+.1f} kB a round, {', '.join(ends)}")
    assert all(n[-1] <= n[0] for n in counts), ends
    assert slope < 20, slope  # kB; a screen that stays takes 100
