import re
import signal

import pytest
from IPython.core.error import UsageError
from runs_of_workers import Seen, Slow, new_learner

from nbfinetune import ImageDataLoaders, vision_learner


@pytest.fixture
def cell(shell, local_engines, monkeypatch, tmp_path):
    """A shell with a learner of photos."""
    monkeypatch.setenv("NBFINETUNE_RUNS", str(tmp_path))
    local_engines(2)
    shell.run_line_magic("load_ext", "nbfinetune")
    yield shell
    shell.user_ns.pop("learn", None)
    shell.run_line_magic("unload_ext", "nbfinetune")


def of_photos(photos):
    dls = ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=32, bs=5)
    return vision_learner(dls, "resnet18", weights=None, train_bn=False, device="cpu")


def test_training_magics_take_workers_and_show_what_they_do(cell, capsys) -> None:
    cell.user_ns["learn"] = learn = new_learner()
    result = cell.run_line_magic("fit_one_cycle", "2 1e-2 --workers 2 --no-widgets")
    assert result.stages == (learn.recorder.run,)
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[:3]] == ["epoch", "0", "1"]
    found = cell.run_line_magic("lr_find", "--num-it 20 --verify 0 --workers 2 --no-widgets")
    assert learn.last_search is found
    assert "next run: " in capsys.readouterr().out


def test_the_magics_of_mistakes_take_workers(cell, photos, capsys) -> None:
    cell.user_ns["learn"] = learn = of_photos(photos)
    matrix = cell.run_line_magic("confusion_matrix", "--workers 2 --no-widgets")
    assert len(matrix.interp) == len(learn.dls.valid.dataset)
    losses = cell.run_line_magic("top_losses", "3 --ds train --workers 2 --no-widgets")
    assert losses is not None
    issues = cell.run_line_magic("label_issues", "--workers 2 --no-widgets")
    assert issues is not None


def test_a_run_in_the_background_is_stopped_by_a_magic(cell, capsys) -> None:
    cell.user_ns["learn"] = learn = new_learner()
    cell.run_line_magic("fit_one_cycle", "2000 1e-3 --workers 2 --bg --no-widgets")
    cell.run_line_magic("stop", "")
    cell.run_line_magic("fit_one_cycle", "1 1e-3 --no-widgets")  # waits for it
    assert [run.status for run in learn.recorder.runs] == ["stopped", "finished"]


def test_bad_numbers_of_workers_are_refused_in_one_line(cell) -> None:
    cell.user_ns["learn"] = new_learner()
    with pytest.raises(UsageError, match="workers is 0; it must be a whole number from 1 up"):
        cell.run_line_magic("fit_one_cycle", "1 1e-3 --workers 0")
    with pytest.raises(UsageError, match="no workers do a fit for a kernel that is gone"):
        cell.run_line_magic("attach", "")
    with pytest.raises(UsageError, match="no profile 'nowhere'"):
        cell.run_line_magic("fit_one_cycle", "1 1e-3 --cluster nowhere")


def test_an_interrupt_ends_the_cell_with_one_line(cell, capsys) -> None:
    cell.user_ns["learn"] = learn = new_learner()
    seen = Seen(8, lambda learn: signal.raise_signal(signal.SIGINT))
    learn.cbs = [Slow(), seen]
    with pytest.raises(KeyboardInterrupt) as found:
        cell.run_line_magic("fit_one_cycle", "9 1e-3 --workers 2 --no-widgets")
    [line] = found.value._render_traceback_()
    assert re.fullmatch(r"interrupted in epoch \d of 9 after \d+ steps; the weights are .*", line)
