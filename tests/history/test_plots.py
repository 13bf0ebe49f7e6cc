"""What the recorder shows of runs that were, whenever it is asked."""

import math

import pytest

from nbfinetune import Learner
from nbfinetune.history.recorder import FitResult, Recorder
from nbfinetune.history.runs import HEAD_STAGE, Run

NAMES = ["epoch", "train_loss", "valid_loss", "accuracy", "time"]


def run(name: str, losses: list[float], n_epoch: int = 1, **more) -> Run:
    """A run with one row at its last step."""
    values = [0, losses[-1], 0.5, 0.75, 61.0]
    row = dict(zip(NAMES, values, strict=True))
    made = Run(name, n_epoch, 4, NAMES, [row], [len(losses)], losses, list(losses), **more)
    made.lrs = [[1e-5, k * 1e-3] for k in range(1, len(losses) + 1)]
    made.moms = [0.9] * len(losses)
    return made


@pytest.fixture
def recorder() -> Recorder:
    """A fit, and a fine_tune of two stages."""
    recorder = Recorder()
    recorder.runs = [
        run("fit", [9.0, 8.0], status="finished"),
        run(f"fine_tune: {HEAD_STAGE}", [4.0, 3.0, 2.0], status="finished"),
        run("fine_tune: all layers", [2.0, 1.0], 3, status="stopped"),
    ]
    recorder.runs[2].kept = recorder.runs[1].rows[0]
    return recorder


def test_the_losses_are_those_of_all_stages_of_the_newest_call(recorder) -> None:
    [ax] = recorder.plot_loss(skip_start=0).figure.axes
    points, _, valid = ax.lines
    assert points.get_ydata().tolist() == [4, 3, 2, 2, 1]
    assert valid.get_xydata().tolist() == [[3, 0.5], [5, 0.5]]
    assert repr(recorder.plot_loss()) == (
        "losses of fine_tune, at the end train_loss 1.0000, valid_loss 0.5000"
    )


def test_the_first_steps_can_be_left_out_but_never_all(recorder) -> None:
    for skip, shown in ((2, [2, 2, 1]), (5, [1]), (100, [1])):
        [ax] = recorder.plot_loss(skip, with_valid=False).figure.axes
        assert len(ax.lines) == 2
        assert list(ax.lines[0].get_ydata()) == shown


def test_the_axis_of_losses_may_be_logarithmic(recorder) -> None:
    [ax] = recorder.plot_loss(0, log=True).figure.axes
    assert ax.get_yscale() == "log"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.5", "1", "2"]
    recorder.runs[-1].losses[0] = -1.0
    with pytest.raises(ValueError, match="log=True needs positive losses, and the lowest is -1"):
        recorder.plot_loss(0, log=True)


def test_the_schedule_is_that_of_the_head_with_the_momentum(recorder) -> None:
    picture = recorder.plot_sched()
    lr, mom = picture.figure.axes
    assert lr.lines[0].get_ydata().tolist() == [1e-3, 2e-3, 3e-3, 1e-3, 2e-3]
    assert mom.lines[0].get_ydata().tolist() == [0.9] * 5
    assert repr(picture) == (
        "lr of fine_tune from 1.0e-3 over 3.0e-3 to 2.0e-3, momentum 0.90 to 0.90"
    )
    assert "<img" in picture._repr_html_()


def test_a_figure_can_be_saved(recorder, tmp_path) -> None:
    for name in ("a.pdf", "a.svg", "a.png"):
        recorder.plot_loss().figure.savefig(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 3_000


def test_nothing_trained_has_no_plot() -> None:
    empty, diverged = Recorder(), Recorder()
    assert repr(empty) == empty._repr_html_() == "nothing was trained yet"
    assert empty.shown().title == "nothing was trained yet"
    diverged.runs = [run("fit", [math.nan])]
    for recorder in (empty, diverged):
        for plot in (recorder.plot_loss, recorder.plot_sched):
            with pytest.raises(
                ValueError, match=r"was done yet; train first: learn.fine_tune\(1\)"
            ):
                plot()


def test_the_table_has_a_row_for_each_call(recorder) -> None:
    table = recorder.shown()
    assert table.title == "2 runs"
    assert table.rows == [
        ("1", "fit", "1", "finished", "accuracy 0.750000", "01:01"),
        ("2", "fine_tune", "1 + 1 of 3", "stopped", "accuracy 0.750000", "02:02"),
    ]


def test_the_table_has_the_verdict_of_a_call_across_all_columns(recorder) -> None:
    last = recorder.runs[-1]
    last.status, last.kept_why = "finished", "kept epoch 0 of <b>: why"
    table = recorder.shown()
    assert table.title == "2 runs"
    assert table.rows[2][0].startswith("run 2: Kept epoch 0 of <b>: why. ")
    assert "run 2: Kept epoch 0 of &lt;b&gt;: why" in table._repr_html_()


def test_a_call_can_be_shown_again_by_its_number(recorder) -> None:
    assert recorder.shown(2).runs == recorder.runs[1:]
    assert repr(recorder.shown(2)) == repr(recorder)
    for number in (0, 3, -1):
        with pytest.raises(ValueError, match=f"no run {number}; this learner has runs 1 to 2"):
            recorder.shown(number)


def test_two_calls_of_one_stage_are_two(recorder) -> None:
    recorder.runs = [recorder.runs[2], *recorder.runs[1:], recorder.runs[2]]
    assert len(recorder.shown().rows) == 3


def test_the_kept_epoch_is_marked_in_picture_and_table(recorder) -> None:
    assert [line.split()[:2] for line in repr(recorder).splitlines()[2:3]] == [["0", "(kept)"]]
    texts = [text.get_text() for text in recorder.shown(2).figure.axes[1].texts]
    assert "kept: epoch 0" in texts


def test_a_result_shows_its_picture_and_its_line(learn: Learner) -> None:
    result = learn.fine_tune(1, freeze_epochs=1)
    assert isinstance(result, FitResult)
    html = result._repr_html_()
    assert "<img" in html
    assert "fine_tune finished after 2 epochs" in html
    assert result.verdict in html
    assert repr(result) == f"{result.summary}\n{result.verdict}"
    assert repr(learn.recorder).endswith(result.verdict)
    assert learn.recorder.newest == list(result.stages)
    assert result.stages[-1].kept is result.kept
    assert learn.recorder.plot_sched().figure.axes
