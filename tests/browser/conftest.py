"""A JupyterLab server and a Chromium, and in them the notebooks of a test."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from .notebook import Notebook

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOW_TO_GET = (
    "tests in a browser need a Chromium and two packages: pip install playwright jupyterlab; "
    "apt-get install chromium, or: playwright install chromium"
)

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
# A container has neither a sandbox nor a GPU; the others keep the browser off the network.
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

SETTINGS = {
    # The question whether to fetch news would lie over the page.
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    # By default JupyterLab gives a kernel one second: too few on a busy machine.
    "completer-extension/manager": '{"providerTimeout": 30000}',
}


PATIENCE_MS = 60_000  # for what takes a second where nothing else runs

# Kernels of other environments, in which nbfinetune is installed too, next to this one's.
KERNELS = {
    f"kernel{i}": python
    for i, python in enumerate(os.environ.get("NBFINETUNE_KERNELS", "").split(os.pathsep))
    if python
}


@pytest.fixture(params=["python3", *KERNELS])
def kernel(request: pytest.FixtureRequest) -> str:
    """The name of each kernel."""
    return request.param


def _missing(what: str) -> NoReturn:
    text = f"{what} is missing; {HOW_TO_GET}"
    if os.environ.get("NBFINETUNE_REQUIRE_BROWSER") == "1":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


# Not for the whole session: Playwright's event loop would run under all later tests.
@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    """A headless Chromium: the system's, else the one that Playwright installed."""
    if not find_spec("playwright"):
        _missing("playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = [path for name in CHROMIUM_NAMES if (path := shutil.which(name))]
        path = found[0] if found else playwright.chromium.executable_path
        if not Path(path).exists():
            _missing("Chromium")
        # Scroll bars as users have them: one more pixel of a box than there is room for moves all.
        browser = playwright.chromium.launch(
            executable_path=path, args=CHROMIUM_ARGS, ignore_default_args=["--hide-scrollbars"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab server that knows no settings of the user: its address and its folder."""
    if not find_spec("jupyterlab"):
        _missing("jupyterlab")
    root = tmp_path_factory.mktemp("lab")
    folder, own = root / "notebooks", root / "jupyter"
    folder.mkdir()
    settings = own / "settings"
    for name, text in SETTINGS.items():
        file = settings / f"@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    for name, python in KERNELS.items():
        spec = own / "data" / "kernels" / name / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": name, "language": "python"}))
    env = os.environ | {
        "JUPYTER_CONFIG_DIR": str(own / "config"),
        "JUPYTER_DATA_DIR": str(own / "data"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
        "IPYTHONDIR": str(own / "ipython"),
        "OMP_NUM_THREADS": "1",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *(f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"),
        *("--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"),
        "--LabApp.expose_app_in_browser=True",
        "--JupyterNotebookApp.expose_app_in_browser=True",
    ]
    log = root / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait_for(server, url, log)
        yield url, folder
    finally:
        _end(server)


def _wait_for(server: subprocess.Popen, url: str, log: Path) -> None:
    for _ in range(600):  # a minute
        try:
            urllib.request.urlopen(f"{url}/api", timeout=10).close()
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)  # a server that starts has no state to wait for
    pytest.fail(f"JupyterLab does not answer:\n{log.read_text()}", pytrace=False)


def _end(server: subprocess.Popen) -> None:
    server.terminate()  # which ends its kernels
    try:
        server.wait(timeout=15)
    except subprocess.TimeoutExpired:  # seen: all is shut down, but one of its threads stays
        server.kill()
        server.wait()


@pytest.fixture
def notebook(browser: "Browser", lab: tuple[str, Path]) -> Iterator[Callable[..., Notebook]]:
    """Opens code cells, or a copy of a notebook file, with a fresh kernel.

    At the end no page and no console may have shown an error.
    """
    url, folder = lab
    from playwright.sync_api import expect

    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    opened: list[Notebook] = []

    def open_notebook(
        source: list[str] | Path,
        name: str = "test.ipynb",
        kernel: str = "python3",
        view: str = "doc/tree",
    ) -> Notebook:
        if isinstance(source, Path):
            shutil.copy(source, folder / name)
        else:
            cells = new_notebook(cells=[new_code_cell(code) for code in source])
            cells.metadata.kernelspec = {"name": kernel, "display_name": kernel}
            nbformat.write(cells, folder / name)
        opened.append(Notebook(context.new_page(), url, name, view))
        return opened[-1]

    yield open_notebook
    for each in opened:
        each.shutdown()
    context.close()
    assert [error for each in opened for error in each.errors] == []
