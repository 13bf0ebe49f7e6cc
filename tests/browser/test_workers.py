"""Training by workers in a notebook: the live screen, Stop by mouse, a kernel that is killed."""

import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="tests in a browser need playwright")
pytest.importorskip("ipyparallel")
from playwright.sync_api import expect

from .matrix import MATRIX
from .test_screens import SETUP, wait_for_later_epoch

PETS = """\
%load_ext nbfinetune
from nbfinetune import ImageDataLoaders, vision_learner
dls = ImageDataLoaders.from_name_re({folder!r}, None, r"(.+)_\\d+", size=64, bs=32)
learn = vision_learner(dls, "efficientnet_lite0")"""


def _epochs(nb, cell: int) -> list[str]:
    rows = nb.cell(cell).locator("tr").all_inner_texts()
    return [row.split()[0] for row in rows if row[:1].isdigit()]


def test_workers_train_on_photos_with_the_live_screen_and_stop_by_mouse(
    notebook, pets: Path
) -> None:
    cells = [
        PETS.format(folder=str(pets)),
        "%fine_tune 2 --workers 2",
        "%cluster",
        "%fit_one_cycle 9 1e-4 --workers 2",
        "%confusion_matrix --workers 2",
        "%cluster --stop",
    ]
    nb = notebook(cells)
    nb.run_cell(0)
    nb.start_cell(1)
    wait_for_later_epoch(nb, "all layers: ")
    nb.screenshot("workers_train")
    nb.wait_idle()
    assert _epochs(nb, 1)[-2:] == ["0", "1"]
    assert "starting 2 workers" in "".join(out.get("text", "") for out in nb.output(1))
    nb.run_cell(2)
    expect(nb.cell(2).locator("tr", has_text="worker").first).to_be_visible()
    nb.screenshot("workers_cluster")

    nb.start_cell(3)
    screen = nb.cell(3).locator(".nbft-training")
    screen.locator(".nbft-status", has_text="epoch 1 of 9").wait_for()
    screen.get_by_role("button", name="Stop").click()
    nb.wait_idle()
    expect(nb.cell(3)).to_contain_text("stopped in epoch 1 of 9")
    nb.screenshot("workers_stopped")
    steps = int(nb.kernel("print(len(learn.recorder.run.losses))"))
    assert 0 < steps < 9 * 10
    nb.run_cell(4)
    nb.cell(4).locator(MATRIX).wait_for()
    nb.screenshot("workers_matrix")
    nb.run_cell(5)
    assert "there is no cluster" in nb.kernel("print(learn.cluster)")


def test_a_run_of_workers_outlives_its_kernel_and_is_attached_to(notebook) -> None:
    nb = notebook([f"import os\n{SETUP}", "%fit_one_cycle 40 1e-3 --workers 2", "%attach"])
    nb.run_cell(0)
    pid = int(nb.kernel("print(os.getpid())"))
    nb.start_cell(1)
    wait_for_later_epoch(nb)
    os.kill(pid, signal.SIGKILL)
    nb.page.get_by_role("dialog").get_by_role("button", name="Ok").click()

    nb.run_cell(0)
    nb.start_cell(2)
    screen = nb.cell(2).locator(".nbft-training")
    wait = screen.locator(".nbft-status", has_text="of 40")
    wait.wait_for()
    nb.screenshot("workers_attached")
    screen.get_by_role("button", name="Stop").click()
    nb.wait_idle()
    epochs = _epochs(nb, 2)
    assert epochs == [str(i) for i in range(len(epochs))]  # from the first on
    nb.screenshot("workers_attached_end")
    assert int(nb.kernel("print(len(learn.recorder.run.losses))")) >= 30 * len(epochs)
    nb.kernel("get_ipython().run_line_magic('cluster', '--stop')")
