"""The demo under a real mouse, keyboard and clipboard: chosen, pasted and dropped pictures."""

import base64
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="tests in a browser need playwright")
from playwright.sync_api import expect

SETUP = """\
%load_ext nbfinetune
from nbfinetune import ImageDataLoaders, samples, vision_learner
path = samples.draw_shapes(n=12, size=64)
dls = ImageDataLoaders.from_folder(path, size=64, valid_pct=0.5)
learn = vision_learner(dls, "efficientnet_lite0", device="cpu")
learn.fit_one_cycle(2, 3e-3);"""
PANEL, BARS = ".nbft-demo-panel", ".nbft-bars li"
# What the page is given, as a picture in its clipboard or in a drop.
COPIED = """async data => {
    const blob = await (await fetch(`data:image/png;base64,${data}`)).blob();
    await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
}"""
DROPPED = """async ([selector, data, name, type]) => {
    const blob = await (await fetch(`data:${type};base64,${data}`)).blob();
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([blob], name, {type}));
    for (const kind of ["dragover", "drop"]) {
        const event = new DragEvent(kind, {dataTransfer, bubbles: true, cancelable: true});
        document.querySelector(selector).dispatchEvent(event);
    }
}"""


def test_a_picture_is_chosen_pasted_or_dropped_and_its_classes_are_read(
    notebook, tmp_path: Path
) -> None:
    nb = notebook([SETUP, "screen = learn.demo()"])
    page = nb.page
    page.on("filechooser", lambda chooser: None)  # else the window may open before it is caught
    nb.run_cell(0)
    [one, two] = nb.kernel(
        "import PIL\nfor i in (0, 9): print(dls.valid.dataset.path(i))"
    ).splitlines()
    nb.run_cell(1)
    panel = page.locator(PANEL)
    panel.wait_for()
    expect(page.locator(BARS)).to_have_count(0)

    def answered(name: str, file: str) -> None:
        """The bars are those of the learner's own prediction of a file."""
        expect(page.locator(f"{PANEL} figcaption")).to_have_text(name)
        top = nb.kernel(
            f"probs = learn.predict({file!r})[2]\n"
            "for p, i in zip(*(t.tolist() for t in probs.topk(5))):\n"
            "    print(f'{dls.vocab[i]}{p:.2f}')"
        ).splitlines()
        expect(page.locator(BARS)).to_have_text(top)
        label = top[0][:-4]
        expect(page.locator(f"{PANEL} img")).to_have_attribute(
            "alt", f"{name}, most probably {label} ({top[0][-4:]})"
        )
        assert page.locator(f"{PANEL} img").evaluate("img => img.naturalWidth") == 64
        shares = page.locator(f"{BARS} .nbft-bar > span").evaluate_all(
            "bars => bars.map(bar => bar.offsetWidth / bar.parentElement.clientWidth)"
        )
        assert shares == pytest.approx([float(line[-4:]) for line in top], abs=0.02)

    # With keys alone: the panel, its button, and what the system's window gives.
    panel.focus()
    page.keyboard.press("Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(one)
    answered(Path(one).name, one)
    spoken = page.get_by_role("status").filter(has_text=f"{Path(one).name}: ")
    expect(spoken.first).to_be_visible()
    nb.screenshot("demo_light")

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(COPIED, base64.b64encode(Path(two).read_bytes()).decode())
    panel.focus()
    page.keyboard.press("Control+v")
    answered("image.png", two)
    assert len(nb.output(1)) >= 1  # and no cell was pasted
    assert page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length") == 2

    data = base64.b64encode(Path(one).read_bytes()).decode()
    page.evaluate(DROPPED, [PANEL, data, "<b>dropped</b>.png", "image/png"])
    answered("<b>dropped</b>.png", one)
    nb.use_theme("JupyterLab Dark")
    nb.screenshot("demo_dark")

    page.evaluate(DROPPED, [PANEL, base64.b64encode(b"no picture").decode(), "x.txt", "text/plain"])
    expect(panel.get_by_role("alert")).to_contain_text("x.txt: ")
    expect(page.locator(BARS)).to_have_count(0)
    assert nb.kernel("print(screen.classes)") == "[]\n"
