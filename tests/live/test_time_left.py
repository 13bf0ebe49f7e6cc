"""The time left is said once it is known within a factor of two, by measured speeds alone."""

import re
from types import SimpleNamespace

import pytest

from nbfinetune.history.runs import Run
from nbfinetune.live.time_left import TimeLeft, search_text


class Stage:
    """A stage on a clock that stands still but for the batches; 10 of training, 5 of validation."""

    def __init__(self, monkeypatch, n_epoch: int = 2, body_epochs: int | None = None) -> None:
        self.now = 100.0
        monkeypatch.setattr("nbfinetune.live.time_left.monotonic", lambda: self.now)
        run = Run("fit", n_epoch, 10, [], body_epochs=body_epochs)
        self.learn = SimpleNamespace(
            recorder=SimpleNamespace(run=run), dls=SimpleNamespace(train=[0] * 10, valid=[0] * 5),
            control=SimpleNamespace(waited=0.0, finishing=None), epoch=0, n_epoch=n_epoch,
            n_iter=10, training=True, features=SimpleNamespace(computing=None), run_name="lr_find",
        )  # fmt: skip
        self.time_left = TimeLeft()
        self.time_left.start(self.learn)

    def train(self, *seconds: float) -> None:
        self._batches(True, seconds)

    def validate(self, *seconds: float) -> None:
        self._batches(False, seconds)

    def _batches(self, training: bool, times: tuple[float, ...]) -> None:
        self.learn.training = training
        for seconds in times:
            self.now += seconds
            if training:
                self.learn.recorder.run.lrs.append([1e-3])
            self.time_left.tick(self.learn)

    @property
    def left(self) -> str | None:
        found = re.search(r"\d\d:\d\d left", self.time_left.how_far(self.learn)[1])
        return found and found[0]


def test_the_first_batch_tells_nothing_and_three_more_do(monkeypatch) -> None:
    stage, said = Stage(monkeypatch), []
    for seconds in (30.0, 2.0, 2.0, 2.0):  # the first one starts workers
        stage.train(seconds)
        said.append(stage.left)
    # 16 training batches take 32 s, 10 of validation something between nothing and 20 s.
    assert said == [None, None, None, "00:42 left"]


def test_validation_has_a_speed_of_its_own_once_it_was_seen(monkeypatch) -> None:
    stage = Stage(monkeypatch)
    stage.train(*[2.0] * 10)
    assert stage.left == "00:30 left"  # 20 s, and 0 to 20 s: just within a factor of 2
    stage.validate(*[1.0] * 5)
    stage.learn.epoch = 1
    assert stage.left == "00:25 left"  # 10 times 2 s and 5 times 1 s


def test_times_that_vary_much_tell_nothing_yet(monkeypatch) -> None:
    stage = Stage(monkeypatch, n_epoch=10)
    stage.train(1.0, 0.1, 6.0, 0.1)
    assert stage.left is None
    stage.train(*[1.0] * 6)
    stage.validate(*[1.0] * 5)
    for _ in range(5):
        stage.learn.epoch += 1
        stage.train(*[1.0] * 10)
        stage.validate(*[1.0] * 5)
    assert stage.left == "01:00 left"  # 60 batches, by the mean of the newest 50 of a kind


def test_while_features_are_computed_that_is_said_and_no_time(monkeypatch) -> None:
    """The speed of the epochs after that, those of the head alone, is not known."""
    stage = Stage(monkeypatch, n_epoch=50, body_epochs=1)
    for k in range(10):
        stage.learn.features.computing = 16 * (k + 1), 160
        stage.train(4.0)
        assert stage.time_left.how_far(stage.learn)[1] == f"features: picture {16 * k + 16} of 160"
    stage.learn.features.computing = 16, 80
    stage.validate(4.0)
    assert stage.time_left.how_far(stage.learn)[1] == "features: picture 16 of 80 held out"
    stage.validate(*[4.0] * 4)
    stage.learn.features.computing, stage.learn.epoch = None, 1
    assert stage.left is None
    stage.train(0.1, 0.01, 0.01, 0.01)
    stage.train(*[0.01] * 6)
    assert stage.left == "00:06 left"  # 480 batches of 10 ms, and 245 of 0 to 10 ms


def test_pauses_do_not_count(monkeypatch) -> None:
    stage = Stage(monkeypatch)
    stage.train(2.0, 2.0)
    stage.now += 1000
    stage.learn.control.waited = 1000.0
    stage.train(2.0, 2.0)
    assert stage.left == "00:42 left"


def test_a_run_that_is_finishing_has_those_steps_and_a_validation_left(monkeypatch) -> None:
    stage = Stage(monkeypatch, n_epoch=100)
    stage.train(*[2.0] * 6)
    stage.learn.control.finishing = 6, 10, [1e-3]
    assert stage.left == "00:25 left"  # 10 steps, and 5 batches of 0 to 2 s


@pytest.mark.parametrize(
    ("body_epochs", "seconds", "left"),
    [
        (None, [9.0, 10.0, 11.0], ""),
        (None, [9.0, 10.0, 11.0, 12.0], ", 01:36 left at most"),
        (1, [4.0 * k for k in range(1, 11)], ", features kept"),
        (1, [*range(10), 50.0, 50.1, 50.2, 50.3], ", 00:08 left at most, features kept"),
    ],
)
def test_a_search_says_its_time_by_the_steps_that_have_their_features(
    monkeypatch, body_epochs: int | None, seconds: list[float], left: str
) -> None:
    stage = Stage(monkeypatch, body_epochs=body_epochs)
    stage.learn.recorder.run.seconds = seconds
    done = 4 if body_epochs is None else 14
    assert search_text(stage.learn, done, 100) == f"lr_find: step {done} of 100{left}"
    stage.learn.features.computing = 120, 259
    assert search_text(stage.learn, done, 100) == "features: picture 120 of 259"
