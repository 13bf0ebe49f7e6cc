"""Disposal: a widget and all that it holds, so that neither side keeps them."""

import ipywidgets


def dispose(widget: ipywidgets.Widget) -> None:
    """Close a widget and those it holds, so that neither side keeps them."""
    if widget.comm is None:
        return
    held = [*(getattr(widget, name) for name in widget.keys), *vars(widget).values()]
    widget.close()
    while held:
        value = held.pop()
        if isinstance(value, ipywidgets.Widget):
            dispose(value)
        elif isinstance(value, (list, tuple)):
            held += value
        elif isinstance(value, dict):
            held += value.values()
