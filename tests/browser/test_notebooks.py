"""The notebooks that come with the project, as JupyterLab shows them."""

from pathlib import Path

import nbformat

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


def test_the_quickstart_runs_and_its_saved_file_shows_the_epochs_without_a_kernel(notebook) -> None:
    sources = [cell.source for cell in nbformat.read(QUICKSTART, as_version=4).cells]
    training = next(i for i, text in enumerate(sources) if text.startswith("%fine_tune"))
    nb = notebook(QUICKSTART, "quickstart.ipynb")
    nb.run_all()
    outputs = [output for i in range(len(sources)) for output in nb.output(i)]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    rows = nb.cell(training).locator("tr").all_inner_texts()
    assert rows[0].split() == ["epoch", "train_loss", "valid_loss", "error_rate", "time"]
    assert rows[1].startswith("head, body frozen")
    nb.screenshot("quickstart")

    nb.save()
    nb.reopen_without_kernel()
    nb.page.locator(".jp-KernelName", has_text="No Kernel").wait_for()
    nb.cell(training).locator("table").wait_for()
    assert nb.cell(training).locator("tr").all_inner_texts() == rows
    nb.screenshot("quickstart_without_kernel")
