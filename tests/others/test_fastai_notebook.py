"""A learner of fastai in a notebook that a kernel runs; `test_fastai.py` tells how to have fastai.

Run as a script it prints what the cells showed: python tests/others/test_fastai_notebook.py
"""

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

CELLS = [
    """\
%load_ext nbfinetune
from nbfinetune import samples
from fastai.vision.all import *
set_seed(0)
path = samples.draw_shapes("shapes", n=12, size=64, shapes=["ring", "circle", "ellipse"])
dls = ImageDataLoaders.from_folder(
    path, valid_pct=0.25, seed=0, item_tfms=Resize(64), bs=16, num_workers=0
)
metrics = [error_rate, F1Score(average="macro")]
body = [ConvLayer(3, 16, stride=2), ConvLayer(16, 32, stride=2)]
net = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(32, dls.c))
fastai_learn = Learner(dls, net, metrics=metrics)
with fastai_learn.no_bar():
    fastai_learn.fit_one_cycle(1, 1e-2)
before = fastai_learn.validate()""",
    "found = %lr_find -l fastai_learn --num-it 40\nfound",
    "result = %fit_one_cycle 3 1e-2 -l fastai_learn\nresult",
    "cm = %confusion_matrix -l fastai_learn\ncm",
    """\
with fastai_learn.no_bar():
    after = fastai_learn.validate()
print("valid_loss before, after, and as fit_one_cycle said:", before[0], after[0], result.rows[-1])
assert abs(after[0] - result.rows[-1]["valid_loss"]) < 1e-4
assert abs(after[1] - result.rows[-1]["error_rate"]) < 1e-6
assert cm.interp.dataset.path(0).is_file()
print(cm.interp)""",
]


def texts(cell: dict) -> str:
    """What a cell printed and displayed, as text."""
    parts = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        parts.append(output.get("text") or data.get("text/plain", ""))
    return "\n".join(part.strip() for part in parts if part)


def run_notebook(folder: Path) -> list[str]:
    """The texts of the cells, each run in a kernel."""
    import nbformat
    from nbclient import NotebookClient

    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return [texts(cell) for cell in notebook.cells]


@pytest.mark.skipif(not find_spec("fastai"), reason="fastai is not installed: see test_fastai.py")
def test_magics_search_train_and_show_a_learner_that_fastai_trained(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NBFINETUNE_RUNS", str(tmp_path / "runs"))
    said = run_notebook(tmp_path)
    line = "fastai_learn: taken over from fastai, with the same weights and data"
    assert line in said[1]
    assert line not in said[2] + said[3]
    assert "next run:" in said[1]
    assert "epoch" in said[2]
    assert "actual" in said[3]


if __name__ == "__main__":
    os.environ.setdefault("NBFINETUNE_RUNS", "off")
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(run_notebook(Path(folder)), 1):
            print(f"--- cell {number}\n{text}")
