"""Static pictures on the page: light and dark, and in notebooks that are not trusted."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

SHOW = """
import math
from nbfinetune import ClassificationInterpretation
from nbfinetune.history.recorder import Recorder
from nbfinetune.history.runs import Run
recorder = Recorder()
names = ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
run = Run("fit_one_cycle", 2, 40, names, status="finished")
run.losses = run.smooth = [3 * math.exp(-k / 30) + 0.2 for k in range(80)]
run.lrs, run.moms = [[1e-3]] * 80, [0.9] * 80
run.rows = [dict(zip(names, [e, 1.0, 1.2 - e / 2, 0.5 + e / 5, 3.0])) for e in range(2)]
run.row_steps, run.kept = [40, 80], run.rows[1]
recorder.runs.append(run)
recorder
"""
MATRIX = """
targets = [k % 4 for k in range(80)]
interp = ClassificationInterpretation.from_predictions(
    targets, [t if k % 5 else (t + 1) % 4 for k, t in enumerate(targets)],
    ["Abyssinian", "Bengal", "american_pit_bull_terrier", "pug"],
)
interp.plot_confusion_matrix()
"""
FILTER = "images => images.map(image => getComputedStyle(image).filter)"
WIDTHS = "images => images.map(image => [image.naturalWidth > 0, image.clientWidth])"


def test_pictures_are_on_white_paper_in_light_and_turn_dark_with_the_page(notebook) -> None:
    page = notebook([SHOW, MATRIX])
    page.use_theme("JupyterLab Light")  # another test's choice is kept by the server
    page.run_all()
    pictures = page.page.locator(".nbft-picture")
    assert pictures.evaluate_all(FILTER) == ["none", "none"]
    page.cell(0)
    page.screenshot("pictures-light")
    page.use_theme("JupyterLab Dark")
    assert pictures.evaluate_all(FILTER) == ["invert(0.93) hue-rotate(180deg)"] * 2
    page.cell(0)
    page.screenshot("pictures-dark")


def test_a_notebook_that_is_not_trusted_shows_the_pictures(notebook, tmp_path) -> None:
    names = {}
    exec(SHOW + MATRIX, names)
    shown = [names["recorder"], names["interp"].plot_confusion_matrix()]
    cells = []
    for each in shown:
        data = {"text/plain": repr(each), "text/html": each._repr_html_()}
        output = new_output("execute_result", data, execution_count=1)
        cells.append(new_code_cell("shown", outputs=[output], execution_count=1))
    book = new_notebook(cells=cells)
    book.metadata.kernelspec = {"name": "python3", "display_name": "python3"}
    nbformat.write(book, tmp_path / "foreign.ipynb")
    page = notebook(tmp_path / "foreign.ipynb", name="foreign.ipynb")
    page.use_theme("JupyterLab Dark")
    images = page.page.locator(".jp-OutputArea img")
    images.nth(1).wait_for()
    assert images.evaluate_all(WIDTHS) == [[True, 640], [True, 418]]
    assert "invert" not in page.page.locator(".jp-OutputArea").first.inner_text()
    page.screenshot("pictures-not-trusted")
