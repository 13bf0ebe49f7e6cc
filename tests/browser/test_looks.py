"""Each screen in both themes and three widths: all of it is seen, and its axes say what is so."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import pytest

pytest.importorskip("playwright", reason="tests in a browser need playwright")
from playwright.sync_api import expect

from .lr_plot import HANDLE, drag_to, px_beside_its_rate, when_still
from .matrix import MATRIX, THUMB, click_cell, top_cells, wait_for_cell
from .test_screens import SETUP

if TYPE_CHECKING:
    from .notebook import Notebook

THEMES = ["JupyterLab Light", "JupyterLab Dark"]
WIDTHS = [800, 1400, 1900]
HEIGHT = 1000

PICTURES = """\
%load_ext nbfinetune
from nbfinetune import ImageDataLoaders, samples, vision_learner
dls = ImageDataLoaders.from_folder(samples.draw_shapes(n=12, size=64), size=64, valid_pct=0.5)
learn = vision_learner(dls, "efficientnet_lite0", device="cpu")"""


def search(nb: "Notebook") -> None:
    nb.run_cell(1)
    nb.page.locator(HANDLE).wait_for()


def training(nb: "Notebook") -> None:
    """It goes on for longer than the test."""
    nb.start_cell(1)
    nb.page.locator(".nbft-training tr").nth(2).wait_for()  # an epoch


def matrix(nb: "Notebook") -> None:
    nb.run_cell(1)
    nb.page.locator(MATRIX).wait_for()
    (i, j, n), _ = top_cells(nb)
    click_cell(nb.page, i, j)
    wait_for_cell(nb, i, j, n)


def gallery(nb: "Notebook") -> None:
    nb.run_cell(1)
    expect(nb.page.locator(THUMB)).to_have_count(12)


def demo(nb: "Notebook") -> None:
    nb.run_cell(1)
    file = nb.kernel("print(dls.valid.dataset.path(0))").strip()
    nb.page.locator(".nbft-demo-panel input").set_input_files(file)
    expect(nb.page.locator(".nbft-bars li")).to_have_count(5)


class Screen(NamedTuple):
    """The cells that open a screen, what is done to show all of it, and where it is."""

    cells: list[str]
    show: Callable[["Notebook"], None]
    root: str


SCREENS = {
    "search": Screen(
        [SETUP, "%lr_find --seeds 2 --suggest bracket,valley,steep,minimum"],
        search,
        ".nbft-lr-plot",
    ),
    "training": Screen(
        [SETUP, "%fine_tune 5000 1e-2 --freeze-epochs 2"], training, ".nbft-training"
    ),
    "matrix": Screen([PICTURES, "cm = %confusion_matrix\ncm"], matrix, ".nbft-confusion"),
    "demo": Screen([PICTURES, "learn.demo();"], demo, ".nbft-demo"),
    "gallery": Screen([PICTURES, "%top_losses 12"], gallery, ".nbft-image-panel"),
}

# What is wider than its box, or beyond the output: [what, by how much]. Text that ends in dots
# (text-overflow) and what is for screen readers alone are meant to be cut.
OUT_OF_BOX = """root => {
    const found = [];
    const note = (node, what, px) => {
        const name = `${node.tagName} ${node.getAttribute("class") ?? ""}`;
        found.push([name, node.children.length ? "" : node.textContent, what, Math.round(px)]);
    };
    const output = root.closest(".jp-OutputArea-output");
    const edges = output.getBoundingClientRect();
    for (const node of [root, ...root.querySelectorAll("*")]) {
        const box = node.getBoundingClientRect();
        const style = getComputedStyle(node);
        if (!box.width || !box.height || style.visibility === "hidden") continue;
        if (node.closest(".nbft-spoken, dialog")) continue;
        const svg = node.closest("svg");
        const inside = svg && node !== svg;
        if (inside && node.tagName !== "text") continue; // a figure cuts its curves
        if (box.right > edges.right + 1) note(node, "right of the output", box.right - edges.right);
        if (box.left < edges.left - 1) note(node, "left of the output", edges.left - box.left);
        if (inside) {
            const of = svg.getBoundingClientRect();
            const out = Math.max(
                of.left - box.left, box.right - of.right, of.top - box.top, box.bottom - of.bottom);
            if (node.textContent && out > 1) note(node, "cut by its figure", out);
            continue;
        }
        if (svg || style.display === "inline" || style.textOverflow === "ellipsis") continue;
        if (["INPUT", "SELECT", "CANVAS"].includes(node.tagName)) continue;
        const more = node.scrollWidth - node.clientWidth;
        if (more > 1) note(node, "wider than its box", more);
    }
    for (let node = output; node && !node.matches(".jp-Cell"); node = node.parentElement) {
        const { overflowX, overflowY } = getComputedStyle(node);
        const [across, down] = [
            node.scrollWidth - node.clientWidth, node.scrollHeight - node.clientHeight];
        if (overflowX !== "visible" && across > 1) note(node, "scrolls sideways", across);
        if (["auto", "scroll"].includes(overflowY) && down > 1) note(node, "scrolls", down);
    }
    return found;
}"""

# Texts of figures that do not stand out from the paper, or from what lies right below them: axe
# does not look at these.
FAINT = """root => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const painted = (...colours) => {
        for (const colour of colours) {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
        }
        const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255);
        const [r, g, b] = parts.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = getComputedStyle(document.body).getPropertyValue("--nbft-paper");
    const seen = text => text.textContent && text.getBoundingClientRect().width;
    return [...root.querySelectorAll("svg text")].filter(seen).map(text => {
        const below = text.previousElementSibling?.tagName === "rect"
            ? getComputedStyle(text.previousElementSibling) : { fill: paper, fillOpacity: "1" };
        const ground = below.fillOpacity === "1" ? [paper, below.fill] : [paper];
        const [a, b] = [painted(...ground), painted(...ground, getComputedStyle(text).fill)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        return [text.textContent, getComputedStyle(text).fill, Math.round(ratio * 10) / 10];
    }).filter(([, , ratio]) => ratio < 4.5);
}"""

# The axes of all figures as the models have them, with each label and where it stands, as a share
# of the axis. There is no public way to the widgets of a page.
AXES = """async () => {
    const { rendermime } = window.jupyterapp.shell.currentWidget.content;
    const mime = "application/vnd.jupyter.widget-view+json";
    const renderer = rendermime._factories[mime].createRenderer({ mimeType: mime });
    const manager = await renderer._manager.promise;
    const models = await Promise.all(Object.values(manager._models));
    const axes = [];
    for (const figure of models.filter(model => model.get("_model_name") === "FigureModel")) {
        for (const view of await Promise.all(Object.values(figure.views ?? {}))) {
            const area = view.el.querySelector(".plotarea_events").getBoundingClientRect();
            if (!area.width) continue;
            for (const axis of await Promise.all(view.axis_views.views)) {
                const upright = ["left", "right"].includes(axis.model.get("side"));
                const scale = axis.model.get("scale");
                const [low, high] = [scale.get("min"), scale.get("max")];
                const labels = [...axis.el.querySelectorAll("g.tick")].map(tick => {
                    const box = tick.querySelector("line").getBoundingClientRect();
                    const share = upright ? (area.bottom - box.y - box.height / 2) / area.height
                        : (box.x + box.width / 2 - area.x) / area.width;
                    return [tick.querySelector("text").textContent, share];
                }).filter(([text]) => text);
                axes.push({ of: axis.model.get("label"), low, high,
                    log: scale.get("_model_name") === "LogScaleModel", labels });
            }
        }
    }
    return axes;
}"""


def open_screen(notebook, name: str) -> "Notebook":
    nb = notebook(SCREENS[name].cells)
    nb.page.set_viewport_size({"width": WIDTHS[0], "height": HEIGHT})
    nb.run_cell(0)
    SCREENS[name].show(nb)
    return nb


def wait_until_still(nb: "Notebook", root: str) -> None:
    """Wait until the figures have the size that they keep."""
    sizes = """root => [root, ...root.querySelectorAll("svg, canvas, .plotarea_events")].map(
        node => node.getBoundingClientRect().width)"""
    before = None
    for _ in range(50):
        now = nb.page.locator(root).first.evaluate(sizes)
        if now == before:
            return
        before = now
        nb.page.wait_for_timeout(500)  # a figure draws itself 300 ms after its box changed
    pytest.fail("the figures do not come to rest")


def wrong_labels(axes: list[dict]) -> list[tuple]:
    """Labels that are not within 1 % of the axis of the value at their position."""
    wrong = []
    for axis in axes:
        number = math.log10 if axis["log"] else float
        low, high = number(axis["low"]), number(axis["high"])
        for text, share in axis["labels"]:
            label = number(float(text.replace("\N{MINUS SIGN}", "-")))
            if abs((label - low) / (high - low) - share) > 0.01:
                wrong.append((axis["of"], text, low + share * (high - low)))
    return wrong


def serious(page, root: str) -> list[tuple]:
    """What axe finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, context=root).response["violations"]
    bad = [(v["id"], v["impact"], [node["html"][:200] for node in v["nodes"]]) for v in found]
    return [v for v in bad if v[1] in ("serious", "critical")]


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_whole_true_and_readable_in_both_themes_and_three_widths(
    notebook, name: str
) -> None:
    nb = open_screen(notebook, name)
    page, root = nb.page, SCREENS[name].root
    problems: dict[tuple, list] = {}
    for theme in THEMES:
        nb.use_theme(theme)
        light = theme.split()[1].lower()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            wait_until_still(nb, root)
            nb.screenshot(f"looks_{name}_{light}_{width}")
            axes = page.evaluate(AXES)
            if name in ("search", "training"):
                assert sum(len(axis["labels"]) for axis in axes) > 6
            problems[light, width] = [
                *page.locator(root).first.evaluate(OUT_OF_BOX),
                *wrong_labels(axes),
            ]
        problems[light, "axe"] = serious(page, root)
        problems[light, "contrast"] = page.locator(root).first.evaluate(FAINT)
    said = [f"{where}: {what}" for where, found in problems.items() for what in found]
    assert not said, "\n".join(said)


def test_the_marker_stays_at_its_rate_when_it_or_the_window_moves(notebook) -> None:
    nb = open_screen(notebook, "search")
    page = nb.page
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        when_still(page)
        assert px_beside_its_rate(page) < 1.5, width
        drag_to(page, 3e-3)
        assert px_beside_its_rate(page) < 1.5, width
        page.locator(HANDLE).focus()
        for key in ("ArrowLeft", "ArrowLeft", "PageUp", "End", "PageDown"):
            page.keyboard.press(key)
            assert px_beside_its_rate(page) < 1.5, (width, key)
