"""Passes of methods, with their progress, where the magics are loaded."""

from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell

from nbfinetune import Callback, Learner, vision_learner
from nbfinetune.live.cell_errors import Interrupted
from nbfinetune.live.progress import Line


@pytest.fixture
def ip(shell: InteractiveShell, monkeypatch) -> Iterator[InteractiveShell]:
    """A shell with the magics, in which each batch is shown."""
    shell.run_line_magic("load_ext", "nbfinetune")
    monkeypatch.setattr("nbfinetune.live.progress._INTERVAL", 0)
    monkeypatch.setattr("nbfinetune.live.screens._PATIENCE", 0)
    yield shell
    shell.run_line_magic("unload_ext", "nbfinetune")


@pytest.fixture
def learn(dls, tiny_net) -> Learner:
    return vision_learner(dls, tiny_net, device="cpu")


def test_a_terminal_has_a_line_that_goes_away(ip, learn, photos, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    loader = learn.dls.test_dl(photos)  # 18 pictures in batches of 5 at most
    assert len(learn.get_preds(dl=loader).preds) == 18
    lines = capsys.readouterr().out.split("\r")
    assert [line for line in lines if "predicting" in line] == [
        f"\x1b[Kpredicting: batch {i} of 4, 00:00 left" for i in (1, 2, 3, 4)
    ]
    assert lines[-1] == "\x1b[K"
    learn.predict(sorted(photos.rglob("*.png")))
    assert "batch 4 of 4" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["show=False", "quiet", "unloaded"])
def test_nothing_is_shown_where_that_is_not_wanted(
    how: str, ip, learn, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    if how == "show=False":
        learn.get_preds(show=False)
    elif how == "quiet":
        with learn.quiet():
            learn.get_preds()
    else:
        ip.run_line_magic("unload_ext", "nbfinetune")
        learn.get_preds()
        ip.run_line_magic("load_ext", "nbfinetune")
    assert capsys.readouterr().out == ""


def test_batches_are_counted_where_their_number_is_not_known(ip, learn, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    batches = list(learn.dls.valid)

    class Stream:
        def __iter__(self) -> Iterator:
            return iter(batches)

    learn.get_preds(dl=Stream())
    assert "\x1b[Kpredicting: batch 1\r" in capsys.readouterr().out


@pytest.fixture
def screens(ip, shown: list, monkeypatch) -> list:
    """What a kernel displays: the screen of a pass, and what takes its place."""
    monkeypatch.setattr("nbfinetune.live.watched.kernel_runs", lambda: True)
    return shown


def test_a_kernel_has_a_screen_while_it_predicts_and_an_empty_line_then(screens, learn) -> None:
    learn.get_preds()
    assert len(screens) == 2
    assert screens[1] == Line("")


def test_the_button_ends_a_pass_and_nothing_is_changed(screens, learn) -> None:
    class Click(Callback):
        def after_batch(self, learn: Learner) -> None:
            if screens:
                stop, _ = screens[0].children[0].children
                stop.click()

    with pytest.raises(RuntimeError, match="stopped before all was predicted; nothing was changed"):
        learn.get_preds("train", cbs=Click())
    assert screens[-1] == Line("")
    assert len(learn.get_preds("train").preds) == len(learn.dls.train.dataset)


def test_an_interrupt_ends_the_cell_in_one_line(screens, learn) -> None:
    class Interrupt(Callback):
        def after_batch(self, learn: Learner) -> None:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="interrupted; nothing was changed"):
        learn.get_preds(cbs=Interrupt())
    assert not learn.control.running


def test_what_a_method_refuses_is_raised_as_in_any_python(screens, learn) -> None:
    with pytest.raises(ValueError, match="ds is 'test'; it must be"):
        learn.get_preds("test")
    assert screens == []


def test_label_issues_have_the_same_screen_as_their_magic(screens, learn) -> None:
    issues = learn.label_issues("train")
    assert len(issues.interp) == len(learn.dls.train.dataset)
    assert screens[-1] == Line("")
