"""The notebooks that come with the project, as JupyterLab shows them."""

from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize("name", ["quickstart", "pets"])
def test_a_notebook_runs_and_its_saved_file_shows_the_epochs_without_a_kernel(
    notebook, name: str, request: pytest.FixtureRequest
) -> None:
    if name == "pets":
        request.getfixturevalue("pets")  # skips without the photos
    file = NOTEBOOKS / f"{name}.ipynb"
    sources = [cell.source for cell in nbformat.read(file, as_version=4).cells]
    training = next(i for i, text in enumerate(sources) if "%fine_tune" in text[:10])
    nb = notebook(file, file.name)
    nb.run_all()
    outputs = [output for i in range(len(sources)) for output in nb.output(i)]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    nb.cell(training).locator("table").wait_for()
    rows = nb.cell(training).locator("tr").all_inner_texts()
    assert rows[0].split() == ["epoch", "train_loss", "valid_loss", "error_rate", "time"]
    assert rows[1].startswith("head, body frozen")
    nb.screenshot(name)

    nb.save()
    nb.reopen_without_kernel()
    nb.page.locator(".jp-KernelName", has_text="No Kernel").wait_for()
    nb.cell(training).locator("table").wait_for()
    assert nb.cell(training).locator("tr").all_inner_texts() == rows
    nb.screenshot(f"{name}_without_kernel")
