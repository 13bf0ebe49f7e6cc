"""A kernel that dies while it trains, and the screens of the run that goes on in the next."""

import os
import signal

import pytest

pytest.importorskip("playwright", reason="tests in a browser need playwright")
from playwright.sync_api import expect

from .test_screens import SETUP, wait_for_later_epoch

# Steps slow enough that the kernel dies in the middle of a run, with a checkpoint behind it.
RUNS_ON = SETUP.replace(
    "import time", "import os, tempfile, time\nos.environ['NBFINETUNE_RUNS'] = folder", 1
)
TRAIN = "%fine_tune 6 --freeze-epochs 2 --checkpoint 10"


def test_a_run_goes_on_with_its_screen_after_the_kernel_was_killed(notebook, tmp_path) -> None:
    setup = f"folder = {str(tmp_path / 'runs')!r}\n{RUNS_ON}"
    cells = [setup, TRAIN, "%resume_run --list", "%resume_run", "%runs", "%runs 1", "%undo_fit"]
    nb = notebook(cells)
    nb.run_cell(0)
    pid = int(nb.kernel("print(os.getpid())"))
    nb.start_cell(1)
    wait_for_later_epoch(nb, "all layers: ")
    os.kill(pid, signal.SIGKILL)
    nb.page.get_by_role("dialog").get_by_role("button", name="Ok").click()

    nb.run_cell(0)
    nb.run_cell(2)
    listed = nb.cell(2).locator("table").inner_text()
    assert "fine_tune" in listed
    nb.start_cell(3)
    screen = nb.cell(3).locator(".nbft-training")
    screen.wait_for()
    expect(screen.get_by_role("button", name="Stop")).to_be_visible()
    nb.screenshot("resumed")
    nb.wait_idle()
    epochs = nb.cell(3).locator("tr").all_inner_texts()
    assert [row.split()[0] for row in epochs if row[0].isdigit()][-6:] == list("012345")
    nb.screenshot("resumed_end")

    for i in (4, 5):
        nb.run_cell(i)
        expect(nb.cell(i).locator("table, img").first).to_be_visible()
    nb.screenshot("runs")
    nb.run_cell(6)
    assert "taken back" in nb.output(6)[0]["text"]
    nb.screenshot("undone")
