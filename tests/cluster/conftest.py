"""Engines for tests: a folder of IPython of their own, and two processes that all tests share."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for runs_of_workers, which tests import

from nbfinetune.cluster import engines as engines_module
from nbfinetune.cluster.engines import Engines


@pytest.fixture(scope="session")
def ipython_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for profiles, so that no cluster of a user is met, and all end with the tests."""
    folder = tmp_path_factory.mktemp("ipython")
    before = os.environ.get("IPYTHONDIR")
    os.environ["IPYTHONDIR"] = str(folder)
    yield folder
    for pool in list(engines_module._pools):
        engines_module._end(pool)
    if before is None:
        del os.environ["IPYTHONDIR"]
    else:
        os.environ["IPYTHONDIR"] = before


@pytest.fixture(scope="session")
def local_engines(ipython_folder: Path) -> Callable[[int], Engines]:
    """Makes engines of this machine; those of one pool, which start once for all tests."""
    return lambda n: Engines.local(n, log=lambda *text, **how: None)
