"""The magics of interpretation, in a terminal and as a kernel runs them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from nbfinetune import Callback, ImageDataLoaders, Learner, vision_learner
from nbfinetune.live.cell_errors import Interrupted
from nbfinetune.widgets.confused_pairs import ConfusedPairs
from nbfinetune.widgets.confusion_matrix import ConfusionMatrix
from nbfinetune.widgets.item_gallery import ItemGallery


@pytest.fixture
def ip(shell, dls, tiny_net) -> Iterator[InteractiveShell]:
    """A shell with the magics, and a learner of pictures called `learn`."""
    shell.reset()
    shell.run_line_magic("load_ext", "nbfinetune")
    shell.push({"learn": vision_learner(dls, tiny_net, device="cpu")})
    shell.magics_manager.registry["InterpretationMagics"].corrections.__init__()  # no marks yet
    yield shell
    shell.run_line_magic("unload_ext", "nbfinetune")


@pytest.fixture
def learn(ip) -> Learner:
    return ip.user_ns["learn"]


def test_the_matrix_is_text_in_a_terminal_and_is_kept(ip, capsys) -> None:
    cm = ip.run_line_magic("confusion_matrix", "--ds train --normalize true --order freq")
    assert isinstance(cm, ConfusionMatrix)
    out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"12 items of 3 classes, accuracy 0.\d{4}, \d+ wrong", out[0])
    assert ip.run_line_magic("confusion_matrix", ";") is None


def test_one_pass_serves_all_magics(ip, learn: Learner) -> None:
    batches = []

    class Count(Callback):
        def after_batch(self, learn: Learner) -> None:
            batches.append(1)

    original = type(learn).prepare

    def counted(self, x, *, training):
        batches.append(1)
        return original(self, x, training=training)

    type(learn).prepare = counted
    try:
        for magic in ("confusion_matrix", "most_confused", "top_losses"):
            ip.run_line_magic(magic, "")
    finally:
        type(learn).prepare = original
    assert len(batches) == len(learn.dls.valid)


def test_an_earlier_matrix_is_compared(ip, learn: Learner, capsys) -> None:
    ip.user_ns["before"] = ip.run_line_magic("confusion_matrix", "")
    learn.fit(3, 1e-2)
    capsys.readouterr()
    ip.run_line_magic("confusion_matrix", "--vs before")
    assert re.search(r"since before: \d+ fixed, \d+ broken, \d+ still", capsys.readouterr().out)
    with pytest.raises(UsageError, match="--vs nope: give a variable that holds an earlier matrix"):
        ip.run_line_magic("confusion_matrix", "--vs nope")
    with pytest.raises(UsageError, match="compare predictions on the same items"):
        ip.run_line_magic("confusion_matrix", "--ds train --vs before")


@pytest.mark.parametrize(
    ("magic", "line", "message"),
    [
        ("confusion_matrix", "--top 0", "--top 0: give the number of classes to show"),
        (
            "confusion_matrix",
            "--figsize 1,2,3",
            "--figsize '1,2,3': give one or two lengths in inc",
        ),
        ("confusion_matrix", "--figsize 0", "--figsize '0': give one or two lengths in inches"),
        ("confusion_matrix", "--figsize nan", "--figsize 'nan': give one or two lengths in inches"),
        ("confusion_matrix", "--dpi 60", "--dpi 60 is for --figsize; give both"),
        ("confusion_matrix", "--figsize 9 --dpi 0", "--dpi 0: give px of an inch, from 1 up"),
        ("most_confused", "0", "min_val is 0; it must be a whole number from 1 up"),
        ("top_losses", "0", "0 pictures; give a number from 1 up"),
        ("clean", "--apply --undo", "--apply and --undo; give one of them"),
        ("clean", "--apply", "no picture is marked"),
        ("clean", "--undo", "there is nothing to undo"),
        ("label_issues", "--ds other", "invalid choice: 'other'"),
    ],
)
def test_bad_options_get_one_line(ip, magic: str, line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ip.run_line_magic(magic, line)


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("", 0),  # what the window has room for
        ("--figsize 10,10", 960),  # inches of CSS
        ("--figsize 10", 960),
        ("--figsize (8, 10)", 768),
        ("--figsize 12,12 --dpi 60", 720),
        ("--figsize 1e-9", 100),
    ],
)
def test_figsize_is_the_side_of_the_whole_matrix(ip, line: str, size: int) -> None:
    assert ip.run_line_magic("confusion_matrix", line).canvas.size == size


def test_no_pair_as_frequent_as_asked_for_names_the_most_frequent(ip, capsys) -> None:
    pairs = ip.run_line_magic("most_confused", "50 --ds train")
    most = pairs.interp.most_confused()[0][2]
    said = f"no pair is confused 50 times; .* confused {most} times: %most_confused {most}"
    assert re.fullmatch(said, pairs.status.text)
    assert pairs.status.text in capsys.readouterr().out


def test_predictions_that_are_refused_are_one_line_and_errors_of_others_are_not(
    ip, learn: Learner
) -> None:
    with torch.no_grad():
        next(learn.model.parameters()).fill_(float("nan"))
    with pytest.raises(UsageError, match="the model gives NaN or infinite numbers"):
        ip.run_line_magic("confusion_matrix", "")

    def broken(x, *, training):
        raise ValueError("of the user's own")

    learn.prepare = broken
    with pytest.raises(ValueError, match="of the user's own"):
        ip.run_line_magic("confusion_matrix", "--ds train")


def test_pairs_and_losses_are_listed(ip, capsys) -> None:
    pairs = ip.run_line_magic("most_confused", "1 --ds train")
    assert isinstance(pairs, ConfusedPairs)
    assert pairs.pairs == pairs.interp.most_confused()
    losses = ip.run_line_magic("top_losses", "3")
    assert isinstance(losses, ItemGallery)
    assert losses.items == losses.interp.top_losses(3)[1].tolist()
    assert "the 3 largest losses of 6 items" in capsys.readouterr().out
    issues = ip.run_line_magic("label_issues", "2")
    assert len(issues.interp) == 18
    assert len(issues.items) == 2
    all_of_them = ip.run_line_magic("label_issues", "18")
    assert sorted(all_of_them.items) == list(range(18))  # also those that are not worth a look
    assert all_of_them.items[:2] == issues.items
    assert "Here: the first 18 of the ranking" in capsys.readouterr().out


def test_marks_are_listed_written_and_read_back(ip, learn, tmp_path, photos: Path, capsys) -> None:
    cm = ip.run_line_magic("confusion_matrix", "--ds train")
    message = {"event": "mark", "items": [0], "action": "remove", "label": ""}
    cm.grid._handle_custom_msg(message, [])
    file = cm.interp.path(0)
    again = ip.run_line_magic("top_losses", "--ds train")  # another panel, the same marks
    assert again.grid.n_marks == 1
    assert file.name in repr(ip.run_line_magic("clean", ""))
    capsys.readouterr()
    ip.run_line_magic("clean", f"--apply {tmp_path}/c.csv")
    out = capsys.readouterr().out
    assert "1 correction written to c.csv (no picture is marked now)\n" in out
    assert f"ImageDataLoaders.from_...(corrections='{tmp_path}/c.csv') uses the file" in out
    assert (again.grid.n_marks, again.grid.marks) == (0, [""] * 12)
    assert again.grid.said == "1 correction written to c.csv (no picture is marked now)"
    dls = ImageDataLoaders.from_folder(photos, size=16, corrections=tmp_path / "c.csv")
    assert len(dls.train.dataset) + len(dls.valid.dataset) == 17
    ip.run_line_magic("clean", "--undo")
    assert not (tmp_path / "c.csv").exists()
    assert file.exists()
    assert again.grid.n_marks == 1
    assert again.grid.said.endswith("it is a mark again (1 marked; %clean lists them)")
    assert "(1 marked; %clean lists them)" in capsys.readouterr().out


def test_an_interrupt_while_predicting_is_one_line(ip, learn: Learner) -> None:
    def interrupted(x, *, training):
        raise KeyboardInterrupt

    learn.prepare = interrupted
    with pytest.raises(Interrupted, match="interrupted; nothing was changed"):
        ip.run_line_magic("confusion_matrix", "")
    del learn.prepare
    assert ip.run_line_magic("confusion_matrix", "").interp.n_planned == 6


def test_marks_outlive_the_learner_and_the_extension(ip, learn: Learner) -> None:
    ip.run_line_magic("top_losses", "--ds train").grid.mark_item(0, "remove")
    del ip.user_ns["learn"]
    ip.run_line_magic("unload_ext", "nbfinetune")
    ip.run_line_magic("load_ext", "nbfinetune")
    assert "1 picture is marked" in repr(ip.run_line_magic("clean", ""))


def test_a_file_that_cannot_be_written_is_one_line(ip, tmp_path: Path) -> None:
    ip.run_line_magic("top_losses", "--ds train").grid.mark_item(0, "remove")
    with pytest.raises(UsageError, match="No such file or directory"):
        ip.run_line_magic("clean", f"--apply {tmp_path}/nowhere/c.csv")
    ip.run_line_magic("clean", f'--apply "{tmp_path}/two words.csv"')
    assert (tmp_path / "two words.csv").exists()


def test_a_cell_that_runs_again_closes_its_old_screens_but_not_its_own(ip, monkeypatch) -> None:
    """Two magics in one cell are two screens; those of its last run are gone from the page."""
    monkeypatch.setattr("nbfinetune.live.training_runs.kernel_runs", lambda: True)
    monkeypatch.setattr("nbfinetune.live.screens.wait_until_rendered", lambda status, pump: True)
    monkeypatch.setattr(ip, "get_parent", lambda: {"metadata": {"cellId": "a"}}, raising=False)
    runs = []
    for count in (1, 2):
        ip.execution_count = count
        runs.append([ip.run_line_magic(m, "") for m in ("confusion_matrix", "top_losses")])
    first, second = runs
    assert [screen.comm for screen in first] == [None, None]
    assert None not in [screen.comm for screen in second]


@pytest.mark.parametrize(
    "name", ["caf\udce9", "two\nlines", "cost $5 to $9", "n" * 3000, "\u202e'"]
)
def test_classes_of_any_name_are_shown_by_every_magic(
    ip, learn: Learner, name: str, capsys
) -> None:
    learn.vocab[0] = name
    for magic in ("confusion_matrix", "most_confused", "top_losses", "label_issues"):
        ip.run_line_magic(magic, "--ds train")
    gallery = ip.run_line_magic("top_losses", "--ds train")
    item = next(i for i in gallery.items if gallery.interp.targets[i] == 0)
    gallery.grid.mark_item(item, "remove")
    text = capsys.readouterr().out + repr(ip.run_line_magic("clean", ""))
    text.encode()
    assert "two\n" not in text
