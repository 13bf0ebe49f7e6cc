"""The magics under the keys and menus of JupyterLab."""

import re

SETUP = """\
%load_ext nbfinetune
from types import SimpleNamespace
import torch
from torch import nn
from nbfinetune import Learner

batch = torch.arange(16.0).view(4, 4).sin(), torch.tensor([0, 1, 0, 1])
loaders = SimpleNamespace(train=[batch] * 4, valid=[batch], vocab=["no", "yes"])
learn = Learner(loaders, nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), device="cpu")"""


def test_interrupt_shows_one_line_stops_the_queue_and_leaves_the_magics_working(notebook) -> None:
    cells = [SETUP, "%fine_tune 50000", "ran_on = True", "%fine_tune 1 --freeze-epochs 1"]
    nb = notebook(cells)
    nb.start_all()
    nb.cell(1).get_by_text("all layers, 50,000 epochs").wait_for()
    nb.interrupt()
    nb.wait_idle()
    shown = nb.cell(1).locator("[data-mime-type='application/vnd.jupyter.stderr']").inner_text()
    line = (
        r"interrupted in epoch \d+ of 50000 after [\d,]+ steps; "
        r"kept epoch \d+ of (all layers|head, body frozen): .*"
    )
    assert re.fullmatch(line, shown)
    assert nb.output(1)[-1]["traceback"] == [shown]
    assert nb.kernel("print('ran_on' in globals())") == "False\n"
    nb.screenshot("interrupt")

    nb.run_cell(3)
    result = nb.output(3)[-1]["data"]["text/plain"]
    assert "\nfine_tune finished after 2 epochs" in result


def test_tab_completes_the_options_of_a_magic(notebook) -> None:
    nb = notebook([SETUP, ""])
    nb.run_cell(0)
    nb.cell(1).locator(".cm-content").click()
    nb.page.keyboard.type("%fine_tune --free")
    nb.page.keyboard.press("Tab")
    offered = nb.page.locator(".jp-Completer-match")
    offered.first.wait_for()
    assert offered.all_inner_texts() == ["--freeze-epochs"]
    nb.screenshot("completion")
    nb.page.keyboard.press("Enter")
    nb.cell(1).locator(".cm-line", has_text="%fine_tune --freeze-epochs").wait_for()
