from pathlib import Path

import pytest

from nbfinetune import Callback, ImageDataLoaders, Learner, vision_learner
from nbfinetune.history.report import TrainingReport
from nbfinetune.training.resuming import keeper, ledger


@pytest.fixture
def make(photos, small_net, tmp_path, monkeypatch):
    """Makes a learner; each one as if in a new kernel."""
    monkeypatch.setenv("NBFINETUNE_RUNS", str(tmp_path / "runs"))

    def made(folder: Path = photos) -> Learner:
        for module in (keeper, ledger):
            monkeypatch.setattr(module, "SESSION", f"{made.kernels}")
        made.kernels += 1
        dls = ImageDataLoaders.from_folder(folder, valid_pct=0.34, size=32, bs=4)
        return vision_learner(dls, small_net(), device="cpu")

    made.kernels = 0
    return made


def test_fits_and_searches_are_listed_in_their_order(make) -> None:
    learn = make()
    learn.lr_find(num_it=10, verify=0, show=False)
    learn.fit_one_cycle(1, 2e-3, show=False)
    table = learn.ledger()
    assert table.title == "2 runs"
    assert table.columns == (
        *("run", "when", "method", "trained", "rate", "epochs", "status", "result", "time"),
    )
    first, second = (row for row in table.rows if len(row) > 1)
    assert (first[0], *first[2:4]) == ("s1", "lr_find", "head")
    assert (second[0], *second[2:7]) == (
        *("1", "fit_one_cycle", "head"),
        *("1.9e-3", "1", "finished"),
    )
    assert learn.ledger("s1") is learn.last_search
    assert isinstance(learn.ledger(1), TrainingReport)


def test_a_learner_without_runs_says_so(make) -> None:
    learn = make()
    assert learn.ledger().title == "nothing was trained yet"
    with pytest.raises(ValueError, match="there is no run 1; nothing was trained yet"):
        learn.ledger(1)


def test_losses_of_several_runs_are_laid_over_another(make) -> None:
    learn = make()
    learn.fit(2, 1e-3, show=False)
    learn.fit(1, 1e-3, show=False)
    picture = learn.ledger(1, "2")
    [ax] = picture.figure.axes
    assert [len(line.get_xdata()) for line in ax.lines] == [6, 2, 3, 1]
    assert repr(picture).startswith("train_loss of run 1 ")
    learn.lr_find(num_it=10, verify=0, show=False)
    with pytest.raises(ValueError, match="a search cannot be laid over fits"):
        learn.ledger(1, "s1")


class Broken(Callback):
    """Ends the process, as far as its files can tell."""

    def after_epoch(self, learn: Learner) -> None:
        if learn.epoch == 1:
            raise SystemExit


Broken.__module__ = "nbfinetune.tests"


def killed_run(make, monkeypatch) -> Learner:
    """A learner whose fit left its files as one of a killed kernel does."""
    killed = make()
    with monkeypatch.context() as patch:
        patch.setattr(keeper.Keeper, "end", lambda self, *_: self.folder.release())
        with pytest.raises(SystemExit):
            killed.fit(3, 1e-3, cbs=[Broken()], checkpoint=1, show=False)
    return killed


def test_runs_of_other_kernels_are_listed_and_shown(make, monkeypatch) -> None:
    whole = make()
    whole.fit(1, 1e-3, show=False)
    killed = killed_run(make, monkeypatch)
    learn = make()
    table = learn.ledger()
    assert table.title == "nothing was trained yet, and 2 runs of other kernels on these pictures"
    assert [(row[0], row[2], row[6]) for row in table.rows] == [
        ("k1", "fit", "killed"),
        ("k2", "fit", "finished"),
    ]
    assert table.rows[1][4:6] == ("1.0e-3", "1")
    assert learn.ledger("k2").runs[0].losses == whole.recorder.run.losses
    assert learn.ledger("k1").runs[0].losses == killed.recorder.run.losses
    assert len(learn.ledger("k1", "k2").figure.axes[0].lines) == 4


def test_a_run_that_goes_on_is_one_of_this_kernel(make, monkeypatch) -> None:
    killed_run(make, monkeypatch)
    learn = make()
    assert [row[0] for row in learn.ledger().rows] == ["k1"]
    monkeypatch.setattr(Broken, "after_epoch", Callback.after_epoch)
    learn.resume_run(cbs=[Broken()])
    assert [(row[0], row[6]) for row in learn.ledger().rows if len(row) > 1] == [("1", "finished")]


def test_runs_on_other_pictures_are_left_out(make, tmp_path, photos) -> None:
    make().fit(1, show=False)
    other = tmp_path / "photos"
    for k, file in enumerate(sorted(photos.rglob("*.png"))):
        copy = other / file.parent.name / f"new_{k}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    assert make(other).ledger().rows == []
