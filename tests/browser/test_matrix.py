"""The confusion matrix and its pictures under a real mouse and keyboard."""

import ast
import statistics

from playwright.sync_api import expect

from .matrix import (
    MATRIX,
    THUMB,
    click_cell,
    expected_files,
    files,
    in_view,
    place_of,
    top_cells,
    wait_for_cell,
)

SETUP = """\
%load_ext nbfinetune
from nbfinetune import ImageDataLoaders, samples, vision_learner
path = samples.draw_shapes(n=12, size=64)
dls = ImageDataLoaders.from_folder(path, size=64, valid_pct=0.5)
learn = vision_learner(dls, "efficientnet_lite0", device="cpu")
learn.fit_one_cycle(2, 3e-3);"""


CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(
    cell => [cell.model.type, cell.model.sharedModel.source])"""


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
    wait_for_cell(nb, i, j, n)
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
    wait_for_cell(nb, a, b, m)
    assert files(page) == expected_files(nb, a, b)
    click_cell(page, i, j)  # the mark is still there
    wait_for_cell(nb, i, j, n)
    expect(page.locator(THUMB).first).to_have_attribute("data-mark", "remove")
    page.get_by_role("button", name="Undo mark").click()
    expect(page.locator(THUMB).first).to_have_attribute("data-mark", "")
    page.locator(THUMB).first.get_by_role("combobox").focus()
    label = nb.kernel(f"print(cm.interp.vocab[{j}])").strip()
    page.locator(THUMB).first.get_by_role("combobox").select_option(f"relabel:{label}")
    expect(page.locator(THUMB).first).to_have_attribute("data-mark", f"relabel as {label}")

    for _ in range(2):  # the same picture twice
        page.locator(THUMB).first.get_by_role("button").click()
        page.locator("dialog.nbft-large img").wait_for()
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
    wait_for_cell(nb, i, j, n)
    assert files(page) == expected_files(nb, i, j)
    for _ in range(20):  # past the buttons to the first picture
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "nbft-open":
            break
    page.keyboard.press("Enter")
    page.locator("dialog.nbft-large img").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")  # its mark
    page.keyboard.press("r")  # an entry that begins so; JupyterLab would make the cell raw
    expect(page.get_by_text("Enter marks it: remove")).to_be_visible()
    expect(page.locator(THUMB).first).to_have_attribute("data-mark", "")
    page.keyboard.press("Enter")
    expect(page.locator(THUMB).first).to_have_attribute("data-mark", "remove")
    nb.screenshot("matrix_keyboard")


def test_pairs_and_losses_open_the_same_image_panel(notebook) -> None:
    cells = [SETUP, "pairs = %most_confused", "losses = %top_losses 40", "issues = %label_issues 5"]
    nb = notebook(cells)
    nb.run_all()
    first = ast.literal_eval(nb.kernel("print(pairs.pairs[0])"))
    nb.cell(1).get_by_role(
        "option", name=f"actual {first[0]}, predicted {first[1]}: {first[2]}"
    ).click()
    expect(nb.cell(1).locator(THUMB)).to_have_count(first[2])
    assert in_view(nb.cell(1).locator(".nbft-image-panel-head"))
    nb.screenshot("most_confused")
    nb.cell(1).get_by_label("pairs").focus()
    for key in "mddxab":
        nb.page.keyboard.press(key)
    nb.page.keyboard.press("ArrowDown")
    second = ast.literal_eval(nb.kernel("print(pairs.pairs[1])"))
    expect(nb.cell(1).locator(".nbft-image-panel-head h4")).to_contain_text(
        f"actual {second[0]}, predicted {second[1]}: {second[2]}"
    )
    assert nb.page.evaluate(CELLS) == [["code", source] for source in cells]

    expect(nb.cell(2).locator(THUMB)).to_have_count(36)
    expect(nb.cell(2).locator(".nbft-image-panel-head")).to_contain_text("page 1 of 2")
    nb.cell(2).get_by_role("button", name="Next page").click()
    expect(nb.cell(2).locator(THUMB)).to_have_count(4)
    order = ast.literal_eval(
        nb.kernel("print([losses.interp.path(i).name for i in losses.items[36:]])")
    )
    assert nb.cell(2).locator(f"{THUMB} .nbft-file").all_inner_texts() == order
    nb.screenshot("top_losses")
    expect(nb.cell(3).locator(THUMB)).to_have_count(5)
    expect(nb.cell(3).locator(".nbft-static-view")).to_be_hidden()

    nb.save()
    nb.reopen_without_kernel()
    for i in (1, 2, 3):
        nb.cell(i).locator(".nbft-static-view table").wait_for()
    nb.screenshot("interpretation_without_kernel")


UNTRUSTED = """\
%load_ext nbfinetune
from pathlib import Path
from tempfile import mkdtemp
import numpy as np
from PIL import Image
from torch import nn
from nbfinetune import ImageDataLoaders, vision_learner

names = ["<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked=1'>",
         "n" * 200, '"quoted" & \\u0027single\\u0027',
         "\\u05e2\\u05d1\\u05e8\\u05d9\\u05ea \\u202e abc"]
folder, noise = Path(mkdtemp()), np.random.default_rng(0)
files = [folder / f"<b onclick=hack()>{k}.png" for k in range(20)]
for file in files:
    Image.fromarray(noise.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(file)
dls = ImageDataLoaders.from_lists(folder, files, [names[k % 5] for k in range(20)], size=32,
                                  valid_pct=0.5)
learn = vision_learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Linear(8, 5)),
                       device="cpu", normalize=([0.5] * 3, [0.5] * 3))"""


def test_names_are_text_whatever_is_in_them(notebook) -> None:
    nb = notebook([UNTRUSTED, "cm = %confusion_matrix", "%most_confused", "%top_losses 3"])
    nb.run_all()
    page = nb.page
    page.locator(MATRIX).wait_for()
    (i, j, _), _ = top_cells(nb)
    click_cell(page, i, j)
    expect(nb.cell(1).locator(f"{THUMB} .nbft-file").first).to_contain_text("<b onclick=hack()>")
    nb.cell(1).locator(THUMB).first.get_by_role("combobox").select_option("remove")
    expect(nb.cell(1).get_by_role("status").filter(has_text="remove (1 marked")).to_be_visible()
    expect(nb.cell(3).locator(THUMB)).to_have_count(3)
    assert page.evaluate("window.hacked") is None
    for bad in ("script", "img[src=x]", "b[onclick]"):
        assert page.locator(f".jp-OutputArea {bad}").count() == 0
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
    expect(page.locator(".nbft-status")).to_contain_text("1 class has '0042'")
    click_cell(page, 0, 0)
    n = int(nb.kernel("print(len(interp.cell(42, 42)))"))
    expect(page.locator(".nbft-image-panel-head")).to_contain_text(f"{n} pictures")
    page.get_by_label("class", exact=True).fill("")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Next classes").click()
    expect(page.get_by_text("page 2 of 34")).to_be_visible()
    before = page.locator(MATRIX).get_attribute("data-painted")
    started = page.evaluate("performance.now()")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function(f"document.querySelector('{MATRIX}').dataset.painted > {before}")
    print("ms from Show all to 1,000 classes:", round(page.evaluate("performance.now()") - started))
    nb.screenshot("matrix_1000")
    i = int(nb.kernel("print(cm.view.classes[300])"))
    page.locator(MATRIX).focus()
    click_cell(page, 300, 300)
    wait = f"print(cm.selected == ({i}, {i}))"
    expect(page.locator(".nbft-image-panel-head")).to_contain_text(f"actual class {i:04}")
    assert nb.kernel(wait) == "True\n"


def test_axe_finds_nothing_serious_in_the_matrix(notebook) -> None:
    from axe_playwright_python.sync_playwright import Axe

    nb = notebook([SETUP, "cm = %confusion_matrix", "%most_confused"])
    nb.run_all()
    (i, j, n), _ = top_cells(nb)
    click_cell(nb.page, i, j)
    expect(nb.cell(1).locator(THUMB)).to_have_count(n)
    for screen in (".nbft-confusion", ".nbft-pairs"):
        found = Axe().run(nb.page, context=screen).response["violations"]
        bad = [(v["id"], v["impact"], [n["html"][:200] for n in v["nodes"]]) for v in found]
        assert [v for v in bad if v[1] in ("serious", "critical")] == [], screen


MANY = """\
%load_ext nbfinetune
from pathlib import Path
import torch
from nbfinetune import ClassificationInterpretation, Corrections
from nbfinetune.data.datasets import ImageDataset
from nbfinetune.widgets.confusion_matrix import ConfusionMatrix
from dataclasses import replace
g = torch.Generator().manual_seed(0)
def interpretation(c, n):
    targets = torch.randint(c, (n,), generator=g)
    wrong = torch.where(torch.rand(n, generator=g) < 0.5, targets, (targets + 1) % c)
    names = [f"class {k:04}" for k in range(c)]
    squares = torch.randint(0, 255, (n, 3, 18, 18), dtype=torch.uint8, generator=g)
    squares = squares.repeat_interleave(8, 2).repeat_interleave(8, 3)
    data = ImageDataset([Path(f"{k}.png") for k in range(n)], targets.tolist(), 144, squares)
    found = ClassificationInterpretation.from_predictions(targets, wrong, names)
    return replace(found, dataset=data)
few, many = interpretation(37, 3_000), interpretation(1_000, 3_000)"""


def test_matrices_and_image_panels_open(notebook) -> None:
    """The times are printed: benchmarks/interpretation.py shows them."""
    cells = [
        MANY,
        "cm = ConfusionMatrix(few, Corrections())\ncm",
        "ConfusionMatrix(many, Corrections())",
    ]
    nb = notebook(cells)
    nb.run_cell(0)
    page = nb.page
    for i, classes in ((1, "37"), (2, "1,000, first page")):
        started = page.evaluate("performance.now()")
        nb.start_cell(i)
        nb.cell(i).locator(MATRIX).wait_for()
        page.wait_for_function(
            f"document.querySelectorAll('{MATRIX}')[{i - 1}].dataset.painted > 0"
        )
        print(f"ms from Run to the matrix of {classes} classes:", _since(page, started))
    nb.wait_idle()
    waits = []
    note = "document.addEventListener('click', () => { clicked = performance.now() }, true)"
    page.evaluate(f"() => {{ {note} }}")
    for k in range(7):
        drawn = nb.cell(1).locator(".nbft-image-panel").get_attribute("data-drawn")
        click_cell(page, k, k + 1)
        page.wait_for_function(
            """([drawn]) => {
                const panel = document.querySelector(".nbft-image-panel");
                const pictures = [...panel.querySelectorAll("img:not(dialog img)")];
                const all = panel.dataset.drawn > drawn && pictures.every(p => p.naturalWidth > 0);
                window.shown = all ? performance.now() : undefined;
                return all;
            }""",
            arg=[drawn],
            polling=5,
        )
        waits.append(round(page.evaluate("shown - clicked")))
    expect(nb.cell(1).locator(THUMB)).to_have_count(36)
    payload = int(nb.kernel("print(sum(len(t['jpeg']) for t in cm.grid.thumbs))"))
    print(
        f"ms from click to 36 pictures: {statistics.median(waits)} ({min(waits)} to {max(waits)})"
    )
    print(f"{payload / 1000:.0f} kB of pictures")


def _since(page, started: float) -> int:
    return round(page.evaluate("performance.now()") - started)


SCREENS = [
    MANY,
    "cm = ConfusionMatrix(few, Corrections())\ncm",
    "import time\ntime.sleep(4)",
]
# Notes when the mouse clicks, and when the page says what opens.
STOPWATCH = """() => {
    const place = document.querySelector(".nbft-place");
    document.addEventListener("click", () => { window.clicked = performance.now() }, true);
    new MutationObserver(() => requestAnimationFrame(() => {
        if (place.textContent.startsWith("opening")) window.said ??= performance.now();
    })).observe(place, {childList: true});
}"""


def test_a_click_is_answered_within_100_ms_while_the_kernel_is_busy(notebook) -> None:
    nb = notebook(SCREENS)
    nb.page.set_viewport_size({"width": 800, "height": 900})
    nb.run_cell(0)
    nb.run_cell(1)
    page = nb.page
    page.locator(MATRIX).wait_for()
    n = int(nb.kernel("print(len(few.cell(5, 6)))"))
    nb.cell(1)
    page.evaluate(STOPWATCH)
    nb.start_cell(2)
    click_cell(page, 5, 6)
    place = page.locator(".nbft-place")
    expect(place).to_have_text(
        f"opening {n} pictures of actual class 0005, predicted class 0006 \u2026"
    )
    assert page.evaluate("said - clicked") < 100
    assert in_view(place)
    assert nb.page.locator(".nbft-image-panel").is_hidden()
    expect(place).to_contain_text("the kernel is busy")
    wait = f"actual class 0005, predicted class 0006: {n} pictures"
    expect(page.locator(".nbft-image-panel-head")).to_contain_text(wait)
    expect(place).to_be_hidden()
    assert in_view(page.locator(THUMB).first)
    nb.screenshot("matrix_800")


def test_the_matrix_fits_the_window_and_its_pictures_are_in_view(notebook) -> None:
    nb = notebook(SCREENS[:2])
    nb.run_all()
    page = nb.page
    canvas = page.locator(MATRIX)
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        nb.use_theme(theme)
        for width, beside in ((800, False), (1400, True), (1900, True)):
            page.set_viewport_size({"width": width, "height": 900})
            side = "[data-beside]" if beside else ":not([data-beside])"
            page.locator(f".nbft-split{side}").wait_for()
            nb.cell(1)
            page.wait_for_function(f"document.querySelector('{MATRIX}').offsetHeight < innerHeight")
            assert float(canvas.get_attribute("data-digits")) >= 9
            click_cell(page, 8, 9)
            expect(page.locator(".nbft-image-panel-head")).to_contain_text("class 0008, predicted")
            expect(page.locator(".nbft-place")).to_be_hidden()
            assert in_view(page.locator(".nbft-image-panel-head"))
            assert in_view(page.locator(THUMB).first)
            assert page.evaluate(OVERFLOWING) == []
            # The paper is the theme's, and follows it.
            paper = page.evaluate("""() => {
                const canvas = document.querySelector(".nbft-matrix");
                return [...canvas.getContext("2d").getImageData(1, 1, 1, 1).data].slice(0, 3);
            }""")
            assert paper == ([255] * 3 if "Light" in theme else [17] * 3)
            nb.screenshot(f"matrix_37_{theme.split()[1]}_{width}")


# Parts of the screen that are wider or higher than their boxes show, scroll bars included.
OVERFLOWING = """() => {
    const split = document.querySelector(".nbft-split");
    const output = split.closest(".jp-OutputArea-output");
    const boxes = [output, split, ...split.querySelectorAll(".nbft-choice")];
    return boxes.filter(b => b.scrollWidth > b.clientWidth || b.scrollHeight > b.clientHeight + 1)
        .map(b => `${b.className}: ${b.scrollWidth} x ${b.scrollHeight}`);
}"""


def test_keys_on_the_matrix_leave_the_notebook_as_it_is(notebook) -> None:
    nb = notebook(SCREENS[:2])
    nb.run_all()
    page = nb.page
    nb.select_cell(1)
    page.locator(MATRIX).focus()
    for key in (
        "m",
        "d",
        "d",
        "x",
        "a",
        "b",
        "y",
        "r",
        "1",
        "z",
        "ArrowDown",
        "Control+ArrowRight",
    ):
        page.keyboard.press(key)
    assert page.evaluate(CELLS) == [["code", source] for source in SCREENS[:2]]
    assert nb.active_cell() == 1
    expect(page.locator(".nbft-matrix-line")).to_contain_text("class 0001, predicted class 0010")
    tip = page.locator(".nbft-matrix-tip")
    expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_the_pointer_shows_full_names_and_numbers_beside_it(notebook) -> None:
    long = "a name that no axis has room for, " * 3
    code = f"""\
{MANY}
from dataclasses import replace
few = replace(few, vocab=[{long!r}, *few.vocab[1:]])"""
    nb = notebook([code, SCREENS[1]])
    page = nb.page
    page.set_viewport_size({"width": 800, "height": 700})
    nb.run_all()
    canvas, tip = page.locator(MATRIX), page.locator(".nbft-matrix-tip")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    in_view(canvas)  # once the page rests: a scroll hides the tip
    n, share = ast.literal_eval(
        nb.kernel(
            "print((len(few.cell(0, 1)), len(few.cell(0, 1)) / int((few.targets == 0).sum())))"
        )
    )
    for cell, text in (
        ((0, 1), f"{n} pictures, {100 * share:.1f} % of the actual class"),
        ((36, 30), "no picture"),
    ):
        canvas.hover(position=place_of(canvas, *cell))
        expect(tip.locator("p")).to_have_text(text)
        box = tip.bounding_box()
        assert 0 <= box["x"] <= 800 - box["width"]
        assert 0 <= box["y"] <= 700 - box["height"]
    canvas.hover(position=place_of(canvas, 0, 1))
    expect(tip.locator("dd")).to_have_text([long.strip(), "class 0001"])
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    canvas.hover(position=place_of(canvas, 3, 3))
    expect(tip).to_be_visible()
    page.mouse.move(2, 2)
    expect(tip).to_be_hidden()


def test_figsize_is_inches_of_the_whole_matrix_as_far_as_there_is_room(notebook) -> None:
    sizes = "ConfusionMatrix({}, Corrections(), size={})"
    nb = notebook([MANY, sizes.format("interpretation(3, 90)", 960), sizes.format("few", 2000)])
    page = nb.page
    page.set_viewport_size({"width": 1400, "height": 800})
    nb.run_all()
    for i, side in ((0, 960), (1, None)):
        shape = nb.cell(i + 1).locator(MATRIX).evaluate("c => [c.offsetWidth, c.offsetHeight]")
        room = nb.cell(i + 1).locator(".nbft-split").evaluate("box => box.clientWidth")
        assert abs(max(shape) - (side or room)) <= 3  # the three cells are of whole pixels
