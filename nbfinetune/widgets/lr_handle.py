"""LRHandle: what lies over the plot of a search: the marker, the names, the values at the pointer.

bqplot's own dragging does not work in JupyterLab 4 (github.com/bqplot/bqplot/issues/1520), and it
has neither a crosshair nor names that keep out of each other's way.
"""

from collections.abc import Sequence
from pathlib import Path

import anywidget
import numpy as np
import traitlets

_HERE = Path(__file__).parent


class LRHandle(anywidget.AnyWidget):
    """A marker that is dragged along the axis, moved with the keys, or typed as a number.

    Its box must lie in one of class `nbft-over` with the plot. All that it draws stands where the
    plot has its axes, also after the window became wider.

    Parameters
    ----------
    min, max : ends of the axis of rates
    margin : px between the box and the axes, as `Figure.fig_margin`

    Attributes
    ----------
    value : the learning rate, None before there is one; beyond the axis it is shown at its end
    marks : suggestions, each a dict of name, lr and colour
    usable : ends of the usable range, empty without one
    ends : lowest and highest loss of the axis
    legend : names and colours of what is drawn
    curve : 10's logarithm of the rate, loss and smoothed loss of each step, float32 one by one
    """

    _esm = "\n".join((_HERE / f"{name}.js").read_text() for name in ("plot_overlay", "lr_handle"))
    _css = (_HERE / "lr_handle.css").read_text("utf-8")
    value = traitlets.Float(None, allow_none=True).tag(sync=True)
    min = traitlets.Float(1e-7).tag(sync=True)
    max = traitlets.Float(10.0).tag(sync=True)
    margin = traitlets.Dict().tag(sync=True)
    marks = traitlets.List().tag(sync=True)
    usable = traitlets.List().tag(sync=True)
    ends = traitlets.List([0.0, 1.0]).tag(sync=True)
    legend = traitlets.List().tag(sync=True)
    curve = traitlets.Bytes().tag(sync=True)

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.add_class("nbft-lr-layer")

    def show_curve(
        self, lrs: Sequence[float], losses: Sequence[float], smooth: Sequence[float]
    ) -> None:
        """Give the values that the pointer shows; a step without a finite loss has none."""
        steps = np.array([np.log10(lrs), losses, smooth], "<f4").T
        self.curve = steps[np.isfinite(steps[:, 1])].tobytes()
