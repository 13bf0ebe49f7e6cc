"""RunButtons: pause, stop and finish a run; the page answers at once, then the kernel."""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class RunButtons(anywidget.AnyWidget):
    """Three buttons, and a line that says what they have done.

    What was asked for stands on the line until the kernel tells its own state: a kernel in the
    midst of a batch takes seconds to hear of it.

    Parameters
    ----------
    on_request : gets each request: "pause", "resume", "stop" or "finish"
    finishes : whether there is a button to finish

    Attributes
    ----------
    state : of the run, as the kernel knows it: "running", "paused", "stopping", "finishing",
        "ended"
    text : that in words
    """

    _esm = (_HERE / "run_buttons.js").read_text("utf-8")
    _css = (_HERE / "run_buttons.css").read_text("utf-8")
    state = traitlets.Unicode("running").tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    finishes = traitlets.Bool(True).tag(sync=True)

    def __init__(self, on_request: Callable[[str], None], *, finishes: bool = True) -> None:
        super().__init__(finishes=finishes)
        self._on_request = on_request
        self.on_msg(self._on_msg)

    def _on_msg(self, widget: object, content: dict, buffers: list) -> None:
        if content.get("request") in ("pause", "resume", "stop", "finish"):
            self._on_request(content["request"])
            self.send({"taken": content["request"]})

    def show(self, state: str, text: str = "") -> None:
        """Tell the state of the run."""
        with self.hold_sync():
            self.state, self.text = state, text
