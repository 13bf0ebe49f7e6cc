"""The pictures of the screens in the README: writes notebooks/screens/*.png.

    python benchmarks/screenshots.py

JupyterLab in a Chromium runs the cells of a notebook, as in tests/browser: the plot of `%lr_find`,
a strip of three moments of `%fine_tune`, the confusion matrix with the pictures of its worst cell,
and one of them enlarged, with where the network looked; the last two in the dark theme. They are
drawn shapes.
"""

import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import conftest  # noqa: E402
from browser.matrix import MATRIX, THUMB, click_cell, top_cells, wait_for_cell  # noqa: E402
from browser.notebook import RUN_MS, Notebook  # noqa: E402

FOLDER = str(Path(tempfile.gettempdir()) / "shapes")  # the enlarged picture shows it
CELLS = [
    f"""\
%load_ext nbfinetune
from nbfinetune import ImageDataLoaders, samples, vision_learner
path = samples.draw_shapes({FOLDER!r}, wrong=0.1)
dls = ImageDataLoaders.from_folder(path, size=96, bs=32)
learn = vision_learner(dls, "efficientnet_lite0")""",
    "%lr_find",
    "%fine_tune 6 --freeze-epochs 3 --lr-mult 5",
    "cm = %confusion_matrix",
]
PAGE = {"width": 1200, "height": 1100}  # px; each cell fits on it
STRIP = 620  # px: the width of a moment of the strip
GAP = 16  # px between these


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium that shows scroll bars, as one with a window does."""
    found = [path for name in conftest.CHROMIUM_NAMES if (path := shutil.which(name))]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found[0] if found else None,
            args=conftest.CHROMIUM_ARGS,
            ignore_default_args=["--hide-scrollbars"],
        )
        yield browser
        browser.close()


def test_screens(notebook: Callable[..., Notebook], tmp_path: Path) -> None:
    nb = notebook(CELLS)
    nb.page.set_viewport_size(PAGE)
    target = ROOT / "notebooks/screens"
    target.mkdir(exist_ok=True)

    def shot(i: int) -> Image.Image:
        nb.select_cell(0)  # no buttons and no frame on cell i
        file = tmp_path / f"{i}.png"
        nb.cell(i).screenshot(path=file)
        return Image.open(file).convert("RGB")

    def keep(picture: Image.Image, name: str) -> None:
        few = picture.quantize(dither=Image.Dither.NONE)
        few.save(target / f"{name}.png", optimize=True)

    nb.run_cell(0)
    nb.run_cell(1)
    nb.page.locator(".nbft-lr-handle").first.wait_for()
    keep(shot(1), "search")

    nb.start_cell(2)
    screen = nb.page.locator(".nbft-training")
    moments = []
    for at in ("all layers: epoch [12]", "all layers: epoch [56]"):
        screen.filter(has_text=re.compile(at)).wait_for(timeout=RUN_MS)
        time.sleep(1)  # until the curves of this moment are drawn
        moments.append(shot(2))
    nb.wait_idle()
    nb.cell(2).locator("table").wait_for()
    moments.append(shot(2))
    small = [m.resize((STRIP, m.height * STRIP // m.width)) for m in moments]
    size = (3 * STRIP + 2 * GAP, max(m.height for m in small))
    strip = Image.new("RGB", size, "white")
    for k, moment in enumerate(small):
        strip.paste(moment, (k * (STRIP + GAP), 0))
    keep(strip, "training")

    nb.use_theme("JupyterLab Dark")
    nb.run_cell(3)
    nb.page.locator(MATRIX).wait_for()
    (i, j, n), _ = top_cells(nb)
    click_cell(nb.page, i, j)
    wait_for_cell(nb, i, j, n)
    keep(shot(3), "matrix")

    nb.page.locator(THUMB).first.get_by_role("button").first.click()
    dialog = nb.page.locator("dialog.nbft-large")
    nb.page.wait_for_function("document.querySelector('dialog[open] img').naturalWidth > 0")
    dialog.get_by_label("where did it look").select_option("predicted")
    dialog.locator("text=logit").wait_for()
    file = tmp_path / "pictures.png"
    dialog.screenshot(path=file)
    keep(Image.open(file).convert("RGB"), "pictures")


if __name__ == "__main__":
    # As a plugin tests/browser/conftest.py gives its fixtures to a file that lies elsewhere.
    sys.exit(pytest.main(["-p", "no:cacheprovider", __file__], plugins=[conftest]))
