"""OutputKeeper: keeps a screen in its cell, in pages opened after it was displayed."""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

from nbfinetune.widgets.disposal import dispose
from nbfinetune.widgets.screen import Screen

_HERE = Path(__file__).parent


class OutputKeeper(anywidget.AnyWidget):
    """Puts a screen, and what is left of it, into a notebook that was reloaded meanwhile.

    A page that did not see a cell start drops what the cell displays, but gets its widgets.

    Parameters
    ----------
    screen : is displayed already
    cell : id of the cell
    count : of its execution
    client : the page that runs the cell

    Attributes
    ----------
    known : whether a page keeps the screen
    """

    _esm = (_HERE / "output_keeper.js").read_text("utf-8")
    screen = traitlets.Unicode().tag(sync=True)
    words = traitlets.Unicode().tag(sync=True)
    cell = traitlets.Unicode().tag(sync=True)
    count = traitlets.Int().tag(sync=True)
    client = traitlets.Unicode().tag(sync=True)
    instead = traitlets.Dict().tag(sync=True)
    below = traitlets.Dict().tag(sync=True)
    ended = traitlets.Bool(False).tag(sync=True)

    def __init__(self, screen: Screen, *, cell: str, count: int, client: str) -> None:
        super().__init__(
            screen=screen.model_id, words=repr(screen), cell=cell, count=count, client=client
        )
        self.known = False
        self._then: Callable[[], None] = self.close
        self.on_msg(self._on_msg)

    def close(self) -> None:
        """Close it and its layout."""
        dispose(self)

    def end(
        self, then: Callable[[], None], *, instead: dict | None = None, below: dict | None = None
    ) -> None:
        """Leave the last outputs in the notebook, then close and call `then`; only if `known`.

        Parameters
        ----------
        then : called when a page has them
        instead, below : MIME bundles that take the place of the screen, that come below it
        """
        self._then = then
        with self.hold_sync():
            self.instead, self.below, self.ended = instead or {}, below or {}, True

    def _on_msg(self, widget: object, content: dict, buffers: list) -> None:
        event = content.get("event")
        if event == "known":
            self.known = True
        elif event in ("elsewhere", "done") and self.comm is not None:
            self.known = False
            self.close()
            if self.ended:
                self._then()
