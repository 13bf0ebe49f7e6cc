"""The image panel under a real mouse and keyboard: enlarged, found, chosen, marked, looked into."""

import ast

import pytest
from playwright.sync_api import expect

from .matrix import MATRIX, THUMB, click_cell, files, top_cells
from .notebook import KERNEL
from .test_matrix import SETUP

DIALOG = "dialog.nbft-large"


def wait_for_picture(page, position: str) -> None:
    expect(page.locator(f"{DIALOG} .nbft-where")).to_have_text(position)
    page.wait_for_function(f"document.querySelector('{DIALOG} img').naturalWidth > 0")


def scale(page) -> float:
    """How far the enlarged picture is zoomed."""
    drawn, stage = (
        page.locator(f"{DIALOG} {part}").bounding_box() for part in ("img", ".nbft-stage")
    )
    return drawn["width"] / stage["width"]


def left(page) -> float:
    return page.locator(f"{DIALOG} img").bounding_box()["x"]


def test_the_enlarged_view_steps_zooms_moves_marks_and_copies(notebook) -> None:
    nb = notebook([SETUP, "losses = %top_losses 40"])
    nb.run_all()
    page = nb.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(page.locator(THUMB)).to_have_count(36)
    page.locator(THUMB).nth(35).locator(".nbft-open").click()
    wait_for_picture(page, "36 of 40")

    page.keyboard.press("ArrowRight")
    wait_for_picture(page, "37 of 40")
    expect(page.locator(THUMB)).to_have_count(4)  # the page behind it has turned
    page.get_by_role("button", name="Previous", exact=False).last.click()
    wait_for_picture(page, "36 of 40")
    page.keyboard.press("PageDown")
    wait_for_picture(page, "37 of 40")

    page.keyboard.press("+")
    assert scale(page) == pytest.approx(1.4, abs=0.01)
    page.get_by_role("button", name="zoom in").click()
    assert scale(page) == pytest.approx(1.96, abs=0.01)
    page.locator(".nbft-stage").focus()
    before = left(page)
    page.keyboard.press("ArrowRight")  # moves the zoomed picture, and does not step
    assert left(page) == pytest.approx(before - 60, abs=1)
    expect(page.locator(f"{DIALOG} .nbft-where")).to_have_text("37 of 40")
    box = page.locator(".nbft-stage").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1], steps=4)
    page.mouse.up()
    assert left(page) == pytest.approx(before - 20, abs=2)
    page.mouse.wheel(0, -200)
    page.wait_for_function("parseInt(document.querySelector('.nbft-percent').textContent) > 250")
    page.keyboard.press("0")
    assert scale(page) == pytest.approx(1, abs=0.01)

    path = nb.kernel("print(losses.interp.path(losses.items[36]))").strip()
    expect(page.locator(f"{DIALOG} .nbft-path")).to_have_text(path)
    page.get_by_role("button", name="Copy path").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == path
    refuse = "navigator.clipboard.writeText = () => Promise.reject(new Error('no'))"
    page.evaluate(f"() => {{ {refuse} }}")
    hear = "document.addEventListener('copy', event => { copied = event.target.value })"
    page.evaluate(f"() => {{ {hear} }}")
    expect(page.get_by_role("button", name="Copy path")).to_be_visible()
    page.get_by_role("button", name="Copy path").click()
    page.wait_for_function(f"window.copied === {path!r}")

    page.locator(f"{DIALOG} .nbft-mark").focus()
    page.keyboard.press("r")
    expect(page.locator(DIALOG).get_by_text("Enter marks it: remove")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator(DIALOG).get_by_text("remove (1 marked")).to_be_visible()
    expect(page.locator(f"{DIALOG} .nbft-mark option").first).to_have_text("remove")
    nb.screenshot("enlarged")
    page.keyboard.press("Escape")
    expect(page.locator(DIALOG)).to_be_hidden()
    focused = "document.activeElement.closest('figure')?.dataset.item"
    assert page.evaluate(focused) == nb.kernel("print(losses.items[36])").strip()
    expect(page.locator(THUMB).first).to_have_attribute("data-mark", "remove")

    for key in ("m", "r", "d", "d"):  # JupyterLab would turn the cell into text, and delete it
        page.keyboard.press(key)
    page.keyboard.press("Shift+Enter")  # runs the cell, as anywhere
    expect(page.locator(THUMB)).to_have_count(36)
    assert page.evaluate("jupyterapp.shell.currentWidget.content.widgets[1].model.type") == "code"


def test_several_are_found_sorted_chosen_and_marked_at_once(notebook) -> None:
    cells = [SETUP, "losses = %top_losses 20", "%clean --apply", "%clean --undo"]
    nb = notebook(cells)
    nb.run_cell(0)
    nb.run_cell(1)
    page, thumbs = nb.page, nb.page.locator(THUMB)
    expect(thumbs).to_have_count(20)
    page.get_by_label("sort by").select_option("file")
    expect(thumbs.first).to_have_attribute("data-item", _by_file(nb)[0])
    name = nb.kernel("print(losses.interp.vocab[losses.interp.targets[losses.items[0]]])").strip()
    page.get_by_label("find pictures by file or class").press_sequentially(name)
    expect(page.get_by_text(f"with '{name}' in file or class")).to_be_visible()
    n = int(nb.kernel("print(len(losses.grid.found))"))
    expect(thumbs).to_have_count(n)
    assert 1 <= n < 20
    page.get_by_label("find pictures by file or class").fill("")
    expect(thumbs).to_have_count(20)

    thumbs.nth(1).get_by_role("checkbox").click()
    thumbs.nth(4).get_by_role("checkbox").click(modifiers=["Shift"])
    expect(page.get_by_text("4 chosen")).to_be_visible()
    thumbs.nth(4).locator(".nbft-open").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.get_by_text("5 chosen")).to_be_visible()
    expect(page.locator(DIALOG)).to_be_hidden()
    thumbs.nth(7).locator(".nbft-open").click(modifiers=["Shift"])
    expect(page.get_by_text("7 chosen")).to_be_visible()
    nb.screenshot("chosen")
    page.get_by_label("mark all chosen pictures").select_option("remove")
    expect(
        page.get_by_text("7 pictures: remove (7 marked; %clean lists them)").first
    ).to_be_visible()
    marked = [thumbs.nth(k).get_attribute("data-mark") for k in range(9)]
    assert marked == ["", *["remove"] * 7, ""]
    expect(page.locator(".nbft-chosen")).to_have_text("")

    nb.run_cell(2)
    said = nb.cell(1).get_by_text("7 corrections written to corrections.csv (no picture is marked")
    expect(said.first).to_be_visible()
    expect(thumbs.nth(1)).to_have_attribute("data-mark", "")
    nb.run_cell(3)
    expect(nb.cell(1).get_by_text("they are marks again (7 marked;").first).to_be_visible()
    expect(thumbs.nth(1)).to_have_attribute("data-mark", "remove")
    page.get_by_role("button", name="All on this page").click()
    expect(page.get_by_text("20 chosen")).to_be_visible()
    page.get_by_role("button", name="None").click()
    expect(page.locator(".nbft-chosen")).to_have_text("")


def _by_file(nb) -> list[str]:
    code = "print(sorted(losses.items, key=lambda i: losses.interp.path(i).name))"
    return [str(i) for i in ast.literal_eval(nb.kernel(code))]


# What a reader could not see: text that is cut off, and boxes that stand out of their panel.
CUT = """selector => {
    const cut = [];
    for (const panel of document.querySelectorAll(selector)) {
        const box = panel.getBoundingClientRect();
        for (const node of panel.querySelectorAll("*")) {
            const b = node.getBoundingClientRect(), style = getComputedStyle(node);
            if (!b.width || node.closest("dialog") !== panel.closest("dialog"))
                continue;
            if (node.closest(".nbft-stage, option, optgroup, .nbft-spoken")) continue;
            const html = node.outerHTML.slice(0, 120);
            if (b.right > box.right + 1 || b.left < box.left - 1) cut.push(["out", html]);
            const wide = node.scrollWidth > node.clientWidth + 1;
            const scrolls = wide || node.scrollHeight > node.clientHeight + 1;
            if (node.clientWidth && scrolls && style.overflow !== "visible")
                if (node.tagName !== "SELECT") cut.push(["cut", html]);
        }
    }
    return cut;
}"""

LONG = """\
from pathlib import Path
from tempfile import mkdtemp
import torch
from PIL import Image
from nbfinetune import ClassificationInterpretation, Corrections
from nbfinetune.widgets.item_gallery import ItemGallery
names = ["german_shorthaired_pointer_of_the_north", "staffordshire_bull_terrier",
         "soft coated wheaten terrier"]
folder = Path(mkdtemp())
files = [folder / f"photograph_of_a_{names[k % 3].replace(' ', '_')}_{k:04}.jpg"
         for k in range(8)]
for k, file in enumerate(files[:6]):
    Image.new("RGB", (300 + 40 * k, 300), (30 * k, 90, 200 - 30 * k)).save(file)
found = ClassificationInterpretation.from_predictions(
    [k % 3 for k in range(8)], torch.full((8, 3), 1 / 3), names, files)
ItemGallery(found, range(8), "long names, and two pictures that are gone", Corrections())"""


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_nothing_is_cut_off_and_axe_finds_nothing_serious(notebook, theme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    nb = notebook([LONG])
    nb.use_theme(theme)
    nb.run_all()
    page, panel = nb.page, ".nbft-image-panel"
    expect(page.locator(THUMB)).to_have_count(8)

    def bad(context: str) -> list:
        violations = Axe().run(page, context=context).response["violations"]
        return [
            (v["id"], [node["html"][:160] for node in v["nodes"]])
            for v in violations
            if v["impact"] in ("serious", "critical")
        ]

    page.locator(THUMB).nth(1).get_by_role("checkbox").check()
    assert bad(panel) == []
    for width in (800, 1400, 1900):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(CUT, panel) == [], width
        outputs = page.locator(".jp-OutputArea-output").first
        assert outputs.evaluate("node => node.scrollWidth <= node.clientWidth")
        page.locator(THUMB).first.locator(".nbft-open").click()
        wait_for_picture(page, "1 of 8")
        box = page.locator(DIALOG).bounding_box()
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= 900
        assert page.evaluate(CUT, DIALOG) == [], width
        if width == 800:
            assert bad(DIALOG) == []
        nb.screenshot(f"enlarged_{theme.split()[1]}_{width}")
        page.keyboard.press("Escape")
    assert files(page)[0].startswith("photograph_of_a_german_shorthaired_pointer_of_the_north_0000")


def test_the_map_shows_where_the_network_looked_and_waits_for_a_run(notebook) -> None:
    cells = [SETUP, "losses = %top_losses 5", "%fit_one_cycle 60 1e-5 --bg"]
    nb = notebook(cells)
    nb.run_cell(0)
    nb.run_cell(1)
    page = nb.page
    page.locator(THUMB).first.locator(".nbft-open").click()
    wait_for_picture(page, "1 of 5")
    look = page.get_by_label("where did it look")
    for of in ("predicted", "actual"):
        look.select_option(of)
        expect(page.locator(".nbft-stage")).to_have_attribute("data-look", of)
        expect(page.locator(".nbft-looked")).to_contain_text(f"speaks for {of} ")
    page.get_by_role("button", name="Next \u203a").click()
    wait_for_picture(page, "2 of 5")
    expect(page.locator(".nbft-stage")).to_have_attribute("data-look", "actual")
    nb.screenshot("enlarged_look")
    look.select_option("off")
    expect(page.locator(".nbft-stage")).to_have_attribute("data-look", "off")
    page.keyboard.press("Escape")

    nb.run_cell(2)
    page.locator(THUMB).first.locator(".nbft-open").click()
    wait_for_picture(page, "1 of 5")
    look.select_option("predicted")
    expect(page.locator(".nbft-looked")).to_have_text(
        "a run is on; ask for the activation map after it"
    )
    nb.kernel("learn.control.stop()")


# On a busy machine the page may wait long for the thread that widget events are handled in.
LATE = """\
from threading import Event
kernel, answer = get_ipython().kernel, Event()
async def late(*request, create=kernel.create_subshell_request):
    answer.wait(60)
    await create(*request)
kernel.control_handlers["create_subshell_request"] = late"""


def test_the_picture_comes_though_all_earlier_screens_closed_before_events_had_a_thread(
    notebook,
) -> None:
    nb = notebook([LATE, SETUP, "cm = %confusion_matrix"])
    nb.run_all()
    page = nb.page
    page.locator(MATRIX).wait_for()
    nb.kernel("answer.set()")
    page.wait_for_function(f"[...{KERNEL}._comms.values()].some(comm => comm.subshellId)")
    (i, j, n), _ = top_cells(nb)
    click_cell(page, i, j)
    expect(page.locator(THUMB)).to_have_count(n)
    page.locator(THUMB).first.locator(".nbft-open").click()
    wait_for_picture(page, f"1 of {n}")
