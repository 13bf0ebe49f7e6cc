"""PlotOptions: the legend of the training plot, whose entries are switches, and its axes."""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class PlotOptions(anywidget.AnyWidget):
    """A row of small controls above a plot.

    Parameters
    ----------
    series : the lines, each a dict of name, colour and look ("dots", "line", "squares", "dashes")

    Attributes
    ----------
    hidden : names of the lines that are switched off
    x_by : "step", "epoch" or "time"
    log : whether the axis of losses is logarithmic
    smoothing : of the training loss, 0 to 0.98
    earlier : whether earlier runs are shown
    n_earlier : how many there are
    """

    _esm = (_HERE / "plot_options.js").read_text("utf-8")
    _css = (_HERE / "plot_options.css").read_text("utf-8")
    series = traitlets.List().tag(sync=True)
    hidden = traitlets.List().tag(sync=True)
    x_by = traitlets.Unicode("step").tag(sync=True)
    log = traitlets.Bool(False).tag(sync=True)
    smoothing = traitlets.Float(0.98).tag(sync=True)
    earlier = traitlets.Bool(False).tag(sync=True)
    n_earlier = traitlets.Int(0).tag(sync=True)
