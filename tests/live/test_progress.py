import re

import pytest

from nbfinetune import Callback, CancelFit, EarlyStopping, Learner, accuracy
from nbfinetune.history.report import minutes
from nbfinetune.live.progress import EpochTable
from nbfinetune.live.time_left import TimeLeft


@pytest.fixture
def learn(loaders, mlp) -> Learner:
    groups = [[part] for part in mlp]
    return Learner(loaders, mlp, groups=groups, metrics=accuracy, device="cpu")


class Stop(Callback):
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def after_batch(self, learn: Learner) -> None:
        if learn.epoch == 1 and learn.iter == 2:
            raise self.error


def test_a_terminal_gets_the_table_line_by_line(learn: Learner, capsys) -> None:
    seen = []

    class Look(Callback):
        def after_epoch(self, learn: Learner) -> None:
            seen.append(capsys.readouterr().out.splitlines())

    learn.fine_tune(2, freeze_epochs=1, cbs=[EpochTable(notebook=False), Look()])
    assert seen[0][0].split() == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert seen[0][1] == "head, body frozen, 1 epoch"
    assert re.fullmatch(r" +0( +\d\.\d{6}){3} +00:00", seen[0][2])
    assert seen[1][0] == "all layers, 2 epochs"
    assert [len(lines) for lines in seen] == [3, 2, 1]
    assert "\r" not in str(seen)  # no terminal: no line that is written over


def test_a_terminal_shows_the_time_left(learn: Learner, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("nbfinetune.live.progress._INTERVAL", 0)
    learn.fine_tune(2, freeze_epochs=1, cbs=[EpochTable(notebook=False)])
    out = capsys.readouterr().out
    left = r"(, 00:00 left)?"  # said once it is known
    assert re.search(f"head, body frozen: epoch 1 of 1, 50%{left}\r", out)
    assert re.search(f"all layers: epoch 1 of 2, 50%{left}\r", out)
    assert out.splitlines()[-1].endswith("\x1b[K")  # the last thing is a wiped line


@pytest.fixture
def shown(monkeypatch) -> list:
    """What a notebook's display would show, one entry for each update."""
    updates = []

    class Handle:
        def update(self, live) -> None:
            updates.append(live)

    def display(live, display_id: bool) -> Handle:
        assert display_id
        updates.append(live)
        return Handle()

    monkeypatch.setattr("nbfinetune.live.progress.display", display)
    return updates


def test_a_notebook_gets_one_table_that_grows(learn: Learner, shown: list) -> None:
    learn.fine_tune(2, freeze_epochs=1, cbs=[EpochTable(notebook=True)])
    html = [live._repr_html_() for live in shown]
    assert "<progress" in html[0]
    last = html[-1]
    assert "<progress" not in last
    assert last.count("<tr>") == 1 + 2 + 3  # heading, two stages, three epochs
    assert "<b>head, body frozen, 1 epoch</b>" in last
    assert "<b>all layers, 2 epochs</b>" in last
    text = repr(shown[-1]).splitlines()
    assert text[0].split() == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert len(text) == 6 + 2  # and the rate of the body, and the verdict


def test_updates_between_epochs_are_few(learn: Learner, shown: list, monkeypatch) -> None:
    monkeypatch.setattr("nbfinetune.live.progress.monotonic", lambda: 1000.0)  # no time passes
    learn.fit(3, 1e-3, cbs=[EpochTable(notebook=True)])
    assert len(shown) == 1 + 3 + 1  # start, epochs, end


def test_a_stopped_run_says_where(learn: Learner, shown: list) -> None:
    learn.fit(3, 1e-3, cbs=[EpochTable(notebook=True), Stop(CancelFit)])
    lines = repr(shown[-1]).splitlines()
    assert len(lines) == 3  # heading, one epoch, and:
    assert lines[2] == "stopped in epoch 2 of 3 after 8 steps"
    assert "<progress" not in shown[-1]._repr_html_()


def test_an_interrupted_run_keeps_its_table_without_the_bar(learn: Learner, shown: list) -> None:
    with pytest.raises(KeyboardInterrupt):
        learn.fit(3, 1e-3, cbs=[EpochTable(notebook=True), Stop(KeyboardInterrupt)])
    assert len(repr(shown[-1]).splitlines()) == 2
    assert "<progress" not in shown[-1]._repr_html_()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00"), (59.9, "00:59"), (61, "01:01"), (6000, "100:00")]
)
def test_time_is_shown_as_minutes_and_seconds(seconds: float, text: str) -> None:
    assert minutes(seconds) == text


@pytest.mark.parametrize("notebook", [True, False])
def test_a_run_that_is_refused_shows_its_own_error(notebook: bool, learn: Learner, shown) -> None:
    learn.cbs.append(EarlyStopping("nope"))
    with pytest.raises(ValueError, match="monitor is 'nope'"):
        learn.fit(1, 1e-3, cbs=[EpochTable(notebook=notebook)])
    assert shown == []


def test_asked_to_be_static_a_notebook_gets_one_output_at_the_end(
    learn: Learner, shown: list, monkeypatch
) -> None:
    monkeypatch.setenv("NBFINETUNE_STATIC", "1")
    monkeypatch.setattr("nbfinetune.live.progress.display", shown.append)
    table = EpochTable(notebook=True)
    learn.fine_tune(2, freeze_epochs=1, cbs=[table])
    assert shown == []
    table.close()
    assert [len(report.runs) for report in shown] == [2]


@pytest.mark.parametrize(
    ("body_epochs", "share"),
    [(None, 1 / 10), (0, 1 / 10), (1, 1 / (1 + 9 / 50)), (2, 1 / (2 + 8 / 50))],
)
def test_epochs_that_run_the_body_weigh_more_in_the_time_left(
    learn: Learner, body_epochs: int | None, share: float
) -> None:
    """A step of the head alone is a fiftieth of one of the whole network."""
    pace, shares = TimeLeft(), []

    class Look(Callback):
        def before_fit(self, learn: Learner) -> None:
            learn.recorder.run.body_epochs = body_epochs
            pace.start(learn)

        def after_batch(self, learn: Learner) -> None:
            pace.tick(learn)

        def after_epoch(self, learn: Learner) -> None:
            share, text = pace.how_far(learn)
            shares.append(share)
            assert text.endswith(", features kept") == (body_epochs is not None)

    learn.fit(10, 1e-3, cbs=[Look()])
    assert shares[0] == pytest.approx(share)
    assert shares[-1] == pytest.approx(1)
