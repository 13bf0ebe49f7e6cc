"""Displayed: a screen in its cell, and in the end what is left of it."""

import base64
from collections.abc import Callable

from IPython import get_ipython
from IPython.display import display

from nbfinetune.rendering.tables import StaticView
from nbfinetune.widgets.disposal import dispose
from nbfinetune.widgets.output_keeper import OutputKeeper
from nbfinetune.widgets.screen import Screen


class Displayed:
    """Displays a screen in the cell that runs, also in pages that are opened later.

    Parameters
    ----------
    screen : stays in its cell until `end`
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._handle = display(screen, display_id=True)
        self._keeper: OutputKeeper | None = None
        if (shell := get_ipython()) and hasattr(shell, "get_parent"):
            parent = shell.get_parent()
            # After the display: where the page has not got that by now, it went elsewhere.
            self._keeper = OutputKeeper(
                screen,
                cell=parent.get("metadata", {}).get("cellId") or "",
                count=shell.execution_count,
                client=parent.get("header", {}).get("session", ""),
            )

    def end(self, instead: object) -> None:
        """Put something in the place of the screen, and dispose of it."""
        self.give_way(instead, then=lambda: dispose(self._screen))

    def give_way(self, instead: object, then: Callable[[], None] = lambda: None) -> None:
        """Put something in the place of the screen; `then` is called when a page has it."""
        if self._is_kept():
            data, metadata = _bundle(instead)
            self._handle.update(data, raw=True, metadata=metadata)
            self._keeper.end(then, instead=data)
        else:
            self._handle.update(instead)
            then()

    def stay(self, report: object) -> None:
        """Display a report of it under the screen, for the time without a kernel."""
        below = StaticView(report)
        if self._is_kept():
            data, metadata = _bundle(below)
            display(data, raw=True, metadata=metadata)
            self._keeper.end(lambda: None, below=data)
        else:
            display(below)

    def _is_kept(self) -> bool:
        """Whether a page keeps the screen; else nothing keeps it from now on."""
        if self._keeper is None or self._keeper.comm is None:
            return False
        if not self._keeper.known:
            self._keeper.close()
        return self._keeper.known


def _bundle(shown: object) -> tuple[dict, dict]:
    """What IPython displays of an object, as a notebook stores it."""
    data, metadata = get_ipython().display_formatter.format(shown)
    encoded = {
        kind: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for kind, value in data.items()
    }
    return encoded, metadata
