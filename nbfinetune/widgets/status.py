"""Status: a line of text that is spoken when it changes."""

from pathlib import Path

import anywidget
import traitlets


class Status(anywidget.AnyWidget):
    """A polite live region.

    Parameters
    ----------
    text : the line, plain text

    Attributes
    ----------
    rendered : whether a front end has shown it
    """

    _esm = Path(__file__).parent / "status.js"
    _css = """
    .nbft-spoken {
        position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
    }
    """
    text = traitlets.Unicode("").tag(sync=True)
    rendered = traitlets.Bool(False)

    def __init__(self, text: str = "") -> None:
        super().__init__(text=text)
        self.on_msg(self._on_msg)

    def _on_msg(self, widget: object, content: dict, buffers: list) -> None:
        if content.get("event") == "rendered":
            self.rendered = True
