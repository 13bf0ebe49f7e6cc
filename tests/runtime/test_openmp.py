"""Threads that wait give their core away, unless the user has said how threads compute."""

import os
import subprocess
import sys

import pytest

from nbfinetune.runtime import openmp

# Nothing here imports torch, but each is how a session comes to do it.
ENTRIES = {
    "lazy name": "from nbfinetune import get_image_files",
    "extension": "from IPython.core.interactiveshell import InteractiveShell\n"
    "InteractiveShell.instance().run_line_magic('load_ext', 'nbfinetune')",
}


@pytest.fixture
def environment(monkeypatch) -> None:
    """An environment without variables of OpenMP, and torch not imported."""
    for name in list(os.environ):
        if name.startswith(("OMP_", "GOMP_", "KMP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GOMP_SPINCOUNT", "")  # so that it is taken back whoever sets it
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.usefixtures("environment")
def test_threads_spin_briefly_where_nobody_said_otherwise() -> None:
    assert not openmp.is_set()
    openmp.spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    assert openmp.is_set()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"])
def test_what_the_user_set_is_left_alone(monkeypatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    openmp.spin_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.usefixtures("environment")
def test_a_count_of_the_user_stays(monkeypatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    openmp.spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "5"


@pytest.mark.usefixtures("environment")
def test_nothing_is_set_where_torch_is_there_already(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", object())
    openmp.spin_briefly()
    assert not openmp.is_set()


@pytest.mark.usefixtures("environment")
def test_nothing_is_set_outside_linux(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    openmp.spin_briefly()
    assert not openmp.is_set()


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp comes with torch on Linux alone")
@pytest.mark.parametrize("entry", ENTRIES)
def test_it_is_set_before_torch_is_imported(entry: str) -> None:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    code = f"import os, nbfinetune\nprint(os.environ.get('GOMP_SPINCOUNT'))\n{ENTRIES[entry]}"
    code += "\nprint(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True)
    assert done.stdout.split() == ["None", "1000"], done.stderr
