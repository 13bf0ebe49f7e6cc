import ast
import gc
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nbfinetune
from nbfinetune.rendering.left_out import names_left_out

PACKAGE = Path(nbfinetune.__file__).parent
README = (PACKAGE / "README.md").read_text()
# What each package, and each module beside them, may import of the others; its README shows it too.
MAY_IMPORT = {
    "rendering": "",
    "runtime": "rendering",
    "version": "",
    "arguments": "rendering",
    "objectives": "rendering runtime",
    "images": "arguments rendering",
    "data": "arguments images rendering runtime",
    "networks": "arguments data rendering runtime",
    "history": "rendering runtime",
    "training": "arguments data history networks objectives rendering runtime",
    "checkpoints": "arguments data networks rendering runtime training version",
    "lr_finder": "rendering runtime training",
    "interpretation": "arguments data images networks objectives rendering runtime training",
    "scripts": "arguments data images networks rendering runtime training version",
    "exports": "arguments checkpoints data interpretation networks objectives rendering runtime "
    "training version",
    "learner": "arguments checkpoints cluster exports history interpretation lr_finder networks "
    "objectives others rendering runtime scripts training",
    "others": "data images networks objectives rendering runtime",
    "vision": "arguments checkpoints data learner networks objectives rendering runtime training",
    "comparison": "arguments data history learner networks rendering runtime training vision",
    "cluster": "arguments data history interpretation networks objectives rendering runtime "
    "training version",
    "widgets": "data history interpretation rendering",
    "live": "arguments cluster comparison data history interpretation learner lr_finder networks "
    "rendering runtime training widgets",
    "magics": "cluster comparison data history interpretation learner live lr_finder networks "
    "rendering widgets",
}
NO_CORE = ("widgets", "live", "magics")  # these alone may import IPython and widgets
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


MODULES = {module_name(file): file for file in PACKAGE.rglob("*.py")}


def home(module: str) -> str:
    """The package of a module, or the module itself if it lies beside the packages."""
    return f"{module}.".split(".")[1]


def imports_of(module: str) -> set[str]:
    """The modules of ours that one imports: in functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nbfinetune"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & set(MODULES) or {node.module}
    return found


IMPORTS = {module: imports_of(module) for module in MODULES}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_its_row_of_the_table_names(package: str) -> None:
    used = {
        home(found) for module in MODULES if home(module) == package for found in IMPORTS[module]
    }
    assert sorted(used - {package}) == sorted(MAY_IMPORT[package].split())


def test_every_package_has_a_row_and_the_readme_shows_the_same_table() -> None:
    assert {home(module) for module in MODULES} == {*MAY_IMPORT, ""}
    for package, others in MAY_IMPORT.items():
        [row] = re.findall(rf"^\| `{package}[./py]*` \|.*$", README, re.MULTILINE)
        shown = row.split("|")[3]
        assert shown.strip() == ", ".join(others.split()), package


def test_no_modules_and_no_packages_import_each_other_in_a_circle() -> None:
    packages = {package: others.split() for package, others in MAY_IMPORT.items()}
    for graph in (IMPORTS, packages):
        list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_import_of_ours_is_relative_or_of_another_form() -> None:
    """What `imports_of` reads is all there is."""
    for file in MODULES.values():
        for node in ast.walk(ast.parse(file.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), file
            plain = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("nbfinetune") for name in plain), file


def test_folders_stay_small_enough_to_be_read() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 5
    assert max(len(list(folder.glob("*.py"))) for folder in PACKAGE.iterdir()) <= 15


def test_packages_say_what_they_are_and_hold_no_code() -> None:
    for file in PACKAGE.glob("*/__init__.py"):
        [docstring] = ast.parse(file.read_text()).body
        assert isinstance(docstring.value.value, str), file


def test_core_imports_no_ipython_widgets_or_plots() -> None:
    modules = [module for module in MODULES if home(module) not in (*NO_CORE, "")]
    assert printed(f"for m in {modules}: __import__(m)", SCREENS) == ["[]"]


def test_importing_a_package_alone_brings_no_torch() -> None:
    modules = [module_name(file) for file in PACKAGE.glob("*/__init__.py")]
    assert modules
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
        "no picture is marked; mark some in the image panel of %confusion_matrix",
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
        "[False, False, False] ['attach', 'clean']",
        "['ClusterMagics', 'HistoryMagics', 'InterpretationMagics', 'ModelMagics', "
        "'NetworkMagics', 'TrainingMagics'] 1 0",
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
    """Widgets get plain values: of the data they know corrections alone, of interpretation all."""
    of_data = {found for m in MODULES if home(m) == "widgets" for found in IMPORTS[m]}
    assert {found for found in of_data if home(found) == "data"} == {"nbfinetune.data.corrections"}


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
    places = {
        name: home if name.startswith("resnet") else f"nbfinetune.{home}"
        for name, home in nbfinetune._MODULE_OF.items()
    }
    assert places.pop("samples") == "nbfinetune.data.samples"
    assert homes == places


def test_names_of_fastai_that_are_left_out_say_what_to_write() -> None:
    with pytest.raises(ImportError, match=r"has no DataBlock, which is fastai's; write ImageData"):
        from nbfinetune import DataBlock  # noqa: F401
    with pytest.raises(AttributeError, match="module 'nbfinetune' has no attribute 'Data'"):
        _ = nbfinetune.Data
    learn = nbfinetune.Learner.__new__(nbfinetune.Learner)
    with pytest.raises(
        AttributeError, match=r"Learner has no to_fp16, which is fastai's; write vi"
    ):
        learn.to_fp16()
    with pytest.raises(AttributeError, match="'Learner' object has no attribute 'fitt'"):
        learn.fitt()
    assert not set(names_left_out("nbfinetune")) & set(nbfinetune.__all__)
    for owner in ("Learner", "ImageDataLoaders"):
        kind = getattr(nbfinetune, owner)
        assert [name for name in names_left_out(owner) if hasattr(kind, name)] == []


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
        nbfinetune._imported("objectives.metrics")
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
