"""The training screen: buttons make requests, curves and table are drawn from plain values."""

import bqplot
import numpy as np
import pytest

from nbfinetune.history.runs import HEAD_STAGE, Run
from nbfinetune.rendering.tables import Table
from nbfinetune.widgets.training.training_figure import TrainingFigure
from nbfinetune.widgets.training_plot import TrainingPlot

NAMES = ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
PLANNED = [1, 2], [2e-3, 1e-3]


def run(name: str = "fit", losses=(3.0, 2.0, 1.0), rows: int = 1, **more) -> Run:
    """An epoch of three steps of 100 s each, unless told otherwise."""
    row = [dict(zip(NAMES, [k, 2.0, 1.5, 0.5, 9.0], strict=True)) for k in range(rows)]
    made = Run(name, 2, 3, NAMES, row, [3 * (k + 1) for k in range(rows)], **more)
    made.losses, n = list(losses), len(losses)
    made.smooth = [(losses[0] + v) / 2 for v in losses]
    made.lrs = [[1e-3 * (k + 1)] for k in range(n)]
    made.seconds = [100.0 * (k + 1) for k in range(n)]
    return made


@pytest.fixture
def plot() -> TrainingPlot:
    return TrainingPlot(["accuracy"])


@pytest.fixture
def figure() -> TrainingFigure:
    return TrainingFigure(["accuracy"])


def click(plot: TrainingPlot, *names: str) -> None:
    """As the page tells of clicks."""
    for name in names:
        plot.buttons._handle_custom_msg({"request": name}, [])


def ticks(axis: bqplot.Axis) -> dict[float, str]:
    """Where its texts stand; bqplot finds them by the number as JavaScript writes it."""
    assert len(axis.tick_values) == len(axis.tick_labels)
    return dict(zip(axis.tick_values.tolist(), axis.tick_labels.values(), strict=True))


def test_each_button_makes_its_request_each_time(plot: TrainingPlot) -> None:
    asked = []
    plot.observe(lambda change: change["new"] and asked.append(change["new"]), "request")
    click(plot, "pause", "resume", "finish", "finish", "stop", "something else")
    assert asked == ["pause", "resume", "finish", "finish", "stop"]


def test_the_buttons_tell_the_state_that_the_run_has(plot: TrainingPlot) -> None:
    click(plot, "pause")
    assert plot.buttons.state == "running"  # it pauses when the batch is done
    plot.show_paused(True)
    assert (plot.buttons.state, plot.buttons.text) == (
        "paused",
        "paused: nothing runs until Resume",
    )
    assert plot.paused
    plot.show_paused(False)
    assert (plot.buttons.state, plot.buttons.text) == ("running", "")
    click(plot, "finish")
    assert plot.buttons.state == "finishing"
    click(plot, "stop")
    plot.show_paused(False)
    assert (plot.buttons.state, plot.buttons.text) == ("stopping", "stopping after this batch")
    plot.show_ended("stopped")
    assert (plot.buttons.state, plot.buttons.text) == ("ended", "stopped")


def test_the_slider_is_the_scale_and_a_new_stage_begins_with_1(plot: TrainingPlot) -> None:
    plot._slider.set_state({"value": 0.5})
    assert plot.scale == 0.5
    plot.begin()
    assert plot._slider.value == 1.0


def test_the_curves_are_drawn(figure: TrainingFigure) -> None:
    figure.draw([run()], PLANNED)
    assert figure._raw.y.tolist() == [3, 2, 1]
    assert figure._smooth.y.tolist() == [3, 2.5, 2]
    assert (figure._valid.x.tolist(), figure._valid.y.tolist()) == ([3], [1.5])
    assert figure._metrics["accuracy"].y.tolist() == [0.5]
    assert figure._lrs.y.tolist() == pytest.approx([1e-3, 2e-3, 3e-3])
    assert figure._planned.x.tolist() == [4, 5]
    assert figure._x.max == 5  # the whole run, done and to come
    assert ticks(figure._over) == {k: str(k) for k in range(6)}
    assert ticks(figure._rates) == {0.0: "0", 1e-3: "1.0e-3", 2e-3: "2.0e-3", 3e-3: "3.0e-3"}
    assert figure._rates.tick_labels.keys() == {"0", "0.001", "0.002", "0.003"}


def test_the_x_axis_is_of_steps_epochs_or_time(figure: TrainingFigure) -> None:
    figure.draw([run()], PLANNED)
    figure.options.x_by = "epoch"
    assert figure._raw.x.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert figure._planned.x.tolist() == pytest.approx([4 / 3, 5 / 3])
    assert (figure._over.label, ticks(figure._over)) == ("epoch", {0.0: "0", 1.0: "1"})
    figure.options.x_by = "time"
    assert figure._raw.x.tolist() == [100, 200, 300]
    assert figure._planned.x.tolist() == [400, 500]  # at the pace so far
    assert figure._over.label == "minutes"
    assert ticks(figure._over) == {60.0 * k: str(k) for k in (0, 2, 4, 6, 8)}


def test_the_axis_of_losses_is_linear_or_logarithmic(figure: TrainingFigure) -> None:
    figure.draw([run(losses=[10.0, 1.0, 0.1])])
    figure.options.log = True
    assert figure._raw.y.tolist() == pytest.approx([1, 0, -1])
    assert figure._valid.y.tolist() == pytest.approx([np.log10(1.5)])
    shown = ticks(figure._losses)
    assert list(shown.values()) == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]
    assert list(shown) == pytest.approx([np.log10(float(text)) for text in shown.values()])
    assert figure._crosshair.log
    figure.options.log = False
    assert figure._raw.y.tolist() == pytest.approx([10, 1, 0.1])


def test_the_smoothing_is_chosen(figure: TrainingFigure) -> None:
    figure.draw([run()])
    figure.options.smoothing = 0.0
    assert figure._smooth.y.tolist() == [3, 2, 1]
    figure.options.smoothing = 0.5  # (1.5 / 2 + 1) / 0.75, and so on
    assert figure._smooth.y.tolist() == pytest.approx([3, 7 / 3, 11 / 7])


def test_lines_are_switched_off_and_on(figure: TrainingFigure) -> None:
    figure.options.hidden = ["accuracy", "train_loss"]
    seen = {name: mark.visible for name, mark in figure._named.items()}
    assert seen == {"train_loss": False, "smoothed": True, "valid_loss": True, "accuracy": False}
    assert figure._crosshair.hidden == ["accuracy", "train_loss"]
    figure.options.hidden = []
    assert all(mark.visible for mark in figure._named.values())


def test_earlier_runs_are_laid_under_when_asked_for() -> None:
    head, body = run(f"fine_tune: {HEAD_STAGE}"), run("fine_tune: all layers")
    figure = TrainingFigure(["accuracy"], [run(losses=[5.0] * 4), head, body, run(losses=[])])
    assert figure.options.n_earlier == 2  # two stages are one call; the last one did nothing
    figure.draw([run()])
    assert [len(mark.y) for mark in figure._under] == [0, 0]
    figure.options.earlier = True
    assert figure._under[0].y.tolist() == [5] * 4
    assert figure._under[1].x.tolist() == [1, 2, 3, 4, 5, 6]
    assert figure._x.max == 6
    figure.options.earlier = False
    assert [len(mark.y) for mark in figure._under] == [0, 0]


def test_the_crosshair_gets_what_makes_steps_of_x_and_the_epoch_that_is_kept(
    figure: TrainingFigure,
) -> None:
    head, body = run(f"fine_tune: {HEAD_STAGE}"), run("fine_tune: all layers")
    body.kept = head.rows[0]
    figure.draw([head, body])
    assert figure._crosshair.ruler == [[0, 0, 0], [3, 3, 1], [6, 6, 2]]
    assert figure._crosshair.kept == 3
    body.kept = body.rows[0]
    figure.options.x_by = "time"
    assert figure._crosshair.ruler == [[0, 0, 0], [300, 3, 1], [600, 6, 2]]
    assert figure._crosshair.kept == 600
    assert [line["name"] for line in figure._crosshair.lines] == [
        *("train_loss", "smoothed", "valid_loss", "accuracy", "lr")
    ]


def test_names_near_the_right_edge_are_on_the_left_of_their_line(figure: TrainingFigure) -> None:
    figure.draw(
        [run(f"a: {name}", [1.0] * n, 0) for name, n in (("head", 1), ("early", 8), ("late", 1))]
    )
    labels = [mark for mark in figure._marks if isinstance(mark, bqplot.Label)]
    assert [(mark.text, mark.align) for mark in labels] == [(["early"], "start"), (["late"], "end")]


def test_stages_and_what_was_done_by_hand_are_marked_once(figure: TrainingFigure) -> None:
    def labels() -> list[str]:
        return [str(mark.text[0]) for mark in figure._figure.marks if hasattr(mark, "text")]

    head = run("fine_tune: head", events=[(2, "paused")])
    figure.draw([head])
    for _ in range(2):
        figure.draw([head, run("fine_tune: all layers", events=[(3, "stopped")])])
    assert labels() == ["all layers", "paused", "stopped"]


def test_the_table_grows_and_the_newest_epoch_is_spoken(plot: TrainingPlot) -> None:
    plot.rows(Table("", ["epoch", "<loss>"], [["0", "1.5"]]), "epoch 1 of 2: loss 1.5")
    assert "&lt;loss&gt;" in plot._table.value
    assert plot.status.text == "epoch 1 of 2: loss 1.5"
    plot.progress(0.25, "epoch 1 of 2, 25%")
    assert (plot._bar.value, plot._done.value) == (0.25, "epoch 1 of 2, 25%")


def test_of_many_epochs_the_newest_are_shown_and_there_is_room_from_the_start(
    plot: TrainingPlot,
) -> None:
    rows = [[str(k), "1.5"] for k in range(30)]
    plot.rows(Table("", ["epoch", "loss"], rows[:1]), "", n_planned=30)
    assert "min-height:242px" in plot._table.value  # the titles and ten rows
    plot.rows(Table("", ["epoch", "loss"], rows), "", n_planned=30)
    assert "min-height:242px" in plot._table.value
    assert plot._table.value.count("<tr>") == 1 + 10
    assert "21 rows above" in plot._table.value
    assert "<td>29</td>" in plot._table.value
