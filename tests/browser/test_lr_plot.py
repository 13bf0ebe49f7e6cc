"""The plot of a search under a real mouse and keyboard, fed with a curve that is known."""

import io
import json
import math
import re

import pytest
from PIL import Image

pytest.importorskip("playwright", reason="tests in a browser need playwright")
from playwright.sync_api import expect

from .lr_plot import AREA, HANDLE, px_beside_its_rate, when_still

PLOT = """\
import numpy as np
from nbfinetune.widgets.lr_plot import LRPlot

lrs = np.geomspace(1e-7, 10, 81)
x = np.log10(lrs)
smooth = 3.5 - 2 / (1 + np.exp(-3 * (x + 3))) + 10.0 ** np.clip(3 * x, -9, 2)
losses = smooth + 0.1 * np.sin(7 * x)
plot = LRPlot(1e-7, 10)
plot.draw(lrs, losses, smooth)
marks = {"bracket": 1.9e-3, "valley": 1.6e-3, "steep": 1.1e-3, "minimum": 2e-2, "slide": 4.0}
plot.finish(marks, (2e-4, 2e-2), None, 1.9e-3, "bracket", "the loss falls")
plot"""
MARKS = {"bracket": 1.9e-3, "valley": 1.6e-3, "steep": 1.1e-3, "minimum": 2e-2, "slide": 4.0}

BOXES = """selectors => selectors.flatMap(one => [...document.querySelectorAll(one)]).map(node => {
    const { x, y, width, height } = node.getBoundingClientRect();
    return { x, y, width, height };
})"""


@pytest.fixture
def nb(notebook):
    nb = notebook([PLOT, "after = 1"])
    nb.run_cell(0)
    nb.page.locator(HANDLE).wait_for()
    when_still(nb.page)
    return nb


def x_of(page, lr: float) -> float:
    """Where a rate is on the page."""
    area = page.locator(AREA).bounding_box()
    return area["x"] + (math.log10(lr) + 7) / 8 * area["width"]


def kernel_rate(nb) -> float:
    return float(nb.kernel("print(plot.lr)"))


def test_marker_lines_field_and_text_agree_and_are_spelled_alike(nb) -> None:
    page = nb.page
    drawn = page.locator(".nbft-suggestion")
    assert drawn.count() == len(MARKS)
    for k, lr in enumerate(MARKS.values()):
        box = drawn.nth(k).bounding_box()
        assert box["x"] + box["width"] / 2 == pytest.approx(x_of(page, lr), abs=1)
    field = page.get_by_label("learning rate", exact=True)
    for lr, text in ((1.9e-3, "1.9e-3"), (0.000123456, "1.2e-4"), (10.0, "1.0e1"), (1.0, "1.0e0")):
        nb.kernel(f"plot.lr = {lr}")
        expect(page.locator(".nbft-rate")).to_have_text(text)
        expect(field).to_have_value(text)
        expect(page.locator(".nbft-status")).to_contain_text(f"next run: {text} (")
        assert px_beside_its_rate(page) < 1
    assert kernel_rate(nb) == 1.0


def test_names_of_suggestions_lie_in_the_plot_and_not_on_each_other(nb) -> None:
    page = nb.page
    for width in (560, 800, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        when_still(page)
        area, *boxes = page.evaluate(BOXES, [AREA, ".nbft-name"])  # at one moment
        assert len(boxes) == len(MARKS)
        for box in boxes:
            assert box["x"] >= area["x"]
            assert box["x"] + box["width"] <= area["x"] + area["width"]
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                beside = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
                assert beside or abs(a["y"] - b["y"]) >= 15, (width, a, b)
    texts = page.locator(".nbft-name").all_text_contents()
    assert texts[:2] == ["suggested rate (bracket) 1.9e-3", "valley 1.6e-3"]
    assert "usable range" in page.locator(".nbft-legend").all_text_contents()


def test_the_pointer_shows_rate_loss_and_smoothed_loss_of_the_nearest_step(nb) -> None:
    page = nb.page
    area = page.locator(AREA).bounding_box()
    page.mouse.move(x_of(page, 10**-3.98), area["y"] + area["height"] * 0.7)
    shown = page.locator(".nbft-tip")
    expect(shown).to_be_visible()
    losses = json.loads(nb.kernel("print([float(losses[30]), float(smooth[30])])"))
    rows = re.findall(r"([a-z]+)\s*([-.e\d]+)", shown.inner_text())
    assert rows == [
        ("rate", "1.0e-4"),
        ("loss", f"{losses[0]:.3f}"),
        ("smoothed", f"{losses[1]:.3f}"),
    ]
    line = page.locator(".nbft-crosshair").bounding_box()
    assert line["x"] == pytest.approx(x_of(page, 1e-4), abs=1.5)
    page.mouse.move(area["x"] - 30, area["y"] - 60)
    expect(shown).to_be_hidden()
    # The same by keyboard, and for screen readers.
    nb.kernel("plot.lr = 1.02e-4")
    page.locator(HANDLE).focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(shown).to_contain_text(f"{losses[1]:.3f}")
    spoken = f"1.0e-4, loss {losses[0]:.3f}, smoothed {losses[1]:.3f}"
    expect(page.locator(HANDLE)).to_have_attribute("aria-valuetext", spoken)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_the_saved_picture_is_a_png_of_what_one_sees(nb, theme: str) -> None:
    page = nb.page
    nb.use_theme(theme)
    page.mouse.move(5, 5)
    page.wait_for_timeout(1000)  # bqplot draws 300 ms after a change of its size
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save picture").click()
    saved = waiting.value
    assert saved.suggested_filename == "lr_find.png"
    data = saved.path().read_bytes()
    assert data.startswith(b"\x89PNG")
    assert 10_000 < len(data) < 1_000_000
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    drawn = page.locator(".nbft-drawn").bounding_box()
    assert picture.size == pytest.approx((2 * drawn["width"], 2 * drawn["height"]), abs=2)
    # Where the page shows the marker's number, the paper and the line, so does the picture.
    area, pill = page.locator(AREA).bounding_box(), page.locator(".nbft-pill").bounding_box()
    spots = [
        (pill["x"] + 5, pill["y"] + pill["height"] / 2),
        (x_of(page, 1.9e-3), area["y"] + area["height"] * 0.3),
        (area["x"] + area["width"] * 0.2, area["y"] + area["height"] * 0.9),
    ]
    page.mouse.move(5, 5)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for x, y in spots:
        at = 2 * (x - drawn["x"]), 2 * (y - drawn["y"])
        assert picture.getpixel((round(at[0]), round(at[1]))) == pytest.approx(
            shot.getpixel((int(x), int(y))), abs=40
        )


def test_keys_of_the_marker_and_the_field_do_not_reach_the_notebook(nb) -> None:
    page = nb.page
    field = page.get_by_label("learning rate", exact=True)
    for part in (page.locator(HANDLE), field):
        part.focus()
        for key in ("m", "d", "d", "a", "b", "y", "ArrowDown", "ArrowUp", "z", "x"):
            page.keyboard.press(key)
        cells = "window.jupyterapp.shell.currentWidget.content.widgets.map(c => c.model.type)"
        assert page.evaluate(cells) == ["code", "code"]
        assert nb.active_cell() == 0
        expect(page.locator(HANDLE)).to_be_visible()
    page.keyboard.press("Escape")  # back to the cell
    page.keyboard.press("j")
    page.wait_for_function("window.jupyterapp.shell.currentWidget.content.activeCellIndex === 1")


def test_what_is_no_rate_is_not_taken_from_the_field(nb) -> None:
    page = nb.page
    field = page.get_by_label("learning rate", exact=True)
    for text in ("abc", "-1e-3", "0", ""):
        field.fill(text)
        field.press("Enter")
        assert field.evaluate("field => field.validationMessage") == (
            "a number above 0, such as 1e-3"
        )
    field.fill("abc")
    page.locator(HANDLE).focus()
    expect(field).to_have_value("1.9e-3")
    assert kernel_rate(nb) == 1.9e-3
    field.fill("2.5e-3")
    field.press("Enter")
    expect(page.locator(".nbft-status")).to_contain_text("next run: 2.5e-3 (")
    assert kernel_rate(nb) == 2.5e-3
    field.fill("100")  # the axis ends at 10
    field.press("Enter")
    expect(field).to_have_value("1.0e1")


def test_the_width_follows_the_output(nb) -> None:
    page = nb.page
    for width in (800, 1400, 1900, 1000):
        page.set_viewport_size({"width": width, "height": 900})
        _, area = when_still(page)
        output = nb.cell(0).locator(".jp-OutputArea-output").bounding_box()
        plot = page.locator(".nbft-lr-plot").bounding_box()
        assert plot["width"] == pytest.approx(min(output["width"], 1600), abs=20)
        assert area["width"] > plot["width"] - 120
        assert px_beside_its_rate(page) < 1
