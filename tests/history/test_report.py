"""The curves of runs, and what stays of a screen: a picture, a table, what was done by hand."""

import math

import numpy as np
import pytest

from nbfinetune.history.report import (
    TrainingReport,
    curves_of,
    epoch_table,
    metric_range,
    training_figure,
)
from nbfinetune.history.runs import Run
from nbfinetune.rendering.axes import loss_range

NAMES = ["epoch", "train_loss", "valid_loss", "accuracy", "time"]


def row(epoch: int, valid_loss: float) -> dict[str, float]:
    return dict(zip(NAMES, [epoch, 1.5, valid_loss, 0.25, 61.0], strict=True))


@pytest.fixture
def runs() -> list[Run]:
    """Two stages: one of 2 epochs of 2 steps, one stopped after 3 of 4 steps."""
    first = Run("fine_tune: head", 2, 2, NAMES, [row(0, 1.0), row(1, 0.8)], [2, 4])
    first.losses, first.smooth = [4.0, 3.0, 2.0, 1.0], [4.0, 3.5, 3.0, 2.5]
    first.lrs = [[1e-5, k * 1e-3] for k in (1, 2, 3, 4)]
    second = Run("fine_tune: <all>", 2, 2, NAMES, [row(0, 0.7)], [2], status="stopped")
    second.losses, second.smooth, second.lrs = [1.0, 0.9, 0.8], [1.0, 0.95, 0.9], [[1e-4]] * 3
    second.events = [(1, "paused"), (3, "stopped")]
    return [first, second]


def test_the_stages_follow_each_other_over_one_axis_of_steps(runs) -> None:
    curves = curves_of(runs)
    assert curves.losses[0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert curves.losses[1].tolist() == [4, 3, 2, 1, 1, 0.9, 0.8]
    assert curves.smooth[1][-1] == 0.9
    assert [list(v) for v in curves.valid] == [[2, 4, 6], [1.0, 0.8, 0.7]]
    assert [list(v) for v in curves.metrics["accuracy"]] == [[2, 4, 6], [0.25] * 3]
    assert curves.lrs[1].tolist() == [1e-3, 2e-3, 3e-3, 4e-3, 1e-4, 1e-4, 1e-4]  # of the head
    assert curves.borders == [(0, "head"), (4, "<all>")]
    assert curves.events == [(5, "paused"), (7, "stopped")]
    assert curves.planned == ([], [])


def test_the_rates_to_come_follow_the_last_step(runs) -> None:
    assert curves_of(runs, ([1, 3], [2e-3, 1e-3])).planned == ([8, 10], [2e-3, 1e-3])


def test_losses_that_are_not_finite_are_left_out(runs) -> None:
    runs[1].rows[0]["valid_loss"] = math.inf
    runs[1].losses[0] = math.nan
    curves = curves_of(runs)
    assert list(curves.valid[0]) == [2, 4]
    assert 5 not in curves.losses[0]
    for ax in training_figure(curves).axes:
        assert all(math.isfinite(y) for line in ax.lines for y in line.get_ydata())


def test_the_axis_of_metrics_is_as_wide_as_they_are(runs) -> None:
    assert metric_range(curves_of(runs)) == (0, 1)
    runs[0].rows[0]["accuracy"] = 37.5
    assert metric_range(curves_of(runs)) == (0, 37.5)
    assert metric_range(curves_of([])) == (0, 1)


def test_the_table_has_a_line_for_each_stage(runs) -> None:
    rows = epoch_table(runs).rows
    assert rows[0] == ["head, 2 epochs"]
    assert rows[1] == ["0", "1.500000", "1.000000", "0.250000", "01:01"]
    assert [r[0] for r in rows] == ["head, 2 epochs", "0", "1", "<all>, 2 epochs", "0"]


def test_the_report_says_what_was_done_by_hand_and_how_it_ended(runs) -> None:
    lines = repr(TrainingReport(runs, "stopped in epoch 2")).splitlines()
    assert lines[0].split() == NAMES
    assert lines[-2:] == [
        "by hand: after step 5: paused; after step 7: stopped",
        "stopped in epoch 2",
    ]


def test_the_report_says_that_features_were_kept(runs) -> None:
    runs[0].body_epochs = 1
    text = "the frozen body runs in the first epoch only, its features are kept"
    assert text in repr(TrainingReport(runs)).splitlines()
    runs[0].body_epochs = 0
    text = "<div>the features of the frozen body are known from before</div>"
    assert text in TrainingReport(runs)._repr_html_()


def test_the_verdict_is_the_last_line_and_no_html(runs) -> None:
    """Names of classes are the user's."""
    runs[1].status, runs[1].weakest = "finished", ["<i>cat</i> 3 of 9\nwrong"]
    lines = repr(TrainingReport(runs, "finished")).splitlines()
    assert lines[-2] == "finished"
    assert lines[-1] == "<i>cat</i> 3 of 9\\nwrong"
    html = TrainingReport(runs, "finished")._repr_html_()
    assert "&lt;i&gt;cat&lt;/i&gt; 3 of 9" in html
    assert "<i>" not in html


def test_the_picture_has_every_point_and_says_the_last_values(runs) -> None:
    html = TrainingReport(runs)._repr_html_()
    assert "<all>" not in html
    assert 'alt="training curves over 7 steps: train_loss 0.9000, valid_loss 0.7000, ' in html
    assert html.count("data:image/png;base64,") == 1
    top, below, metrics = training_figure(curves_of(runs)).axes
    points, train, valid, *borders = top.lines
    assert points.get_xydata().tolist() == [
        *([1, 4], [2, 3], [3, 2], [4, 1]),
        *([5, 1], [6, 0.9], [7, 0.8]),
    ]
    assert valid.get_xydata().tolist() == [[2, 1.0], [4, 0.8], [6, 0.7]]
    assert train.get_ydata()[-1] == 0.9
    assert [line.get_xdata()[0] for line in borders[1:]] == [4, 5, 7]
    assert metrics.lines[0].get_ydata().tolist() == [0.25] * 3
    assert below.lines[0].get_ydata()[:4].tolist() == [1e-3, 2e-3, 3e-3, 4e-3]
    assert {text.get_text() for text in below.texts} == {"head", "<all>", "paused", "stopped"}
    assert [text.get_text() for text in top.get_legend().get_texts()] == [
        *("train_loss", "valid_loss", "accuracy"),
    ]


def test_numbers_stand_at_their_places_in_steps_of_one_two_or_five(runs) -> None:
    top, below, metrics = training_figure(curves_of(runs)).axes
    for axis in (top.yaxis, below.xaxis, metrics.yaxis):
        texts = [label.get_text() for label in axis.get_ticklabels()]
        assert [float(text) for text in texts] == pytest.approx(list(axis.get_ticklocs()))
        step = np.diff(axis.get_ticklocs())
        assert step == pytest.approx(step[0])
        assert f"{step[0]:.0e}"[0] in "125"
    assert [label.get_text() for label in below.yaxis.get_ticklabels()] == ["0", "2e-3", "4e-3"]


def test_the_start_of_the_training_is_seen_however_low_it_ends() -> None:
    run = Run("fit", 1, 100, NAMES)
    run.losses = run.smooth = [4.0, *[0.1] * 99]
    run.lrs = [[1e-3]] * 100
    assert training_figure(curves_of([run])).axes[0].get_ylim()[1] > 4


def test_nothing_yet_has_no_picture() -> None:
    assert "<img" not in TrainingReport([Run("fit", 1, 2, NAMES)])._repr_html_()


@pytest.mark.parametrize(
    ("losses", "bottom"), [([0.1, 5.0, 9.0], 0.0), ([2.0, 3.0, 4.0], 1.9), ([-2.0, 1.0], -2.15)]
)
def test_the_axis_of_positive_losses_does_not_go_below_zero(losses, bottom: float) -> None:
    assert loss_range([losses])[0] == pytest.approx(bottom)
