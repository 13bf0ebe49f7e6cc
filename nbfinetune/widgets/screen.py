"""Screen: a live screen, which is told in words where widgets are not shown."""

import ipywidgets


class Screen(ipywidgets.VBox):
    """Parts below each other; as text it is `words`.

    Attributes
    ----------
    words : what the screen shows, for terminals, saved notebooks and pages without widgets
    """

    words = ""

    def __repr__(self) -> str:
        return self.words or f"<{type(self).__name__}>"

    def _repr_mimebundle_(self, **kwargs: object) -> dict:
        # ipywidgets cuts the text after 110 characters.
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": repr(self)}
