"""The plot of a search: streamed curve, marker, number field and the line of text agree."""

import numpy as np
import pytest

from nbfinetune.widgets.lr_plot import LRPlot


@pytest.fixture
def plot() -> LRPlot:
    plot = LRPlot(1e-7, 10.0)
    lrs = np.geomspace(1e-7, 10, 50)
    plot.draw(lrs, [2.0] * 40 + [1.0] * 10, [2.0] * 50)
    plot.finish({"bracket": 1e-3, "valley": 1e-4}, (1e-4, 1e-2), None, 1e-3, "bracket", "it falls")
    return plot


def test_the_curve_so_far_is_drawn_from_the_first_step() -> None:
    plot = LRPlot(1e-7, 10.0)
    plot.draw([], [], [])
    plot.draw([1e-7], [2.5], [2.5])
    assert plot._raw.x.tolist() == pytest.approx([1e-7])
    assert plot._line.y.tolist() == [2.5]
    assert plot.lr is None
    assert not plot._handle.shown


def test_a_loss_that_blows_up_does_not_flatten_the_curve() -> None:
    plot = LRPlot(1e-7, 10.0)
    plot.draw([1e-3, 1e-2, 1e-1, 1.0], [2.0, 1.0, 2.0, 1e9], [2.0, 1.5, 1.6, 1e8])
    assert plot._y.max < 10
    assert plot._raw.y.tolist() == [2.0, 1.0, 2.0]
    assert plot._line.y.max() == plot._y.max


def test_the_marker_and_the_field_show_what_was_found(plot: LRPlot) -> None:
    assert (plot.lr, plot._handle.value, plot._field.value) == (1e-3, 1e-3, 1e-3)
    assert plot._handle.shown
    assert plot.status.text == "next run: 1.0e-3 (bracket). it falls"
    labels = [mark.text[0] for mark in plot._figure.marks if hasattr(mark, "text")]
    assert labels == ["bracket 1.0e-3", "valley 1.0e-4"]


def test_dragging_the_marker_sets_the_rate_and_says_so(plot: LRPlot) -> None:
    plot._handle.set_state({"value": 3e-3})  # what the browser sends
    assert (plot.lr, plot._field.value) == (3e-3, 3e-3)
    assert plot.status.text == "next run: 3.0e-3 (bracket; moved from 1.0e-3). it falls"


def test_typing_a_number_sets_the_rate(plot: LRPlot) -> None:
    plot._field.set_state({"value": 0.025})
    assert (plot.lr, plot._handle.value) == (0.025, 0.025)


def test_the_field_shows_three_digits_and_the_rate_keeps_all(plot: LRPlot) -> None:
    plot._handle.set_state({"value": 0.00123456})
    assert plot.lr == 0.00123456
    assert plot._field.value == 0.00123


def test_a_rate_beyond_the_axis_is_not_changed_by_showing_it() -> None:
    plot = LRPlot(1e-5, 1e-2)
    plot.finish({}, None, None, 0.5, "as before; no suggestion", "flat")
    assert plot.lr == 0.5
    assert plot._handle.value == 1e-2
    assert plot.status.text == "next run: 5.0e-1 (as before; no suggestion). flat"


def test_the_rate_set_in_python_moves_the_marker(plot: LRPlot) -> None:
    plot.lr = 5e-2
    assert plot._handle.value == 5e-2


def test_a_front_end_that_renders_it_is_known(plot: LRPlot) -> None:
    assert not plot.status.rendered
    plot.status._handle_custom_msg({"event": "rendered"}, [])
    assert plot.status.rendered
