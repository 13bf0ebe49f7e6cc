"""A method of a learner shows what it does: as lines of text where no screens are put in."""

import subprocess
import sys

import pytest

from nbfinetune import EpochTable, Learner
from nbfinetune.history import screens


@pytest.fixture
def learn(loaders, mlp) -> Learner:
    return Learner(loaders, mlp, groups=[[part] for part in mlp], device="cpu")


def test_a_script_gets_the_epoch_table_line_by_line(learn: Learner, capsys) -> None:
    learn.fine_tune(2, freeze_epochs=1, keep_best=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["epoch", "train_loss", "valid_loss", "time"]
    assert [line[0] for line in lines[1:6]] == ["head,", "0", "all", "0", "1"]
    row = learn.recorder.run.rows[-1]
    assert lines[5][:2] == ["1", f"{row['train_loss']:.6f}"]


@pytest.mark.parametrize("how", ["show", "quiet", "table"])
def test_a_run_can_be_silent(how: str, learn: Learner, capsys) -> None:
    if how == "show":
        learn.fit(1, show=False)
        learn.lr_find(num_it=6, show=False)
    elif how == "quiet":
        with learn.quiet():
            learn.fit(1)
            learn.lr_find(num_it=6)
    else:  # one table, not two
        learn.fit(1, cbs=[EpochTable(notebook=False)])
        assert capsys.readouterr().out.count("train_loss") == 1
    assert capsys.readouterr().out == ""


def test_quiet_ends_with_its_block_also_after_an_error(learn: Learner, capsys) -> None:
    with pytest.raises(ZeroDivisionError), learn.quiet():
        raise ZeroDivisionError
    learn.fit(1)
    assert "train_loss" in capsys.readouterr().out


def test_a_search_says_what_the_next_run_uses(learn: Learner, capsys) -> None:
    learn.lr_find(num_it=6)
    line = "next run: 1.0e-3 (no suggestion; the default, of fine_tune 2.0e-3)\n"
    assert capsys.readouterr().out == line


def test_the_epoch_that_was_kept_is_told_if_it_is_not_the_last(learn: Learner, capsys) -> None:
    result = learn.fine_tune(3, 5.0, freeze_epochs=3)
    assert result.kept is not result.rows[-1]
    assert repr(result).startswith(result.summary)
    assert capsys.readouterr().out.endswith(f"\n{result!r}\n")


def test_screens_that_are_put_in_take_the_place_of_the_lines(learn, capsys, monkeypatch) -> None:
    seen = []

    class Screens:
        def fit(self, learn, run):
            seen.append("fit")
            return run(cbs=[])

        def search(self, learn, run, options):
            seen.append(options["num_it"])
            return run(cbs=[])

    monkeypatch.setattr(screens, "make_screens", Screens)
    learn.fine_tune(1, freeze_epochs=1)
    learn.lr_find(num_it=7)
    with learn.quiet():
        learn.fit(1)
    assert seen == ["fit", 7]  # one screen for all stages
    assert capsys.readouterr().out == ""


def test_bad_arguments_are_refused_before_anything_is_shown(learn: Learner, capsys) -> None:
    with pytest.raises(ValueError, match="n_epoch is 'x'"):
        learn.fit("x")
    with pytest.raises(TypeError, match="unexpected keyword argument 'show_plot'"):
        learn.lr_find(show_plot=False)
    assert capsys.readouterr().out == ""


def test_a_script_imports_no_notebook() -> None:
    code = """
import sys
import torch
from nbfinetune import Learner
batches = [(torch.randn(8, 4), torch.arange(8) % 2)] * 3
data = type("Loaders", (), {"train": batches, "valid": batches, "vocab": None})()
Learner(data, torch.nn.Linear(4, 2)).fit(1)
print([name for name in ("IPython", "ipywidgets", "bqplot") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "valid_loss" in done.stdout
