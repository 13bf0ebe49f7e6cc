"""The live screens under a real mouse and keyboard, while cells run."""

import ast
import re
import statistics
import subprocess
import sys

import pytest

pytest.importorskip("playwright", reason="tests in a browser need playwright")
from playwright.sync_api import expect

from nbfinetune.rendering.numbers import rate_text

from .lr_plot import HANDLE, drag_to, px_beside_its_rate

SETUP = """\
%load_ext nbfinetune
import time
from types import SimpleNamespace
import torch
from torch import nn
from nbfinetune import Callback, Learner, accuracy

generator = torch.Generator().manual_seed(0)
x, noise = (torch.randn(640, n, generator=generator) for n in (20, 3))
y = (x[:, :3] * 2 + noise).argmax(1)

def batches(first, last):
    return [(x[i:i + 16], y[i:i + 16]) for i in range(first, last, 16)]

class Slow(Callback):
    "Batches of 20 ms, as those of a small network on pictures."
    def after_batch(self, learn):
        time.sleep(0.02)

body, head = nn.Sequential(nn.Linear(20, 32), nn.ReLU()), nn.Linear(32, 3)
loaders = SimpleNamespace(train=batches(0, 480), valid=batches(480, 640), vocab=list("abc"))
learn = Learner(loaders, nn.Sequential(body, head), groups=[[body], [head]], metrics=accuracy,
                cbs=[Slow()], device="cpu")"""

# Notes when each request reaches the run; the page notes when it was made.
CLOCK = """\
arrived = {}
for name in ("pause", "resume", "stop", "finish"):
    def noted(*args, name=name, method=getattr(learn.control, name)):
        arrived[name] = time.time()
        method(*args)
    setattr(learn.control, name, noted)"""


def rate(nb) -> float:
    return float(nb.kernel("print(learn.lr)"))


def wait_for_later_epoch(nb, stage: str = "") -> None:
    """Wait until the first epoch is over. Not for the second: it may end between two draws."""
    later = re.compile(rf"{stage}epoch ([2-9]|\d\d+) of")
    nb.page.locator(".nbft-training", has_text=later).wait_for()


def wait_for_text(nb, text: str) -> None:
    nb.page.locator(".nbft-status", has_text=text).wait_for()


def test_the_marker_is_dragged_moved_with_keys_and_typed(notebook, kernel) -> None:
    # A search of the head alone: of all layers, it finds a rate for each group, a slice.
    nb = notebook([f"{SETUP}\n%freeze", "found = %lr_find", "%fit_one_cycle 1"], kernel=kernel)
    nb.run_cell(0)
    nb.run_cell(1)
    handle = nb.page.locator(HANDLE)
    handle.wait_for()
    suggested = rate(nb)
    assert float(handle.get_attribute("aria-valuenow")) == pytest.approx(suggested)
    assert px_beside_its_rate(nb.page) < 1.5

    drag_to(nb.page, 3e-3)
    wait_for_text(nb, "next run: 3.0e-3")
    assert px_beside_its_rate(nb.page) < 1.5
    assert rate(nb) == pytest.approx(3e-3, rel=0.02)
    assert f"moved from {rate_text(suggested)}" in nb.page.locator(".nbft-status").inner_text()

    before = rate(nb)
    handle.focus()
    for key in ("ArrowRight", "ArrowRight", "PageDown", "ArrowLeft"):
        nb.page.keyboard.press(key)
    expected = before * 10 ** (0.05 - 0.5)
    wait_for_text(nb, f"next run: {rate_text(expected)}")
    assert rate(nb) == pytest.approx(expected, rel=1e-6)
    nb.page.keyboard.press("Home")
    wait_for_text(nb, "next run: 1.0e-7")
    nb.page.keyboard.press("End")
    wait_for_text(nb, "next run: 1.0e1")

    field = nb.page.get_by_label("learning rate", exact=True)
    field.fill("2e-3")
    field.press("Enter")
    wait_for_text(nb, "next run: 2.0e-3")
    assert rate(nb) == 2e-3
    nb.screenshot("lr_plot")
    nb.run_cell(2)
    assert nb.output(2)[0]["text"] == "lr_max 2.0e-3, as picked in its plot\n"


def test_the_curve_and_its_static_view_stay_in_the_saved_notebook(notebook, lab) -> None:
    nb = notebook([SETUP, "found = %lr_find", "%fine_tune 2 --freeze-epochs 1"])
    nb.run_all()
    nb.page.locator(HANDLE).wait_for()
    expect(nb.cell(1).locator(".nbft-static-view")).to_be_hidden()  # while the plot is live
    expect(nb.cell(2).locator("img")).to_have_count(1)
    expect(nb.cell(2).locator(".nbft-training")).to_have_count(0)  # it has become a picture
    nb.save()
    nb.reopen_without_kernel()
    nb.cell(1).locator(".nbft-static-view img").wait_for()
    expect(nb.cell(1).locator(".nbft-static-view")).to_be_visible()
    nb.screenshot("lr_without_kernel")
    nb.cell(2).locator("img").wait_for()
    expect(nb.cell(2).locator("tr")).to_have_count(1 + 2 + 3)
    nb.screenshot("training_without_kernel")

    _, folder = lab
    command = [sys.executable, "-m", "nbconvert", "--to", "html", str(folder / nb.path)]
    subprocess.run(command, check=True, capture_output=True)
    page = nb.page.context.new_page()
    page.route("http**", lambda route: route.abort())  # as without a network
    page.goto((folder / nb.path).with_suffix(".html").as_uri())
    shown = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert shown == [1280, 1280]  # twice the pixels of the page
    assert page.locator(".nbft-static-view").is_visible()
    assert page.locator("tr").count() == 1 + 2 + 3
    page.screenshot(path=nb.screenshot("html"), full_page=True)
    page.close()


def test_a_running_fine_tune_is_paused_resumed_scaled_and_finished(notebook, kernel) -> None:
    cells = [SETUP, CLOCK, "%fine_tune 40 1e-2 --freeze-epochs 2", "ran_on = True"]
    nb = notebook(cells, kernel=kernel)
    nb.run_cell(0)
    nb.run_cell(1)
    nb.start_all_from(2)
    page = nb.page
    wait_for_later_epoch(nb, "all layers: ")
    made = {"pause": click(page, "Pause")}
    page.get_by_role("button", name="Resume").wait_for()
    page.locator(".nbft-run-state", has_text="paused: nothing runs until Resume").wait_for()
    steps = _steps(nb)
    page.wait_for_timeout(2000)  # the check itself: nothing happens for so long
    assert _steps(nb) == steps
    nb.screenshot("paused")
    made["resume"] = click(page, "Resume")
    page.get_by_role("button", name="Pause").wait_for()

    track = page.get_by_label("factor on the learning rate").bounding_box()
    x, middle = track["x"] + 2 / 3 * track["width"], track["y"] + track["height"] / 2  # at 1
    page.mouse.move(x, middle)
    page.mouse.down()
    page.mouse.move(x - 0.1 * track["width"], middle, steps=8)  # a tenth of three decades
    page.mouse.up()
    page.wait_for_timeout(500)
    nb.screenshot("scaled")
    made["finish"] = click(page, "Finish now")
    nb.wait_idle()
    nb.screenshot("finished")

    run = ast.literal_eval(
        nb.kernel(
            "run = learn.recorder.run\n"
            "print(dict(events=run.events, lrs=[s[-1] for s in run.lrs], rows=run.row_steps,"
            " status=run.status, scale=learn.control.scale, planned=["
            "learn.lr_schedules[-1](i / (run.n_epoch * run.n_iter)) for i in range(len(run.lrs))]))"
        )
    )
    events = [what for _, what in run["events"]]
    assert events[0] == "paused"
    scaled = [i for i, what in run["events"] if what.startswith("learning rate times")]
    assert scaled
    assert 0.3 < run["scale"] < 0.8
    assert run["lrs"][scaled[0] - 1] == pytest.approx(run["planned"][scaled[0] - 1])
    assert run["lrs"][scaled[0]] != pytest.approx(run["planned"][scaled[0]])  # the next step
    assert events[-1].startswith("finishing in")
    at = run["events"][-1][0] - 1
    assert run["lrs"][at] / run["planned"][at] == pytest.approx(run["scale"], rel=1e-3)
    assert run["rows"][-1] == len(run["lrs"])  # validated at its end
    assert run["lrs"][-1] < 0.05 * run["lrs"][at]
    assert run["status"] == "stopped"
    assert nb.kernel("print(ran_on)") == "True\n"  # a normal end: the queue went on

    arrived = ast.literal_eval(nb.kernel("print(arrived)"))
    waits = {name: 1000 * (arrived[name] - made[name]) for name in made}
    print(nb.kernel("import ipykernel; print('ipykernel', ipykernel.__version__)"))
    print("ms from click to run:", {name: round(ms) for name, ms in waits.items()})
    print("median:", round(statistics.median(waits.values())))


def click(page, name: str) -> float:
    """Press a button; gives the time on the page's clock."""
    return page.get_by_role("button", name=name).evaluate(
        "button => { const now = Date.now(); button.click(); return now / 1000 }"
    )


def _steps(nb) -> str:
    """The line beside the bar: it changes with each batch that is drawn."""
    return nb.page.locator(".nbft-progress > .widget-label").inner_text()


SLOW = SETUP.replace("time.sleep(0.02)", "time.sleep(5)")

# How long after a click on the button the page had changed it and the line beside it.
WATCH = """() => {
    const button = [...document.querySelectorAll(".nbft-training button")]
        .find((each) => each.textContent === "Stop");
    const line = document.querySelector(".nbft-run-state");
    button.addEventListener("click", () => {
        const clicked = performance.now();
        const look = () => {
            if (button.disabled && line.textContent === "stopping after this batch") {
                window.answered = performance.now() - clicked;
            } else requestAnimationFrame(look);
        };
        look();
    }, { capture: true });
}"""


def test_stop_in_a_batch_of_5_s_is_answered_by_the_page_within_100_ms(notebook) -> None:
    nb = notebook([SLOW, "%fit_one_cycle 1 1e-2"])
    nb.run_cell(0)
    nb.start_cell(1)
    stop = nb.page.get_by_role("button", name="Stop")
    stop.wait_for()
    nb.page.evaluate(WATCH)
    stop.click()
    nb.page.wait_for_function("() => window.answered !== undefined")
    ms = nb.page.evaluate("window.answered")
    print("ms from the click to the answer of the page:", round(ms, 1))
    assert ms < 100
    nb.screenshot("stopping")
    nb.wait_idle()
    assert nb.kernel("print(learn.recorder.run.status)") == "stopped\n"


def ticks_of(page, axis: str) -> list[tuple[float, float]]:
    """The value and the px of each tick of an axis."""
    found = page.locator(axis).evaluate("""axis =>
        [...axis.querySelectorAll("g.tick")].map(tick => {
            const box = tick.querySelector("line").getBoundingClientRect();
            return [tick.textContent, box.x, box.y];
        })""")
    at = 2 if {x for _, x, _ in found} == {found[0][1]} else 1
    return [(float(tick[0]), tick[at]) for tick in found if tick[0]]


def test_the_curves_are_read_and_changed_with_mouse_and_keyboard(notebook) -> None:
    cells = [SETUP, "%fit_one_cycle 1 1e-2", "%fit_one_cycle 60 1e-2"]
    nb = notebook(cells)
    nb.run_cell(0)
    nb.run_cell(1)
    nb.start_all_from(2)
    wait_for_later_epoch(nb)
    page = nb.page
    page.get_by_role("button", name="Pause").click()
    page.locator(".nbft-run-state", has_text="paused: nothing runs until Resume").wait_for()

    slider = page.get_by_label("factor on the learning rate")
    slider.focus()
    for key, value in [("ArrowLeft", 10**-0.05), ("ArrowUp", 1.0), ("Home", 0.01), ("End", 10.0)]:
        page.keyboard.press(key)
        expect(page.locator(".nbft-scale output")).to_have_text(f"{value:.2f}")
    assert nb.active_cell() == 2  # JupyterLab did not take the keys

    for axis in (
        ".nbft-figure .bqplot >> nth=0 >> .axis >> nth=0",
        ".nbft-figure .bqplot >> nth=1 >> .axis >> nth=1",
    ):  # losses, steps
        ticks = ticks_of(page, axis)
        (low, first), (high, last) = ticks[0], ticks[-1]
        assert len(ticks) >= 3
        for value, px in ticks:
            assert abs((px - first) / (last - first) - (value - low) / (high - low)) < 0.01

    over = page.locator(".nbft-overlay")
    over.hover(position={"x": 80, "y": 60})
    tip = page.locator(".nbft-tip")
    expect(tip).to_contain_text("train_loss")
    expect(tip).to_contain_text("lr")
    over.focus()
    page.keyboard.press("Home")
    expect(over.locator(".nbft-spoken")).to_contain_text("step 1, epoch 1, train_loss")
    told = over.locator(".nbft-spoken").inner_text()
    page.keyboard.press("ArrowRight")
    expect(over.locator(".nbft-spoken")).to_contain_text("step 2, epoch 1, train_loss")

    accuracy = page.get_by_role("button", name="accuracy")
    accuracy.click()
    expect(accuracy).to_have_attribute("aria-pressed", "false")
    page.get_by_label("curves over").select_option("epoch")
    expect(page.locator(".nbft-figure")).to_contain_text("epoch")
    page.get_by_label("loss axis").select_option("true")
    losses = page.locator(".nbft-figure .bqplot >> nth=0 >> .axis >> nth=0 >> text")
    expect(losses.filter(has_text="-")).to_have_count(0)  # not logarithms, which are below 0
    page.get_by_label("earlier run").check()
    page.get_by_label("smoothing").press("Home")
    nb.screenshot("options")
    page.get_by_role("button", name="Stop").click()
    nb.wait_idle()
    first = float(nb.kernel("print(learn.recorder.run.losses[0])"))
    assert float(re.search(r"train_loss ([\d.]+)", told)[1]) == pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize("view", ["doc/tree", "notebooks"], ids=["lab", "notebook 7"])
def test_stop_is_a_normal_end(notebook, view: str, kernel: str) -> None:
    cells = [SETUP, CLOCK, "%fit_one_cycle 200 1e-2", "ran_on = True", "found = %lr_find"]
    nb = notebook(cells, view=view, kernel=kernel)
    nb.start_all()
    wait_for_later_epoch(nb)
    made = click(nb.page, "Stop")
    nb.wait_idle()
    assert nb.kernel("print(learn.recorder.run.status, ran_on)") == "stopped True\n"
    print("ms from Stop to run:", round(1000 * (float(nb.kernel("print(arrived['stop'])")) - made)))
    expect(nb.cell(2)).to_contain_text("stopped in epoch")
    nb.cell(4).scroll_into_view_if_needed()
    drag_to(nb.page, 3e-3)
    wait_for_text(nb, "next run: 3.0e-3")
    assert rate(nb) == pytest.approx(3e-3, rel=0.02)
    nb.screenshot(f"stopped_{view.replace('/', '_')}")
    if view == "notebooks":  # its own start reports errors that vary from run to run
        nb.errors[:] = [error for error in nb.errors if "widget" in error or "bqplot" in error]


def test_interrupt_gives_one_line_and_the_next_magic_works(notebook, kernel: str) -> None:
    cells = [SETUP, "%fine_tune 200 1e-2 --freeze-epochs 1", "ran_on = True", "%fit_one_cycle 1"]
    nb = notebook(cells, kernel=kernel)
    nb.start_all()
    wait_for_later_epoch(nb, "all layers: ")
    nb.interrupt()
    nb.wait_idle()
    line = nb.output(1)[-1]["traceback"]
    assert len(line) == 1
    assert re.fullmatch(
        r"interrupted in epoch \d+ of 200 after \d+ steps; kept epoch \d+ of .*",
        line[0],
    )
    expect(nb.cell(1).locator("img")).to_have_count(1)  # the picture is kept
    assert nb.kernel("print('ran_on' in globals())") == "False\n"
    nb.screenshot("interrupted_screen")
    nb.run_cell(3)
    assert nb.kernel("print(learn.recorder.run.status)") == "finished\n"


def test_a_run_in_the_background_leaves_the_cell_and_its_screen_becomes_a_picture(notebook) -> None:
    nb = notebook([SETUP, "%fit_one_cycle 4 1e-2 --bg", "there = learn.control.running", "%freeze"])
    nb.run_all()  # %freeze waits for the run
    assert nb.kernel("print(there, learn.recorder.run.status)") == "True finished\n"
    nb.cell(1).locator("img").wait_for()
    expect(nb.cell(1).locator(".nbft-training")).to_have_count(0)


def test_without_widgets_there_is_the_table_and_the_picture(notebook) -> None:
    nb = notebook([SETUP, "%fit_one_cycle 2 1e-2 --no-widgets", "%lr_find --no-widgets"])
    nb.run_all()
    expect(nb.page.locator(".nbft-training, .nbft-over")).to_have_count(0)
    expect(nb.cell(1).locator("tr")).to_have_count(3)
    expect(nb.cell(1).locator("img")).to_have_count(1)
    nb.cell(2).locator("img").wait_for()


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing_serious_in_the_screens(notebook, theme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    nb = notebook([SETUP, "%lr_find", "%fine_tune 100 1e-2 --freeze-epochs 1"])
    nb.use_theme(theme)
    nb.run_cell(0)
    nb.run_cell(1)
    nb.page.locator(HANDLE).scroll_into_view_if_needed()
    nb.screenshot(f"search_{theme.split()[1].lower()}")
    nb.start_all_from(2)
    wait_for_later_epoch(nb, "all layers: ")
    nb.page.get_by_role("button", name="Pause").click()
    nb.page.locator(".nbft-training table").scroll_into_view_if_needed()
    nb.screenshot(f"training_{theme.split()[1].lower()}")
    for screen in (".nbft-lr-plot", ".nbft-training"):
        found = Axe().run(nb.page, context=screen).response["violations"]
        bad = [(v["id"], v["impact"], [n["html"][:200] for n in v["nodes"]]) for v in found]
        assert [v for v in bad if v[1] in ("serious", "critical")] == [], screen
    nb.page.get_by_role("button", name="Stop").click()
    nb.wait_idle()


def test_the_lecture_can_be_followed_with_the_keyboard_alone(notebook) -> None:
    """A rate that is too high, a search, its marker, a stopped run, all layers, and so on."""
    cells = [
        SETUP,
        "%fit_one_cycle 1 100",
        "%freeze",
        "%lr_find",
        "%fit_one_cycle 400",
        "%unfreeze",
        "%lr_find",
        "%fit_one_cycle 1 1e-5:1e-3",
    ]
    nb = notebook(cells)
    keyboard = nb.page.keyboard
    nb.page.locator(".jp-Cell.jp-mod-active").wait_for()
    keyboard.press("Escape")
    for _ in range(4):  # to the search
        keyboard.press("Shift+Enter")
    nb.page.locator(HANDLE).wait_for(timeout=60_000)
    nb.wait_idle()
    suggested = rate(nb)
    tab_to(nb, HANDLE)
    keyboard.press("ArrowLeft")
    keyboard.press("ArrowLeft")
    wait_for_text(nb, f"next run: {rate_text(suggested / 10**0.1)}")
    to_cell(nb, 4)
    keyboard.press("Shift+Enter")
    wait_for_later_epoch(nb)
    tab_to(nb, ".nbft-training button", "Stop")
    nb.screenshot("keyboard")
    keyboard.press("Space")
    nb.wait_idle()
    to_cell(nb, 5)
    for _ in range(3):
        keyboard.press("Shift+Enter")
    nb.wait_idle()
    runs = nb.kernel("print([run.status for run in learn.recorder.runs], learn.frozen)")
    assert runs == "['finished', 'stopped', 'finished'] 0\n"
    used = ast.literal_eval(nb.kernel("print([max(r.lrs)[-1] for r in learn.recorder.runs])"))
    assert used[0] > 90
    assert used[1] < suggested
    lrs = ast.literal_eval(nb.kernel("print(max(learn.recorder.run.lrs))"))
    assert lrs == pytest.approx([1e-5, 1e-3], rel=0.05)


def to_cell(nb, i: int) -> None:
    """Go to cell i with the keys of JupyterLab's command mode."""
    for _ in range(20):
        active = nb.active_cell()
        if active == i:
            return
        nb.page.keyboard.press("Escape")
        nb.page.keyboard.press("j" if active < i else "k")
    pytest.fail(f"the keys do not reach cell {i}")


def tab_to(nb, selector: str, text: str = "") -> None:
    """Press Tab until an element like this has the focus."""
    is_there = """([selector, text]) => {
        const element = document.activeElement;
        return element.matches(selector) && element.textContent.includes(text);
    }"""
    for _ in range(80):
        nb.page.keyboard.press("Tab")
        if nb.page.evaluate(is_there, [selector, text]):
            return
    pytest.fail(f"Tab does not reach {selector}")
