import ast
import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nbfinetune

PACKAGE = Path(nbfinetune.__file__).parent
CORE = [
    "rendering",
    "runtime",
    "data",
    "networks",
    "history",
    "training",
    "checkpoints",
    "lr_finder",
    "interpretation",
]
SCREENS = ("IPython", "ipywidgets", "bqplot", "matplotlib", "pandas", "sklearn")


HEAVY = ("torch", "torchvision", "bqplot", "ipywidgets", "anywidget", "pandas", "sklearn")
LOAD = """
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "nbfinetune")
"""


def printed(code: str, modules: tuple[str, ...] = HEAVY) -> list[str]:
    """The lines that a new Python prints, the last of them which of the modules it has then."""
    code += f"\nimport sys\nprint([m for m in {modules} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def test_core_imports_no_ipython_widgets_or_plots() -> None:
    files = [*(PACKAGE / f"{name}.py" for name in ("learner", "vision"))]
    files += [file for package in CORE for file in (PACKAGE / package).glob("*.py")]
    modules = [module_name(file) for file in files]
    assert printed(f"for m in {modules}: __import__(m)", SCREENS) == ["[]"]


def test_importing_a_package_alone_brings_no_torch() -> None:
    modules = [module_name(file) for file in PACKAGE.glob("*/__init__.py")]
    assert len(modules) == 12
    assert printed(f"for m in {modules}: __import__(m)") == ["[]"]


def test_the_package_and_its_magics_load_without_torch_plots_or_widgets() -> None:
    assert printed("import nbfinetune") == ["[]"]
    assert printed(LOAD) == ["[]"]


def test_options_complete_and_help_is_there_before_torch_is_imported() -> None:
    code = """
from IPython.core.completer import provisionalcompleter
shell.Completer.use_jedi = False
for typed in ("%fine_tune 3 --fr", "%confusion_matrix --nor", "%freeze_to -l "):
    with provisionalcompleter():
        found = shell.Completer.completions(typed, len(typed))
        print([c.text for c in found if c.type == "option"])
print("--verify K" in shell.object_inspect("%lr_find")["docstring"])
"""
    options = ["['--freeze-epochs']", "['--normalize']", "[]"]
    assert printed(LOAD + code) == [*options, "True", "[]"]


def test_a_magic_that_finds_no_learner_says_so_before_torch_is_imported() -> None:
    code = """
shell.user_ns["x"] = 3
for name, line in (("fine_tune", "3"), ("top_losses", ""), ("freeze", "-l x")):
    try:
        shell.run_line_magic(name, line)
    except UsageError as error:
        print(error)
print(shell.run_line_magic("clean", "").title)
"""
    assert printed(LOAD + code) == [
        "there is no learner here; make one: learn = vision_learner(dls, 'resnet34')",
        "there is no learner here; make one: learn = vision_learner(dls, 'resnet34')",
        "'x' is a int, not a Learner; there is no learner here",
        "0 pictures are marked",
        "[]",
    ]


def test_unloading_before_any_magic_ran_takes_all_away() -> None:
    code = """
def state():
    magics = {kind: set(names) for kind, names in shell.magics_manager.magics.items()}
    return magics, set(shell.magics_manager.registry), list(shell.Completer.custom_matchers)
loaded = state()
shell.run_line_magic("unload_ext", "nbfinetune")
before = state()
shell.run_line_magic("load_ext", "nbfinetune")
print([a == b for a, b in zip(before, loaded)], sorted(loaded[0]["line"] - before[0]["line"])[:2])
print(sorted(loaded[1] - before[1]), len(loaded[2]), len(before[2]))
shell.run_line_magic("unload_ext", "nbfinetune")
print(state() == before)
"""
    assert printed(LOAD + code) == [
        "[False, False, False] ['clean', 'confusion_matrix']",
        "['InterpretationMagics', 'ModelMagics', 'TrainingMagics'] 1 0",
        "True",
        "[]",
    ]


def test_a_learner_made_after_loading_is_found_and_trains_in_a_terminal_without_plots() -> None:
    code = """
shell.run_cell('''
from types import SimpleNamespace
import nbfinetune, torch
batch = torch.arange(16.0).view(4, 4), torch.tensor([0, 1, 0, 1])
loaders = SimpleNamespace(train=[batch], valid=[batch], vocab=["no", "yes"])
mine = nbfinetune.Learner(loaders, torch.nn.Linear(4, 2), device="cpu")
%freeze
%fit_flat_cos 1 1e-3;
''').raise_error()
"""
    lines = printed(LOAD + code, ("torch", "bqplot", "pandas", "sklearn"))
    assert lines[0].startswith("no change in what trains: 0 of 1 layer groups are frozen")
    assert lines[1].split() == ["epoch", "train_loss", "valid_loss", "time"]
    assert lines[-1] == "['torch']"


def test_screens_know_no_training() -> None:
    """Widgets get plain values: they import nothing that trains or has a learner."""
    allowed = {"rendering", "history", "interpretation", "widgets"}  # the middle two: results
    allowed.add("data.corrections")
    for file in sorted((PACKAGE / "widgets").glob("*.py")):
        for name in re.findall(r"^from nbfinetune\.([\w.]+)", file.read_text(), re.MULTILINE):
            assert {name, name.partition(".")[0]} & allowed, f"{file.name} imports {name}"


def test_public_names_are_sorted_and_exist() -> None:
    assert nbfinetune.__all__ == sorted(nbfinetune.__all__)
    assert all(hasattr(nbfinetune, name) for name in nbfinetune.__all__)


def test_a_star_brings_all_public_names() -> None:
    names = {}
    exec("from nbfinetune import *", names)
    assert set(names) - {"__builtins__"} == set(nbfinetune.__all__)


def test_editors_see_each_name_where_it_is_imported_from() -> None:
    tree = ast.parse(Path(nbfinetune.__file__).read_text())
    [seen] = [node.body for node in tree.body if isinstance(node, ast.If)]  # if TYPE_CHECKING
    homes = {alias.name: line.module for line in seen for alias in line.names}
    assert sorted(homes) == nbfinetune.__all__
    assert homes.pop("samples") == "nbfinetune.data"
    places = {name: f"nbfinetune.{home}" for name, home in nbfinetune._MODULE_OF.items()}
    assert places.pop("samples") == "nbfinetune.data.samples"
    assert homes == places


def test_names_that_are_not_imported_yet_are_listed() -> None:
    code = "import nbfinetune\nprint(set(nbfinetune.__all__) - set(dir(nbfinetune)))"
    assert printed(code) == ["set()", "[]"]


def test_samples_are_there_without_an_import_of_their_own(monkeypatch) -> None:
    monkeypatch.delattr(nbfinetune, "samples")
    assert nbfinetune.samples.__name__ == "nbfinetune.data.samples"


@pytest.mark.parametrize("collecting", [True, False])
def test_the_garbage_collector_is_as_before_after_an_import(monkeypatch, collecting) -> None:
    monkeypatch.delitem(sys.modules, "torch")  # as at the first import
    if not collecting:
        gc.disable()
    try:
        nbfinetune._imported("training.metrics")
        with pytest.raises(ModuleNotFoundError, match="no_module"):
            nbfinetune._imported("no_module")
        assert gc.isenabled() == collecting
    finally:
        gc.enable()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'nbfinetune' has no attribute 'Lerner'"):
        nbfinetune.Lerner  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Lerner'"):
        exec("from nbfinetune import Lerner")


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert version("nbfinetune") == nbfinetune.__version__
