"""The confusion matrix and its pictures under a real mouse and keyboard."""

import ast

from playwright.sync_api import expect

SETUP = """\
%load_ext nbfinetune
from nbfinetune import ImageDataLoaders, samples, vision_learner
path = samples.draw_shapes(n=12, size=64)
dls = ImageDataLoaders.from_folder(path, size=64, valid_pct=0.5)
learn = vision_learner(dls, "efficientnet_lite0", device="cpu")
learn.fit_one_cycle(2, 3e-3);"""

MATRIX, THUMB = ".nbft-matrix", ".nbft-thumb"


def click_cell(page, row: int, column: int) -> None:
    canvas = page.locator(MATRIX)
    canvas.scroll_into_view_if_needed()
    cell, margin = (float(canvas.get_attribute(f"data-{name}")) for name in ("cell", "margin"))
    canvas.click(position={"x": margin + (column + 0.5) * cell, "y": (row + 0.5) * cell})


def files(page) -> list[str]:
    return page.locator(f"{THUMB} .nbft-file").all_inner_texts()


def expected_files(nb, actual: int, predicted: int) -> list[str]:
    code = f"print([cm.interp.path(i).name for i in cm.interp.cell({actual}, {predicted})])"
    return ast.literal_eval(nb.kernel(code))


def top_cells(nb) -> list[tuple[int, int, int]]:
    return ast.literal_eval(nb.kernel("print(cm.interp.confused_cells()[:2])"))


def test_a_click_opens_the_pictures_which_are_marked_undone_and_enlarged(notebook, lab) -> None:
    cells = [SETUP, "cm = %confusion_matrix", "%clean", "%clean --apply", "%clean --undo"]
    nb = notebook(cells)
    nb.run_cell(0)
    nb.run_cell(1)
    page = nb.page
    page.locator(MATRIX).wait_for()
    expect(page.locator(THUMB)).to_have_count(0)
    (i, j, n), (a, b, m) = top_cells(nb)

    click_cell(page, i, j)
    expect(page.locator(THUMB)).to_have_count(n)
    assert files(page) == expected_files(nb, i, j)
    shown = page.evaluate(f"[...document.querySelectorAll('{THUMB} img')].map(i => i.naturalWidth)")
    assert shown == [73] * n  # as the data set keeps them: 64 px and the margin
    assert nb.kernel("print(cm.selected)") == f"({i}, {j})\n"
    nb.screenshot("matrix_cell")

    first = page.locator(THUMB).first
    name = files(page)[0]
    first.get_by_role("combobox").select_option("remove")
    expect(page.get_by_role("status").filter(has_text=f"{name}: remove (1 marked")).to_be_visible()
    expect(first).to_have_attribute("data-mark", "remove")
    click_cell(page, a, b)
    expect(page.locator(THUMB)).to_have_count(m)
    assert files(page) == expected_files(nb, a, b)
    click_cell(page, i, j)  # the mark is still there
    expect(page.locator(THUMB).first).to_have_attribute("data-mark", "remove")
    page.get_by_role("button", name="Undo mark").click()
    expect(page.locator(THUMB).first).to_have_attribute("data-mark", "")
    page.locator(THUMB).first.get_by_role("combobox").focus()
    label = nb.kernel(f"print(cm.interp.vocab[{j}])").strip()
    page.locator(THUMB).first.get_by_role("combobox").select_option(f"relabel:{label}")
    expect(page.locator(THUMB).first).to_have_attribute("data-mark", f"relabel as {label}")

    page.locator(THUMB).first.get_by_role("button").click()
    large = page.locator("dialog.nbft-large img")
    large.wait_for()
    page.wait_for_function("document.querySelector('dialog.nbft-large img').naturalWidth > 0")
    nb.screenshot("matrix_enlarged")
    page.keyboard.press("Escape")
    expect(page.locator("dialog.nbft-large")).to_be_hidden()

    nb.run_cell(2)
    assert f"relabel as {label}" in nb.output(2)[0]["data"]["text/plain"]
    nb.run_cell(3)
    _, folder = lab
    assert f",relabel,{label}," in (folder / "corrections.csv").read_text()
    nb.run_cell(4)
    assert not (folder / "corrections.csv").exists()


def test_the_keyboard_alone_finds_a_cell_and_its_pictures(notebook) -> None:
    nb = notebook([SETUP, "cm = %confusion_matrix"])
    nb.run_cell(0)
    nb.run_cell(1)
    page = nb.page
    page.locator(MATRIX).focus()
    (i, j, n), _ = top_cells(nb)
    for _ in range(i):
        page.keyboard.press("ArrowDown")
    for _ in range(j):
        page.keyboard.press("ArrowRight")
    names = nb.kernel(f"print(cm.interp.vocab[{i}], cm.interp.vocab[{j}])").split()
    line = f"actual {names[0]}, predicted {names[1]}: {n} ("
    expect(page.locator(".nbft-matrix-line")).to_contain_text(line)
    page.keyboard.press("Enter")
    expect(page.locator(THUMB)).to_have_count(n)
    assert files(page) == expected_files(nb, i, j)
    page.keyboard.press("Tab")  # the first picture
    page.keyboard.press("Enter")
    page.locator("dialog.nbft-large img").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")  # its mark
    page.keyboard.press("f")  # the entry that begins so
    expect(page.locator(THUMB).first).to_have_attribute("data-mark", "fine")
    nb.screenshot("matrix_keyboard")


def test_pairs_and_losses_open_the_same_drawer(notebook) -> None:
    cells = [SETUP, "pairs = %most_confused", "losses = %top_losses 40", "issues = %label_issues 5"]
    nb = notebook(cells)
    nb.run_all()
    first = ast.literal_eval(nb.kernel("print(pairs.pairs[0])"))
    nb.cell(1).get_by_label("pairs").select_option(
        f"actual {first[0]}, predicted {first[1]}: {first[2]}"
    )
    expect(nb.cell(1).locator(THUMB)).to_have_count(first[2])
    nb.screenshot("most_confused")

    expect(nb.cell(2).locator(THUMB)).to_have_count(36)
    expect(nb.cell(2).locator(".nbft-drawer-head")).to_contain_text("page 1 of 2")
    nb.cell(2).get_by_role("button", name="Next page").click()
    expect(nb.cell(2).locator(THUMB)).to_have_count(4)
    order = ast.literal_eval(
        nb.kernel("print([losses.interp.path(i).name for i in losses.items[36:]])")
    )
    assert nb.cell(2).locator(f"{THUMB} .nbft-file").all_inner_texts() == order
    nb.screenshot("top_losses")
    expect(nb.cell(3).locator(THUMB)).to_have_count(5)
    expect(nb.cell(3).locator(".nbft-twin")).to_be_hidden()

    nb.save()
    nb.reopen_without_kernel()
    for i in (1, 2, 3):
        nb.cell(i).locator(".nbft-twin table").wait_for()
    nb.screenshot("interpretation_without_kernel")


UNTRUSTED = """\
%load_ext nbfinetune
from types import SimpleNamespace
import torch
from torch import nn
from nbfinetune import Learner
names = ["<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked=1'>",
         "n" * 200, '"quoted" & \\u0027single\\u0027',
         "\\u05e2\\u05d1\\u05e8\\u05d9\\u05ea \\u202e abc"]
x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
batch = x, torch.arange(50) % 5
loaders = SimpleNamespace(train=[batch], valid=[batch], vocab=names)
learn = Learner(loaders, nn.Linear(8, 5), device="cpu")"""


def test_names_are_text_whatever_is_in_them(notebook) -> None:
    nb = notebook([UNTRUSTED, "cm = %confusion_matrix", "%most_confused", "%top_losses 3"])
    nb.run_all()
    page = nb.page
    page.locator(MATRIX).wait_for()
    click_cell(page, 0, 0)
    expect(page.locator(".nbft-drawer-head").first).to_contain_text("<script>window.hacked")
    expect(nb.cell(3).locator(THUMB)).to_have_count(3)
    expect(nb.cell(3).locator(".nbft-missing").first).to_contain_text("no picture is known")
    assert page.evaluate("window.hacked") is None
    assert page.locator(".jp-OutputArea script, .jp-OutputArea img[src=x]").count() == 0
    nb.screenshot("matrix_untrusted")


def test_a_matrix_of_a_thousand_classes_is_paged_searched_and_shown_whole(notebook) -> None:
    code = """\
%load_ext nbfinetune
import time
import torch
from nbfinetune import ClassificationInterpretation, Corrections
from nbfinetune.widgets.confusion_matrix import ConfusionMatrix
g = torch.Generator().manual_seed(0)
targets = torch.randint(1000, (50_000,), generator=g)
preds = torch.where(torch.rand(50_000, generator=g) < 0.7, targets,
                    torch.randint(1000, (50_000,), generator=g))
interp = ClassificationInterpretation.from_predictions(
    targets, preds, [f"class {k:04}" for k in range(1000)])"""
    nb = notebook([code, "cm = ConfusionMatrix(interp, Corrections())\ncm"])
    nb.run_all()
    page = nb.page
    page.locator(MATRIX).wait_for()
    names = ast.literal_eval(nb.kernel("print(cm.canvas.names)"))
    assert len(names) == 31
    assert names[-1] == "others"
    page.get_by_label("class", exact=True).fill("0042")
    page.keyboard.press("Enter")
    expect(page.locator(".nbft-status")).to_contain_text("1 classes have '0042'")
    click_cell(page, 0, 0)
    n = int(nb.kernel("print(len(interp.cell(42, 42)))"))
    expect(page.locator(".nbft-drawer-head")).to_contain_text(f"{n} pictures")
    page.get_by_label("class", exact=True).fill("")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Next classes").click()
    expect(page.get_by_text("page 2 of 34")).to_be_visible()
    before = page.locator(MATRIX).get_attribute("data-painted")
    started = page.evaluate("performance.now()")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function(f"document.querySelector('{MATRIX}').dataset.painted > {before}")
    print("ms to paint 1,000 classes:", round(page.evaluate("performance.now()") - started))
    nb.screenshot("matrix_1000")
    i = int(nb.kernel("print(cm.view.classes[300])"))
    page.locator(MATRIX).focus()
    click_cell(page, 300, 300)
    wait = f"print(cm.selected == ({i}, {i}))"
    expect(page.locator(".nbft-drawer-head")).to_contain_text(f"actual class {i:04}")
    assert nb.kernel(wait) == "True\n"


def test_axe_finds_nothing_serious_in_the_matrix(notebook) -> None:
    from axe_playwright_python.sync_playwright import Axe

    nb = notebook([SETUP, "cm = %confusion_matrix", "%most_confused"])
    nb.run_all()
    (i, j, n), _ = top_cells(nb)
    click_cell(nb.page, i, j)
    expect(nb.cell(1).locator(THUMB)).to_have_count(n)
    for screen in (".nbft-confusion", ".widget-select"):
        found = Axe().run(nb.page, context=screen).response["violations"]
        bad = [(v["id"], v["impact"], [n["html"][:200] for n in v["nodes"]]) for v in found]
        assert [v for v in bad if v[1] in ("serious", "critical")] == [], screen
