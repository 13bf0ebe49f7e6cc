"""Networks that are compared, on a page: the table grows, Stop keeps it, the end is a picture."""

import pytest

pytest.importorskip("playwright", reason="tests in a browser need playwright")
from playwright.sync_api import expect

DATA = """\
%load_ext nbfinetune
from nbfinetune import ImageDataLoaders, samples
dls = ImageDataLoaders.from_folder(samples.draw_shapes(n=12, size=64), size=64, valid_pct=0.5)"""


def test_the_table_grows_stop_keeps_it_and_a_chart_stays(notebook) -> None:
    nb = notebook([DATA, "found = %networks efficientnet_lite0 --sizes 48,64,256", "found"])
    nb.run_cell(0)
    nb.start_cell(1)
    cell = nb.cell(1)
    cell.get_by_role("button", name="Stop").wait_for()
    cell.locator("table tr").nth(2).wait_for()  # below its heading: two sizes are done
    nb.screenshot("networks")
    cell.get_by_role("button", name="Stop").click()
    nb.wait_idle()
    assert nb.kernel("print(sorted(each.size for each in found.networks))") == "[48, 64]\n"
    expect(cell.get_by_role("button", name="Stop")).to_have_count(0)
    expect(cell.locator("img")).to_have_count(1)
    nb.screenshot("networks_end")
    nb.use_theme("JupyterLab Dark")
    nb.run_cell(2)
    nb.cell(2).locator("img").wait_for()
    nb.screenshot("networks_dark")
