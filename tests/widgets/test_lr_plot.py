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
    assert plot._handle.value is None


def test_a_loss_that_blows_up_does_not_flatten_the_curve() -> None:
    plot = LRPlot(1e-7, 10.0)
    plot.draw([1e-3, 1e-2, 1e-1, 1.0], [2.0, 1.0, 2.0, 1e9], [2.0, 1.5, 1.6, 1e8])
    assert plot._y.max < 10
    assert plot._raw.y.tolist() == [2.0, 1.0, 2.0]
    assert plot._y.max < plot._line.y.max() < 100  # it leaves the plot upwards, to no end


def test_the_axis_of_losses_has_round_ticks_as_they_are_written() -> None:
    plot = LRPlot(1e-7, 10.0)
    plot.draw([1e-3, 1e-2, 1e-1], [2.31, 1.07, 1.9], [2.3, 1.5, 1.6])
    assert plot._losses.tick_values.tolist() == [1.2, 1.4, 1.6, 1.8, 2.0, 2.2]
    assert list(plot._losses.tick_labels.values()) == ["1.2", "1.4", "1.6", "1.8", "2.0", "2.2"]
    assert plot._y.min < 1.07 < 2.31 < plot._y.max


@pytest.mark.parametrize(
    ("ends", "values", "labels"),
    [
        ((1e-3, 10.0), [1e-3, 1e-2, 1e-1, 1.0, 10.0], {"1": "1e0", "10": "1e1"}),
        ((2e-4, 9e-4), [2e-4, 3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 8e-4, 9e-4], None),
    ],
)
def test_the_axis_of_rates_has_powers_of_ten_where_there_are_two(ends, values, labels) -> None:
    axis = LRPlot(*ends)._figure.axes[0]
    assert axis.tick_values.tolist() == pytest.approx(values)
    assert (axis.tick_format, axis.tick_labels) == (".0e", labels)


def test_the_marker_shows_what_was_found_with_names(plot: LRPlot) -> None:
    assert (plot.lr, plot._handle.value) == (1e-3, 1e-3)
    assert plot._handle.usable == [1e-4, 1e-2]
    marks = [(mark["name"], mark["lr"]) for mark in plot._handle.marks]
    assert marks == [("suggested rate (bracket)", 1e-3), ("valley", 1e-4)]
    assert plot.status.text == (
        "next run: 1.0e-3 (suggested rate: bracket, the middle of the usable range). It falls"
    )


def test_what_is_drawn_is_said_in_words_too(plot: LRPlot) -> None:
    assert plot._done.value == (
        "suggested rates 1.0e-3 (bracket, the middle of the usable range), 1.0e-4 (valley); "
        "usable range 1.0e-4 to 1.0e-2, shaded"
    )


def test_the_pointer_gets_rate_loss_and_smoothed_loss_of_each_step_once() -> None:
    plot = LRPlot(1e-7, 10.0)
    plot.draw([1e-3, 1e-2, 1e-1], [2.0, 1.0, float("nan")], [2.0, 1.5, float("nan")])
    assert plot._handle.curve == b""  # not at each draw
    plot.finish({}, None, None, 1e-3, "as before", "short")
    steps = np.frombuffer(plot._handle.curve, "<f4").reshape(-1, 3)
    assert steps.tolist() == pytest.approx(np.array([[-3, 2, 2], [-2, 1, 1.5]]))


def test_the_band_of_several_sweeps_is_in_the_legend(plot: LRPlot) -> None:
    assert [text for _, text, _ in plot._handle.legend] == ["loss", "smoothed", "usable range"]
    plot.finish({}, None, ([1e-4, 1e-3], [1, 2], [2, 3]), 1e-3, "as before", "it falls")
    assert [text for _, text, _ in plot._handle.legend] == ["loss", "smoothed", "sweeps"]
    assert plot._band.y.shape == (2, 2)


def test_moving_the_marker_sets_the_rate_and_says_so(plot: LRPlot) -> None:
    plot._handle.set_state({"value": 0.00323456})  # what the browser sends
    assert plot.lr == 0.00323456
    assert plot.status.text == (
        "next run: 3.2e-3 (suggested rate: bracket, the middle of the usable range; "
        "moved from 1.0e-3). It falls"
    )


def test_a_rate_beyond_the_axis_is_not_changed_by_showing_it() -> None:
    plot = LRPlot(1e-5, 1e-2)
    plot.finish({}, None, None, 0.5, "as before; no suggestion", "flat")
    assert (plot.lr, plot._handle.value) == (0.5, 0.5)
    assert plot.status.text == "next run: 5.0e-1 (as before; no suggestion). Flat"


def test_the_rate_set_in_python_moves_the_marker(plot: LRPlot) -> None:
    plot.lr = 5e-2
    assert plot._handle.value == 5e-2


def test_the_plot_neither_pans_nor_zooms(plot: LRPlot) -> None:
    assert plot._figure.interaction is None
    assert not plot._figure.display_toolbar


def test_a_front_end_that_renders_it_is_known(plot: LRPlot) -> None:
    assert not plot.status.rendered
    plot.status._handle_custom_msg({"event": "rendered"}, [])
    assert plot.status.rendered
