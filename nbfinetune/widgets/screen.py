"""Screen: a live screen, which is told in words where widgets are not shown."""

from functools import cache

import ipywidgets

from nbfinetune.widgets.disposal import dispose, reopen


class Screen(ipywidgets.VBox):
    """Parts below each other; as text it is `words`. Displayed once closed, it opens again.

    Attributes
    ----------
    words : what the screen shows, for terminals, saved notebooks and pages without widgets
    """

    words = ""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        kept = _kept_open()
        if kept.comm is None:  # closed by `Widget.close_all`
            kept.open()

    def __repr__(self) -> str:
        return self.words or f"<{type(self).__name__}>"

    def close(self) -> None:
        """Close it and all that it holds."""
        dispose(self)

    def _repr_mimebundle_(self, **kwargs: object) -> dict:
        if self.comm is None:
            reopen(self)
        # ipywidgets cuts the text after 110 characters.
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": repr(self)}


@cache
def _kept_open() -> ipywidgets.Widget:
    """A widget without a view that stays open, so that no event of a later screen is lost.

    JupyterLab has widget events handled in a subshell, a thread of the kernel, which it ends with
    the last widget. A widget that is opened then may get the number of the thread that ends, as its
    count of widgets and the thread's end are apart (4.6); ipykernel drops what is sent to that.
    """
    return ipywidgets.Layout()
