"""A page that is reloaded, or closed and opened again, while a cell trains."""

import time

import pytest

pytest.importorskip("playwright", reason="tests in a browser need playwright")
from playwright.sync_api import expect

from .test_screens import HANDLE, SETUP, drag_to, rate, wait_for_later_epoch, wait_for_text

VIEW = "application/vnd.jupyter.widget-view+json"
CURVE = ".nbft-training svg path.line"
LONG = "%fit_one_cycle 400 1e-2"
SOON = 3.0  # seconds in which a screen is back once the page is


def kinds(nb, i: int) -> list[set[str]]:
    """The MIME types of each output of cell i."""
    return [set(output.get("data", {})) for output in nb.output(i)]


def reload_until_back(nb, screen: str) -> None:
    """Reload the page; the screen in cell 1 must be there soon after the notebook is."""
    began = time.monotonic()
    nb.reload()
    loaded = time.monotonic()
    nb.cell(1).locator(screen).first.wait_for()
    page, back = loaded - began, time.monotonic() - loaded
    print(f"the notebook was there after {page:.2f} s, its screen {back:.2f} s later")
    assert back < max(SOON, page)  # the latter on a busy machine


def ended_as_picture_and_table(nb, i: int) -> None:
    """Wait for the static view of cell i, which must be all that is left."""
    expect(nb.cell(i).locator("tr").nth(1)).to_be_visible()
    expect(nb.cell(i).locator("img")).to_have_count(1)
    expect(nb.cell(i).locator(".nbft-training")).to_have_count(0)
    assert ["text/html" in data for data in kinds(nb, i)].count(True) == 1
    assert not any(VIEW in data for data in kinds(nb, i))


@pytest.mark.parametrize("saved", [False, True], ids=["not saved", "saved"])
def test_the_screen_is_back_after_a_reload_its_buttons_act_and_its_end_comes(
    notebook, kernel: str, saved: bool
) -> None:
    nb = notebook([SETUP, LONG, "ran_on = True"], kernel=kernel)
    nb.start_all()
    wait_for_later_epoch(nb)
    if saved:
        nb.save()
    reload_until_back(nb, CURVE)
    wait_for_later_epoch(nb)
    screen = nb.cell(1).locator(".nbft-training")
    expect(screen).to_have_count(1)
    nb.screenshot(f"reloaded_{'saved' if saved else 'not_saved'}")
    screen.get_by_role("button", name="Stop").click()
    ended_as_picture_and_table(nb, 1)
    nb.wait_idle()
    expect(nb.cell(1)).to_contain_text("stopped in epoch")
    assert nb.kernel("print(learn.recorder.run.status, ran_on)") == "stopped True\n"
    nb.screenshot("reloaded_end")
    nb.save()
    nb.reload()  # nothing is put there a second time
    ended_as_picture_and_table(nb, 1)
    assert nb.kernel(LEFT) == "[]\n"


LEFT = """\
from ipywidgets.widgets.widget import _instances
print([w for w in _instances.values() if "nbfinetune" in type(w).__module__])"""


def test_in_notebook_7_the_screen_is_back_too(notebook) -> None:
    nb = notebook([SETUP, LONG], view="notebooks")
    nb.start_all()
    wait_for_later_epoch(nb)
    reload_until_back(nb, CURVE)
    nb.cell(1).get_by_role("button", name="Stop").click()
    ended_as_picture_and_table(nb, 1)
    nb.errors[:] = [error for error in nb.errors if "widget" in error or "bqplot" in error]


def test_a_page_opened_after_the_run_has_its_picture_and_table(notebook) -> None:
    nb = notebook([SETUP, "%fit_one_cycle 40 1e-2", "ran_on = True"])
    nb.start_all()
    wait_for_later_epoch(nb)
    nb.save()
    with nb.away():
        while nb.kernel_state() != "idle":
            time.sleep(0.2)
    ended_as_picture_and_table(nb, 1)
    assert nb.kernel("print(learn.recorder.run.status, ran_on)") == "finished True\n"


def test_a_screen_displayed_while_no_page_saw_its_cell_start_is_shown_too(notebook) -> None:
    nb = notebook([SETUP, "%fit_one_cycle 20 1e-2\n%fit_one_cycle 400 1e-2"])
    nb.start_all()
    wait_for_later_epoch(nb)
    nb.reload()
    expect(nb.cell(1).locator("img")).to_have_count(1)  # of the first
    stop = nb.cell(1).get_by_role("button", name="Stop")
    stop.wait_for()
    wait_for_later_epoch(nb)
    stop.click()
    expect(nb.cell(1).locator("img")).to_have_count(2)


def test_a_search_is_back_after_a_reload_and_its_marker_works(notebook) -> None:
    nb = notebook([SETUP, "found = %lr_find --num-it 4000 --no-stop-div"])
    nb.start_all()
    nb.page.locator(".nbft-lr-plot").wait_for()
    nb.page.wait_for_timeout(1000)
    reload_until_back(nb, ".nbft-lr-plot svg")
    nb.page.locator(HANDLE).wait_for()
    nb.wait_idle()
    drag_to(nb.page, 3e-3)
    wait_for_text(nb, "next run: 3.0e-3")
    assert rate(nb) == pytest.approx(3e-3, rel=0.02)
    assert [VIEW in data for data in kinds(nb, 1)] == [True, False]
    expect(nb.cell(1).locator(".nbft-static-view")).to_be_hidden()


@pytest.mark.parametrize("meanwhile", ["reloaded", "cleared", "neither"])
def test_a_run_in_the_background_ends_as_picture_and_table(notebook, meanwhile: str) -> None:
    nb = notebook([SETUP, f"{LONG} --bg", "%stop"])
    nb.run_cell(0)
    nb.run_cell(1)
    wait_for_later_epoch(nb)
    if meanwhile == "reloaded":
        reload_until_back(nb, CURVE)
    elif meanwhile == "cleared":
        nb.select_cell(1)
        nb.execute("notebook:clear-cell-output")
        expect(nb.page.locator(".nbft-training")).to_have_count(0)
    nb.run_cell(2)
    ended_as_picture_and_table(nb, 1)
    assert nb.kernel(f"learn.control.thread and learn.control.thread.join()\n{LEFT}") == "[]\n"


@pytest.mark.parametrize("view", ["no kernel", "doc/tree", "notebooks"])
def test_a_notebook_opened_again_shows_the_static_views_and_no_trace_of_widgets(
    notebook, view: str
) -> None:
    nb = notebook([SETUP, "%lr_find", "cm = %confusion_matrix"])
    nb.run_all()
    for i in (1, 2):
        expect(nb.cell(i).locator(".widget-container").first).to_be_visible()
        expect(nb.cell(i).locator(".nbft-static-view")).to_be_hidden()
    nb.save()
    if view == "no kernel":
        nb.reopen_without_kernel()
    else:  # with a new kernel
        nb.reopen(view)
    for i in (1, 2):
        expect(nb.cell(i).locator(".nbft-static-view")).to_be_visible()
        nb.page.wait_for_timeout(1000)  # the check itself: nothing appears above it
        text = nb.cell(i).locator(".jp-Cell-outputArea").inner_text()
        assert "widget" not in text, text
    nb.screenshot(f"opened_again_{view.replace('/', '_').replace(' ', '_')}")
    nb.errors.clear()  # ipywidgets says that it has no such model
