"""What a notebook holds that was run and saved without a front end."""

import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytest.importorskip("nbclient", reason="notebooks are run with nbclient")

SETUP = """\
%load_ext nbfinetune
from types import SimpleNamespace
import torch
from torch import nn
from nbfinetune import Learner, accuracy

generator = torch.Generator().manual_seed(0)
x, noise = (torch.randn(96, n, generator=generator) for n in (20, 3))
y = (x[:, :3] * 2 + noise).argmax(1)
batches = [(x[i:i + 16], y[i:i + 16]) for i in range(0, 96, 16)]
body, head = nn.Sequential(nn.Linear(20, 32), nn.ReLU()), nn.Linear(32, 3)
loaders = SimpleNamespace(train=batches[:4], valid=batches[4:], vocab=list("abc"))
learn = Learner(loaders, nn.Sequential(body, head), groups=[[body], [head]], metrics=accuracy,
                device="cpu")"""
CELLS = [
    "%lr_find",
    "%fine_tune 1",
    "%fit_one_cycle 1",
    "%fit_flat_cos 1 --bg",
    "%learner_summary",
    "cm = %confusion_matrix",
    "cm",
    "%most_confused",
    "%top_losses 3",
    "print(repr(cm))",
]


RUNS = [
    "learn.fine_tune(1)",
    "learn.fit_one_cycle(1)",
    "learn.fit_flat_cos(1)",
    "learn.fit_sgdr(1, 1)",
    "learn.fit(1)",
]
SILENT = [
    "with learn.quiet():\n    learn.fit(1)\n    learn.lr_find()",
    "learn.fit(1, show=False)",
    "learn.lr_find(show=False)",
]


def run(cells: list[str]) -> nbformat.NotebookNode:
    from nbclient import NotebookClient

    notebook = new_notebook(cells=[new_code_cell(code) for code in [SETUP, *cells]])
    NotebookClient(notebook, kernel_name="python3", timeout=240).execute()
    return notebook


@pytest.fixture(scope="module")
def saved() -> nbformat.NotebookNode:
    return run(CELLS)


def test_a_method_leaves_picture_and_table_as_its_magic_does_unless_it_is_silent() -> None:
    cells = run(["learn.lr_find()", *RUNS, *SILENT]).cells[1:]
    search, runs, silent = cells[0], cells[1 : 1 + len(RUNS)], cells[1 + len(RUNS) :]
    for cell in (search, *runs):
        [html] = [o.data["text/html"] for o in cell.outputs if "text/html" in o.get("data", {})]
        assert "data:image/png" in html, cell.source
    for cell in runs:
        assert "<th>train_loss</th>" in cell.outputs[-1].data["text/html"], cell.source
    assert "next run: " in search.outputs[-1].data["text/plain"]
    assert [cell.outputs for cell in silent] == [[], [], []]


def test_screens_are_told_in_words(saved: nbformat.NotebookNode) -> None:
    outputs = json.dumps([cell.outputs for cell in saved.cells])
    assert re.findall(r".{30}children=\(|.{30}object at 0x", outputs) == []
    *_, shown, _, _, printed = (cell.outputs for cell in saved.cells)
    assert shown[0]["data"]["text/plain"].startswith("32 items of 3 classes, accuracy 0.")
    assert printed[0]["text"].rstrip() == shown[0]["data"]["text/plain"].rstrip()


def test_so_are_they_in_html(saved: nbformat.NotebookNode) -> None:
    nbconvert = pytest.importorskip("nbconvert", reason="saved notebooks become HTML with it")
    page, _ = nbconvert.HTMLExporter().from_notebook_node(saved)
    body = page[page.index("<body") :]
    assert re.findall(r".{30}children=\(|.{30}object at 0x", body) == []
