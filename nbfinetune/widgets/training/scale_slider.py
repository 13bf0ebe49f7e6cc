"""ScaleSlider: a factor chosen on a logarithmic axis.

ipywidgets' FloatLogSlider has no name for screen readers and speaks the exponent.
"""

from pathlib import Path

import anywidget
import traitlets


class ScaleSlider(anywidget.AnyWidget):
    """A native slider, for the mouse and the keyboard.

    Parameters
    ----------
    value : the factor
    min, max : ends of the axis, above 0
    """

    _esm = (Path(__file__).parent / "scale_slider.js").read_text("utf-8")
    _css = """
    .nbft-scale {
      display: flex; align-items: center; gap: 8px; min-height: 28px; white-space: nowrap;
      font: 13px/1.5 var(--nbft-font); color: var(--nbft-ink);
    }
    .nbft-scale input { width: 160px; margin: 0; accent-color: var(--nbft-focus); }
    .nbft-scale input:focus-visible { outline: 3px solid var(--nbft-focus); outline-offset: 2px; }
    .nbft-scale output { min-width: 5ch; font-variant-numeric: tabular-nums; }
    """
    value = traitlets.Float(1.0).tag(sync=True)
    min = traitlets.Float(0.01).tag(sync=True)
    max = traitlets.Float(10.0).tag(sync=True)
