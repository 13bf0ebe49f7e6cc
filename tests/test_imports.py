import re
import subprocess
import sys
from pathlib import Path

import pytest

import nbfinetune

CORE = [
    "schedules",
    "metrics",
    "layer_groups",
    "images",
    "transforms",
    "reports",
    "datasets",
    "data",
    "rng",
    "callbacks",
    "recorder",
    "snapshot",
    "suggestions",
    "svg",
    "thinning",
    "training_report",
    "control",
    "lr_results",
    "comparison",
    "corrections",
    "interpretation",
    "item_predictions",
    "label_issues",
    "matrix_options",
    "matrix_report",
    "matrix_view",
    "multi_label",
    "thumbnails",
    "interrupts",
    "lr_finder",
    "loop",
    "fitting",
    "prediction",
    "checkpoint",
    "learner",
    "backbones",
    "vision",
    "samples",
]
SCREENS = ("IPython", "ipywidgets", "bqplot", "matplotlib", "pandas", "sklearn")


@pytest.mark.parametrize("modules", [CORE], ids=["core"])
def test_core_imports_no_ipython_widgets_or_plots(modules: list[str]) -> None:
    code = f"import sys\nfor m in {modules}: __import__('nbfinetune.' + m)\n"
    code += f"print([m for m in {SCREENS} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_screens_know_no_training() -> None:
    """Widgets get plain values: they import nothing that trains or has a learner."""
    allowed = {"reports", "svg", "thinning", "training_report", "widgets"}
    allowed |= {
        "interpretation",
        "item_predictions",
        "comparison",
        "corrections",
        "thumbnails",
        "matrix_view",
    }  # finished results
    for file in sorted((Path(nbfinetune.__file__).parent / "widgets").glob("*.py")):
        names = re.findall(r"^from nbfinetune\.(\w+)", file.read_text(), re.MULTILINE)
        assert set(names) <= allowed, file.name


def test_public_names_are_sorted_and_exist() -> None:
    assert nbfinetune.__all__ == sorted(nbfinetune.__all__)
    assert all(hasattr(nbfinetune, name) for name in nbfinetune.__all__)


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert version("nbfinetune") == nbfinetune.__version__
