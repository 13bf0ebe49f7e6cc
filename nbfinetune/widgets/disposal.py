"""Disposal: a widget and all that it holds, so that neither side keeps them."""

from collections.abc import Iterator
from dataclasses import replace

import ipywidgets


def dispose(widget: ipywidgets.Widget) -> None:
    """Close a widget and those it holds, so that neither side keeps them.

    IPython may keep the widget itself for the whole session, as it keeps the newest output even
    after `%reset out`. So from now on its predictions show pictures only as long as a learner, say,
    keeps these.
    """
    for each in list(_all_of(widget)):
        ipywidgets.Widget.close(each)  # not a screen's own, which is this
        vars(each).pop("_repr_mimebundle_", None)  # where ipywidgets puts None
        interp = vars(each).get("interp")
        if interp is not None and interp.dataset is not None:
            each.interp = replace(interp, dataset=interp.dataset.kept_by_others())


def is_open(widget: ipywidgets.Widget) -> bool:
    """Whether neither the widget nor one that it holds was closed, by anyone."""
    return all(each.comm is not None for each in _all_of(widget))


def reopen(widget: ipywidgets.Widget) -> None:
    """Open a widget that was closed, and those it holds."""
    for each in list(_all_of(widget)):
        _open(each)


def _open(widget: ipywidgets.Widget) -> None:
    if widget.comm is None:
        for each in _widgets_in([getattr(widget, name) for name in widget.keys]):
            _open(each)  # its state names them
        widget.open()


def _all_of(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """A widget and all that it holds, each once."""
    known, held = set(), [widget]
    while held:
        one = held.pop()
        if id(one) not in known:
            known.add(id(one))
            yield one
            held += _widgets_in([*(getattr(one, name) for name in one.keys), *vars(one).values()])


def _widgets_in(values: list) -> Iterator[ipywidgets.Widget]:
    """Those among some values, or in lists and dictionaries among them."""
    while values:
        value = values.pop()
        if isinstance(value, ipywidgets.Widget):
            yield value
        elif isinstance(value, (list, tuple)):
            values += value
        elif isinstance(value, dict):
            values += value.values()
