"""Screen: a live screen, which is told in words where widgets are not shown."""

import ipywidgets

from nbfinetune.widgets.disposal import dispose, reopen


class Screen(ipywidgets.VBox):
    """Parts below each other; as text it is `words`. Displayed once closed, it opens again.

    Attributes
    ----------
    words : what the screen shows, for terminals, saved notebooks and pages without widgets
    """

    words = ""

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
