"""The training screen: buttons make requests, curves and table are drawn from plain values."""

import bqplot
import pytest

from nbfinetune.history.report import TrainingCurves
from nbfinetune.rendering.tables import Table
from nbfinetune.widgets.training_plot import TrainingPlot


def curves(**changed) -> TrainingCurves:
    plain = {
        "losses": ([1, 2, 3], [3.0, 2.0, 1.0]),
        "smooth": ([1, 2, 3], [3.0, 2.5, 2.0]),
        "valid": ([3], [1.5]),
        "metrics": {"accuracy": ([3], [0.5])},
        "lrs": ([1, 2, 3], [1e-3, 2e-3, 3e-3]),
        "planned": ([4, 5], [2e-3, 1e-3]),
        "borders": [(0, "head")],
        "events": [],
    }
    return TrainingCurves(**(plain | changed))


@pytest.fixture
def plot() -> TrainingPlot:
    return TrainingPlot(["accuracy"])


@pytest.fixture
def requests(plot: TrainingPlot) -> list[str]:
    asked = []
    plot.observe(lambda change: change["new"] and asked.append(change["new"]), "request")
    return asked


def test_each_button_makes_its_request(plot: TrainingPlot, requests: list[str]) -> None:
    for button in (plot._pause, plot._pause, plot._finish, plot._finish, plot._stop):
        button.click()
    assert requests == ["pause", "resume", "finish", "finish", "stop"]


def test_the_pause_button_says_what_it_does_next(plot: TrainingPlot) -> None:
    plot._pause.click()
    assert (plot._pause.description, plot.paused) == ("Resume", True)
    plot._pause.click()
    assert (plot._pause.description, plot.paused) == ("Pause", False)


def test_the_slider_is_the_scale(plot: TrainingPlot) -> None:
    plot._slider.set_state({"value": 0.5})
    assert plot.scale == 0.5
    plot.scale = 1.0
    assert plot._slider.value == 1.0


def test_the_curves_are_drawn(plot: TrainingPlot) -> None:
    plot.draw(curves())
    assert plot._raw.y.tolist() == [3, 2, 1]
    assert plot._smooth.y.tolist() == [3, 2.5, 2]
    assert (plot._valid.x.tolist(), plot._valid.y.tolist()) == ([3], [1.5])
    assert plot._metrics["accuracy"].y.tolist() == [0.5]
    assert plot._lrs.y.tolist() == pytest.approx([1e-3, 2e-3, 3e-3])
    assert plot._planned.x.tolist() == [4, 5]
    assert plot._x.max == 5  # the whole run, done and to come
    assert plot._lr_y.max > 3e-3


def test_names_near_the_right_edge_are_on_the_left_of_their_line(plot: TrainingPlot) -> None:
    plot.draw(curves(borders=[(0, "head"), (1, "early"), (5, "late")]))  # of 5 steps
    labels = [mark for mark in plot._marks if isinstance(mark, bqplot.Label)]
    assert [(mark.text, mark.align) for mark in labels] == [(["early"], "start"), (["late"], "end")]


def test_stages_and_what_was_done_by_hand_are_marked_once(plot: TrainingPlot) -> None:
    def labels() -> list[str]:
        return [str(mark.text[0]) for mark in plot._figure.marks if hasattr(mark, "text")]

    plot.draw(curves(events=[(2, "paused")]))
    both = curves(borders=[(0, "head"), (3, "all layers")], events=[(2, "paused"), (3, "stopped")])
    plot.draw(both)
    plot.draw(both)
    assert labels() == ["all layers", "paused", "stopped"]


def test_the_table_grows_and_the_newest_epoch_is_spoken(plot: TrainingPlot) -> None:
    plot.rows(Table("", ["epoch", "<loss>"], [["0", "1.5"]]), "epoch 1 of 2: loss 1.5")
    assert "&lt;loss&gt;" in plot._table.value
    assert plot.status.text == "epoch 1 of 2: loss 1.5"
    plot.progress(0.25, "epoch 1 of 2, 25%")
    assert (plot._bar.value, plot._done.value) == (0.25, "epoch 1 of 2, 25%")
