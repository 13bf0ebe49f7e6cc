"""What tests do with the confusion matrix on a page."""

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from .notebook import Notebook

MATRIX, THUMB = ".nbft-matrix[data-painted]", ".nbft-thumb"


def click_cell(page, row: int, column: int) -> None:
    canvas = page.locator(MATRIX).first
    canvas.scroll_into_view_if_needed()
    canvas.click(position=place_of(canvas, row, column))


def place_of(canvas: "Locator", row: int, column: int) -> dict[str, float]:
    """Where the middle of a cell lies on the canvas."""
    cell, left, top = (float(canvas.get_attribute(f"data-{k}")) for k in ("cell", "left", "top"))
    return {"x": left + (column + 0.5) * cell, "y": top + (row + 0.5) * cell}


def files(page) -> list[str]:
    return page.locator(f"{THUMB} .nbft-file").all_inner_texts()


def wait_for_cell(nb: "Notebook", i: int, j: int, n: int) -> None:
    """Wait for the panel of a cell, and for its pictures."""
    from playwright.sync_api import expect

    names = nb.kernel(f"print(cm.interp.vocab[{i}], cm.interp.vocab[{j}])").split()
    pictures = "1 picture" if n == 1 else f"{n} pictures"
    heading = f"actual {names[0]}, predicted {names[1]}: {pictures}"
    expect(nb.page.locator(".nbft-image-panel-head h4")).to_have_text(heading)
    expect(nb.page.locator(THUMB)).to_have_count(n)
    nb.page.wait_for_function(
        f"[...document.querySelectorAll('{THUMB} img')].every(image => image.naturalWidth > 0)"
    )


def expected_files(nb: "Notebook", actual: int, predicted: int) -> list[str]:
    code = f"print([cm.interp.path(i).name for i in cm.interp.cell({actual}, {predicted})])"
    return ast.literal_eval(nb.kernel(code))


def top_cells(nb: "Notebook") -> list[tuple[int, int, int]]:
    return ast.literal_eval(nb.kernel("print(cm.interp.confused_cells()[:2])"))


def in_view(locator: "Locator") -> bool:
    """Whether all of an element is inside the part of the notebook that is seen, once it rests."""
    return locator.evaluate(
        """async node => {
            const outer = node.closest(".jp-WindowedPanel-outer").getBoundingClientRect();
            let before, now;
            do {  // a smooth scroll goes on for some frames
                before = now;
                await new Promise(done => setTimeout(done, 200));
                now = node.getBoundingClientRect();
            } while (before?.y !== now.y);
            return now.top >= outer.top - 1 && now.bottom <= outer.bottom + 1;
        }"""
    )
