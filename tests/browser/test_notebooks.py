"""The notebooks that come with the project, as JupyterLab shows them."""

import re
from pathlib import Path

import nbformat
import pytest

from .matrix import MATRIX, THUMB, click_cell, expected_files, top_cells

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize("name", ["quickstart", "pets"])
def test_a_notebook_runs_and_its_saved_file_shows_the_epochs_without_a_kernel(
    notebook, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if name == "pets":
        request.getfixturevalue("pets")  # skips without the photos
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    if name == "pets":  # what it trains by hand and compares takes minutes; nbval runs it
        at = {cell.source.splitlines()[0]: i for i, cell in enumerate(book.cells)}
        del book.cells[at["## Which network, and how large the photos"] :]
        del book.cells[at["## A learning rate that is too high"] : at["## What it learned"]]
    sources = [cell.source for cell in book.cells]
    training = next(i for i, text in enumerate(sources) if "%fine_tune" in text[:10])
    nbformat.write(book, tmp_path / f"{name}.ipynb")
    nb = notebook(tmp_path / f"{name}.ipynb", f"{name}.ipynb")
    nb.run_all()
    outputs = [output for i in range(len(sources)) for output in nb.output(i)]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    nb.cell(training).locator("table").wait_for()
    rows = nb.cell(training).locator("tr").all_inner_texts()
    assert rows[0].split() == ["epoch", "train_loss", "valid_loss", "error_rate", "time"]
    assert rows[1].startswith("head, body frozen")
    nb.screenshot(name)
    _look_at_the_top_cell(nb, sources.index("cm = %confusion_matrix"))
    nb.screenshot(f"{name}_matrix")

    nb.save()
    nb.reopen_without_kernel()
    nb.page.locator(".jp-KernelName", has_text="No Kernel").wait_for()
    nb.cell(training).locator("table").wait_for()
    assert nb.cell(training).locator("tr").all_inner_texts() == rows
    nb.screenshot(f"{name}_without_kernel")
    nb.cell(sources.index("cm = %confusion_matrix")).locator(".nbft-static-view img").wait_for()
    nb.screenshot(f"{name}_matrix_without_kernel")


def _look_at_the_top_cell(nb, matrix: int) -> None:
    """Open its pictures, enlarge one, mark it and take that back."""
    from playwright.sync_api import expect

    nb.cell(matrix).locator(MATRIX).wait_for()
    (i, j, n), _ = top_cells(nb)
    click_cell(nb.page, i, j)
    panel = nb.cell(matrix).locator(".nbft-image-panel")
    expect(panel.locator(THUMB)).to_have_count(n)
    assert panel.locator(".nbft-file").all_inner_texts() == expected_files(nb, i, j)
    first = panel.locator(THUMB).first
    first.get_by_role("button").click()
    nb.page.wait_for_function("document.querySelector('dialog[open] img').naturalWidth > 0")
    nb.page.keyboard.press("Escape")
    first.get_by_role("combobox").select_option("remove")
    expect(first).to_have_attribute("data-mark", "remove")
    panel.get_by_role("button", name="Undo mark").click()
    expect(first).to_have_attribute("data-mark", "")


def test_each_run_of_the_lecture_leaves_its_picture_and_table(notebook, tmp_path: Path) -> None:
    """Its cells are methods, in fastai's words. Here with few shapes; nbval takes the photos."""
    book = nbformat.read(NOTEBOOKS / "lecture.ipynb", as_version=4)
    data = next(cell for cell in book.cells if "samples.draw_shapes()" in cell.source)
    data.source = data.source.replace("samples.draw_shapes()", "samples.draw_shapes(n=12)")
    data.source = 'os.environ.pop("NBFINETUNE_PETS", None)\n' + data.source
    sources = [cell.source for cell in book.cells]
    nbformat.write(book, tmp_path / "lecture.ipynb")
    nb = notebook(tmp_path / "lecture.ipynb", "lecture.ipynb")
    nb.run_all()
    runs = [i for i, text in enumerate(sources) if re.search(r"^learn\.fi", text, re.MULTILINE)]
    assert len(runs) == 6
    for i, source in enumerate(sources):
        outputs = nb.output(i)
        assert [output for output in outputs if output["output_type"] == "error"] == [], source
        shown = [html for o in outputs if (html := "".join(o.get("data", {}).get("text/html", "")))]
        if i in runs:
            n = len(re.findall(r"^learn\.fi", source, re.MULTILINE))
            assert len(shown) == n, source  # none twice
            assert all("<table" in html and "data:image/png" in html for html in shown), source
        if "lr_find(" in source:
            nb.cell(i).locator(".nbft-lr-handle").wait_for(state="attached")
            assert len(shown) == 1
            assert "nbft-static-view" in shown[0]
    nb.screenshot("lecture")
