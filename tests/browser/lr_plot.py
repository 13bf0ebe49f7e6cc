"""What tests do with the plot of a search on a page."""

import math

import pytest

HANDLE = ".nbft-lr-handle"
AREA = ".nbft-over .plotarea_events"  # between the axes
DECADES = (-7, 1)  # of the ends of the axis


def drag_to(page, lr: float) -> None:
    """Drag the marker with the mouse."""
    page.locator(HANDLE).scroll_into_view_if_needed()
    handle, area = when_still(page)
    share = (math.log10(lr) - DECADES[0]) / (DECADES[1] - DECADES[0])
    middle = handle["y"] + handle["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(area["x"] + share * area["width"], middle - 20, steps=15)
    page.mouse.up()


def when_still(page) -> list[dict]:
    """Where the marker and the plot are once the page has come to rest."""
    before = None
    for _ in range(100):
        boxes = [page.locator(name).bounding_box() for name in (HANDLE, AREA)]
        if boxes == before:
            return boxes
        before = boxes
        page.wait_for_timeout(400)  # a figure draws itself 300 ms after its box changed
    pytest.fail("the page does not come to rest")


def px_beside_its_rate(page) -> float:
    """How far the marker is from where the tick labels of the axis say that its rate is."""
    ticks = page.evaluate("""() => [...document.querySelectorAll(".nbft-over g.tick")].map(tick =>
        [tick.textContent, tick.querySelector("line").getBoundingClientRect().x])""")
    ticks = [(math.log10(float(text)), x) for text, x in ticks if "e" in text]  # not the losses
    (low, left), (high, right) = min(ticks), max(ticks)
    lr = float(page.locator(HANDLE).get_attribute("aria-valuenow"))
    expected = left + (math.log10(lr) - low) / (high - low) * (right - left)
    parts = [page.locator(name).bounding_box() for name in (HANDLE, ".nbft-marker-line")]
    return max(abs(box["x"] + box["width"] / 2 - expected) for box in parts)
