"""Crosshair: the values of a run at one step, over the plots of its curves."""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class Crosshair(anywidget.AnyWidget):
    """A line over all plots in its box, moved by the pointer or with the arrow keys.

    Its box must lie in one of class `nbft-over` with the plots, which share their x axis. What it
    shows it reads from their marks, which the page has anyhow.

    Parameters
    ----------
    x_scale : the scale of the x axis, by its id
    lines : what is told, each a dict of name, mark (its id) and kind: "loss", "metric" or "rate"

    Attributes
    ----------
    ruler : (x, steps, epochs) at the begin, at the end of each stage and now; between them linear
    log : whether marks of losses hold logarithms
    hidden : names of lines that are switched off
    kept : x of the epoch that is kept, None without one
    """

    _esm = "\n".join(
        file.read_text() for file in (_HERE.parent / "plot_overlay.js", _HERE / "crosshair.js")
    )
    _css = (_HERE / "crosshair.css").read_text("utf-8")
    x_scale = traitlets.Unicode().tag(sync=True)
    lines = traitlets.List().tag(sync=True)
    ruler = traitlets.List().tag(sync=True)
    log = traitlets.Bool(False).tag(sync=True)
    hidden = traitlets.List().tag(sync=True)
    kept = traitlets.Float(None, allow_none=True).tag(sync=True)

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.add_class("nbft-layer")
