"""LRHandle: a marker over a plot with a logarithmic axis, for the mouse and the keyboard.

bqplot's own dragging does not work in JupyterLab 4 (github.com/bqplot/bqplot/issues/1520).
"""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class LRHandle(anywidget.AnyWidget):
    """A vertical line that is dragged along the axis, or moved with arrow, page, Home, End keys.

    Its box must lie in one of class `nbft-over` with the plot.

    Parameters
    ----------
    value : the learning rate
    min, max : ends of the axis
    margin : px between the box and the axes, as `Figure.fig_margin`
    shown : whether it is visible
    """

    _esm = _HERE / "lr_handle.js"
    _css = _HERE / "lr_handle.css"
    value = traitlets.Float(1e-3).tag(sync=True)
    min = traitlets.Float(1e-7).tag(sync=True)
    max = traitlets.Float(10.0).tag(sync=True)
    margin = traitlets.Dict().tag(sync=True)
    shown = traitlets.Bool(False).tag(sync=True)

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.add_class("nbft-lr-layer")

    @traitlets.validate("value")
    def _within_the_axis(self, proposal: traitlets.Bunch) -> float:
        return min(max(proposal["value"], self.min), self.max)
