"""The picture of the screens in the README: writes notebooks/screens.png.

    python benchmarks/screenshots.py

JupyterLab in a Chromium runs the cells of a notebook, as in tests/browser: the plot of `%lr_find`,
the screen of `%fine_tune` while it trains, and the confusion matrix with the pictures of its worst
cell. They are drawn shapes, or photos of pets where `NBFINETUNE_PETS` names a folder.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import conftest  # noqa: E402
from browser.matrix import MATRIX, click_cell, top_cells, wait_for_cell  # noqa: E402
from browser.notebook import RUN_MS, Notebook  # noqa: E402

SHAPES = "dls = ImageDataLoaders.from_folder(samples.draw_shapes(wrong=0.1), size=96)"
PETS = """\
dls = ImageDataLoaders.from_name_re(
    samples.pets(), None, r"(.+)_\\d+", valid_pct=0.3, size=128
)"""
CELLS = [
    f"""\
%load_ext nbfinetune
from nbfinetune import ImageDataLoaders, samples, vision_learner
{PETS if "NBFINETUNE_PETS" in os.environ else SHAPES}
learn = vision_learner(dls, "efficientnet_lite0")""",
    "%lr_find",
    "%fine_tune 6 --freeze-epochs 3 --lr-mult 5",
    "cm = %confusion_matrix",
]
PAGE = {"width": 960, "height": 1600}  # px; each cell fits on it
GAP = 24  # px between the screens


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

    def shot(i: int) -> Image.Image:
        nb.select_cell(0)  # no buttons and no frame on cell i
        file = tmp_path / f"{i}.png"
        nb.cell(i).screenshot(path=file)
        return Image.open(file).convert("RGB")

    nb.run_cell(0)
    nb.run_cell(1)
    nb.page.get_by_label("learning rate", exact=True).wait_for()
    search = shot(1)

    nb.start_cell(2)
    late = nb.page.locator(".nbft-training", has_text=re.compile("all layers: epoch [456]"))
    late.wait_for(timeout=RUN_MS)
    training = shot(2)

    nb.wait_idle()
    nb.run_cell(3)
    nb.page.locator(MATRIX).wait_for()
    (i, j, n), _ = top_cells(nb)
    click_cell(nb.page, i, j)
    wait_for_cell(nb, i, j, n)
    matrix = shot(3)

    height = max(search.height + GAP + training.height, matrix.height)
    screens = Image.new("RGB", (search.width + GAP + matrix.width, height), "white")
    screens.paste(search, (0, 0))
    screens.paste(training, (0, search.height + GAP))
    screens.paste(matrix, (search.width + GAP, 0))
    screens.quantize(dither=Image.Dither.NONE).save(ROOT / "notebooks/screens.png", optimize=True)


if __name__ == "__main__":
    # As a plugin tests/browser/conftest.py gives its fixtures to a file that lies elsewhere.
    sys.exit(pytest.main(["-p", "no:cacheprovider", __file__], plugins=[conftest]))
