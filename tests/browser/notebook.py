"""A notebook in a real JupyterLab: what a user does and sees, driven from a test."""

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Locator, Page

ARTIFACTS = Path(__file__).parent / "artifacts"

# Errors that JupyterLab's and Notebook 7's own parts report whatever the notebook holds.
JUPYTERLAB_NOISE = [
    # anywidget gives each model two seconds, which a busy machine may take.
    r"\[anywidget\] Failed to initialize model\.\n *at AbortSignal",
    # Thrown by Notebook 7's own code: settings without a schema, no command to open a path.
    r"^[^\n]*\n *at [^\n]*/static/notebook/",
    # and fonts of a page that is left while it loads.
    r"status of 403 .*\.woff2$",
    # A page that is left while its debugger asks the kernel.
    r"Could not restore the debugger state: Canceled future",
    # ipywidgets asks for the kernel of a notebook that was opened without one.
    r"Cannot read properties of null \(reading 'kernel'\)\n.*@jupyter-widgets/jupyterlab-manager",
]

OPEN_MS = 60_000  # JupyterLab and a kernel, on a busy machine
RUN_MS = 1_200_000  # the lecture, the longest, took 440 s to 11 minutes beside other tests
POLL_MS = 100  # asking at each frame would take time from the training

# What the page calls the notebook; there is none before JupyterLab is up.
PANEL = "window.jupyterapp.shell.currentWidget"
KERNEL = f"{PANEL}.sessionContext.session?.kernel"


class Notebook:
    """A notebook opened alone on a page, driven by JupyterLab's own commands.

    Parameters
    ----------
    page : a new page
    url : of the server
    path : of the notebook, from the server's folder
    view : "doc/tree" is JupyterLab with one document, "notebooks" is Notebook 7

    Attributes
    ----------
    errors : errors of the page and its console so far; a test that expects some clears them
    """

    def __init__(self, page: "Page", url: str, path: str, view: str) -> None:
        self.page, self.url, self.path = page, url, path
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self._note(error.stack or error.message))
        page.on("console", self._on_console)
        self._address = f"{url}/{view}/{path}"
        page.goto(f"{self._address}?reset")
        self._wait_for_panel()
        self._wait(f"{KERNEL}?.status === 'idle'", OPEN_MS)

    def start_all(self) -> None:
        """Start "Run All Cells" without waiting for it."""
        self._start("notebook:run-all-cells")

    def start_all_from(self, i: int) -> None:
        """Start cell i and all below it, without waiting for them."""
        self.select_cell(i)
        self._start("notebook:run-all-below")

    def select_cell(self, i: int) -> None:
        """Make cell i the active one, in command mode."""
        self.page.evaluate(f"i => {{ {PANEL}.content.activeCellIndex = i }}", i)
        self.page.evaluate(f"() => {{ {PANEL}.content.mode = 'command' }}")

    def active_cell(self) -> int:
        """The number of the cell that is active."""
        return self.page.evaluate(f"{PANEL}.content.activeCellIndex")

    def run_all(self) -> None:
        self.start_all()
        self.wait_idle()

    def start_cell(self, i: int) -> None:
        """Start cell i, counted with the Markdown cells, without waiting for it."""
        self.select_cell(i)
        self._start("notebook:run-cell")

    def run_cell(self, i: int) -> None:
        self.start_cell(i)
        self.wait_idle()

    def wait_idle(self) -> None:
        """Wait until all that was started has ended."""
        self._wait(f"!window.running && {KERNEL}?.status === 'idle'", RUN_MS)

    def kernel(self, code: str) -> str:
        """What `code`, run in the idle kernel, prints."""
        self.wait_idle()
        return self.page.evaluate(
            f"""code => {{
                const future = {KERNEL}.requestExecute({{code, store_history: false}});
                let text = "";
                future.onIOPub = message => {{
                    if (message.header.msg_type === "stream") text += message.content.text;
                }};
                return future.done.then(reply => {{
                    if (reply.content.status !== "ok") throw new Error(reply.content.evalue);
                    return text;
                }});
            }}""",
            code,
        )

    def output(self, i: int) -> list[dict]:
        """The outputs of cell i as the notebook format stores them, none of a Markdown cell."""
        outputs = f"{PANEL}.content.widgets[i].model.outputs"
        return self.page.evaluate(f"i => {outputs}?.toJSON() ?? []", i)

    def cell(self, i: int) -> "Locator":
        """Cell i on the page, scrolled to: JupyterLab draws only what is near."""
        self.page.evaluate(f"i => {PANEL}.content.scrollToItem(i)", i)
        return self.page.locator(f'.jp-Cell[data-windowed-list-index="{i}"]')

    def interrupt(self) -> None:
        self.execute("notebook:interrupt-kernel")

    def use_theme(self, name: str) -> None:
        """Show JupyterLab in one of its themes."""
        self.execute("apputils:change-theme", theme=name)
        light = "true" if "Light" in name else "false"
        self.page.locator(f'body[data-jp-theme-light="{light}"]').wait_for(state="attached")

    def save(self) -> None:
        self.execute("docmanager:save")

    def reload(self) -> None:
        """Load the page again, whatever is not saved, and wait until the notebook is there."""
        self.page.reload()
        self._wait_for_panel()

    @contextmanager
    def away(self) -> Iterator[None]:
        """While the page is closed; then it is opened again."""
        self.page.goto("about:blank")
        yield
        self.page.goto(self._address)
        self._wait_for_panel()

    def reopen(self, view: str) -> None:
        """Open the saved file with a new kernel."""
        self.shutdown()
        self.page.goto(f"{self.url}/{view}/{self.path}?reset")
        self._wait_for_panel()
        self._wait(f"{KERNEL}?.status === 'idle'", OPEN_MS)

    def kernel_state(self) -> str:
        """What the server says of the kernel, "busy" or "idle"."""
        with urllib.request.urlopen(f"{self.url}/api/kernels") as answer:
            [kernel] = json.load(answer)
        return kernel["execution_state"]

    def reopen_without_kernel(self) -> None:
        """Show the saved file as it is, like "Open With > Notebook (no kernel)"."""
        self.shutdown()
        self.page.goto(f"{self.url}/doc?reset")
        self._wait("window.jupyterapp", OPEN_MS)
        # Before the layout is restored it would take the place of what is opened.
        self.page.evaluate("window.jupyterapp.restored.then(() => {})")
        self.execute(
            "docmanager:open",
            path=self.path,
            factory="Notebook",
            kernelPreference={"shouldStart": False, "canStart": False},
        )
        self._wait_for_panel()

    def shutdown(self) -> None:
        """End the kernel."""
        self.page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")

    def screenshot(self, name: str) -> Path:
        """Save a picture of the page for a person to look at."""
        file = ARTIFACTS / f"{name}.png"
        self.page.screenshot(path=file)
        return file

    def _wait_for_panel(self) -> None:
        shown = "window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length"
        self._wait(shown, OPEN_MS)

    def _start(self, command: str) -> None:
        self.page.evaluate(
            """command => {
                window.running = (window.running ?? 0) + 1;
                window.jupyterapp.commands.execute(command).finally(() => window.running--);
            }""",
            command,
        )

    def execute(self, command: str, **args) -> None:
        # The result holds widgets, which do not travel: nothing comes back.
        script = "([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => {})"
        self.page.evaluate(script, [command, args])

    def _wait(self, condition: str, timeout: float) -> None:
        self.page.wait_for_function(f"() => {condition}", polling=POLL_MS, timeout=timeout)

    def _on_console(self, line: "ConsoleMessage") -> None:
        if line.type == "error":
            self._note(f"{line.text} {line.location['url']}")

    def _note(self, error: str) -> None:
        if not any(re.search(known, error) for known in JUPYTERLAB_NOISE):
            self.errors.append(error)
