"""Status: a line of text that is spoken when it changes."""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class Status(anywidget.AnyWidget):
    """A polite live region.

    Parameters
    ----------
    text : the line, plain text

    Attributes
    ----------
    rendered : whether a front end has shown it
    """

    _esm = (_HERE / "status.js").read_text("utf-8")
    _css = (_HERE / "screens.css").read_text("utf-8")
    text = traitlets.Unicode("").tag(sync=True)
    rendered = traitlets.Bool(False)

    def __init__(self, text: str = "") -> None:
        super().__init__(text=text)
        self.on_msg(self._on_msg)

    def _on_msg(self, widget: object, content: dict, buffers: list) -> None:
        if content.get("event") == "rendered":
            self.rendered = True
