import csv
import pickle
import sys
from copy import deepcopy
from itertools import pairwise
from types import ModuleType

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from nbfinetune import Callback, Learner, LogTo, SaveBest, accuracy
from nbfinetune.training.logs import log_to


@pytest.fixture
def learn(loaders, mlp) -> Learner:
    """A learner of three layer groups with a metric; 5 training batches."""
    groups = [[part] for part in mlp]
    return Learner(loaders, mlp, groups=groups, metrics=accuracy, device="cpu")


class Logged(list):
    """A function of the user's."""

    def __call__(self, step: int, values: dict) -> None:
        self.append((step, dict(values)))

    def of(self, name: str) -> list[tuple[int, object]]:
        return [(step, values[name]) for step, values in self if name in values]


def test_steps_and_names_are_those_of_both_stages_and_steps_only_rise(learn: Learner) -> None:
    log = Logged()
    result = learn.fine_tune(2, freeze_epochs=1, cbs=LogTo(log))
    losses = [loss for run in result.stages for loss in run.losses]
    assert log.of("train_loss") == list(enumerate(losses, 1))
    assert [step for step, _ in log] == sorted(step for step, _ in log)
    assert log.of("valid_loss") == [
        (step, row["valid_loss"]) for step, row in zip((5, 10, 15), result.rows, strict=True)
    ]
    assert log.of("accuracy") == [(5 * (i + 1), r["accuracy"]) for i, r in enumerate(result.rows)]
    assert [value for _, value in log.of("epoch")] == [0, 0, 1]
    rates = [step for run in result.stages for step in run.lrs]
    assert log.of("lr") == [(i, lrs[-1]) for i, lrs in enumerate(rates, 1)]
    assert log.of("lr/body 0") == [(i, lrs[0]) for i, lrs in enumerate(rates, 1)]
    assert log.of("lr/head") == log.of("lr")
    assert log.of("hyper/run") == [
        (0, "fine_tune: head, body frozen"),
        (5, "fine_tune: all layers"),
    ]
    assert log.of("hyper/epochs") == [(0, 1), (5, 2)]
    assert log[0][1]["hyper/loss"] == "CrossEntropyLoss"


def test_steps_go_on_over_several_fits_and_copies_of_the_learner_log_to_the_same(learn) -> None:
    log = Logged()
    learn.cbs = LogTo(log)
    learn.fit(1, 1e-3)
    learn.lr_find(num_it=6, verify=0, show=False)  # is no run
    deepcopy(learn).fit(1, 1e-3)
    learn.fit(1, 1e-3)
    assert [step for step, _ in log.of("valid_loss")] == [5, 10, 10]


def test_metrics_that_are_called_as_values_of_steps_hide_none(learn: Learner) -> None:
    log = Logged()
    learn.metrics = {"lr": accuracy, "seconds": lambda preds, targets: 7.0}
    learn.fit(1, 1e-3, cbs=LogTo(log))
    assert [rate for _, rate in log.of("lr")] == [1e-3] * 5
    assert log.of("metric/lr") == [(5, learn.recorder.run.rows[-1]["lr"])]
    assert log.of("metric/seconds") == [(5, 7.0)]
    assert log.of("seconds")[0][1] < 7.0


def test_a_run_that_is_stopped_or_interrupted_has_logged_all_its_steps(learn: Learner) -> None:
    for error in (None, KeyboardInterrupt, RuntimeError):

        class End(Callback):
            error: type | None

            def after_batch(self, learn: Learner) -> None:
                if learn.training and learn.iter == 2:
                    if self.error is not None:
                        raise self.error
                    learn.control.stop()

        End.error, log = error, Logged()
        try:
            learn.fit(1, 1e-3, cbs=[LogTo(log), End()])
        except (KeyboardInterrupt, RuntimeError):
            assert error is not None
        n = 4 if error is None else 3  # a stop is seen after the next step
        assert [step for step, _ in log.of("train_loss")] == list(range(1, n + 1))


def test_what_fails_to_log_is_said_once_and_ends_no_run(learn: Learner) -> None:
    calls = []

    def fails(step: int, values: dict) -> None:
        calls.append(step)
        raise ConnectionError("no network\nmore")

    with pytest.warns(UserWarning, match="logging to fails failed") as caught:
        result = learn.fit(5, 1e-3, cbs=LogTo(fails))
    said = "LogTo: logging to fails failed (ConnectionError: no network); the run goes on, and " \
        "after 3 failures in a row it logs no more"  # fmt: skip
    assert [str(warning.message) for warning in caught] == [said]
    assert caught[0].filename == __file__
    assert result.status == "finished"
    assert learn.recorder.run.notes == [said]
    assert len(calls) == 3


def test_a_failure_that_passes_ends_no_logging(learn: Learner) -> None:
    log = Logged()

    def sometimes(step: int, values: dict) -> None:
        if 5 < step <= 15 and "valid_loss" in values:
            raise OSError("away")
        log(step, values)

    with pytest.warns(UserWarning, match="away"):
        learn.fit(5, 1e-3, cbs=LogTo(sometimes))
    assert [step for step, _ in log.of("valid_loss")] == [5, 20, 25]


def test_a_csv_file_has_a_row_a_step(learn: Learner, tmp_path) -> None:
    file = tmp_path / "runs" / "log.csv"
    result = learn.fit(2, 1e-3, cbs=LogTo(file))
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [int(row["step"]) for row in rows] == list(range(11))
    assert [row["train_loss"] for row in rows[1:]] == [
        str(loss) for loss in result.stages[0].losses
    ]
    assert [row["accuracy"] for row in rows if row["accuracy"]] == [
        str(row["accuracy"]) for row in result.rows
    ]
    assert rows[0]["hyper/run"] == "fit"
    again = LogTo(str(file))
    learn.fit(1, 1e-3, cbs=again)
    assert len(file.read_text().splitlines()) == 7  # that of before is replaced


def test_a_csv_log_goes_on_where_a_killed_process_ended(learn: Learner, tmp_path) -> None:
    file = tmp_path / "log.csv"
    log = LogTo(file)
    learn.fit(2, 1e-3, cbs=log)
    state, before = log.state_dict(), file.read_text()
    other = LogTo(file)
    other.load_state_dict(learn, state)
    other.log.flush()
    assert file.read_text() == before
    learn.fit(1, 1e-3, cbs=other)
    assert len(file.read_text().splitlines()) == 17


def test_only_a_log_is_written_over_and_only_csv_files_are_named(tmp_path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\na.jpg,cat\n")
    with pytest.raises(
        ValueError, match=r"labels\.csv is there and no log of steps: its first col"
    ):
        LogTo(labels)
    assert labels.read_text() == "image,label\na.jpg,cat\n"
    with pytest.raises(ValueError, match=r"'runs'\) is no CSV file.*LogTo\(SummaryWriter\(folder"):
        LogTo("runs")


def test_a_summary_writer_gets_scalars_and_texts(learn: Learner, tmp_path) -> None:
    writer = SummaryWriter(tmp_path)
    learn.cbs = [LogTo(writer)]
    result = learn.fine_tune(1, freeze_epochs=1)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [e.step for e in events.Scalars("train_loss")] == list(range(1, 11))
    assert [e.step for e in events.Scalars("accuracy")] == [5, 10]
    assert [e.value for e in events.Scalars("valid_loss")] == pytest.approx(
        [row["valid_loss"] for row in result.rows]
    )
    assert events.Scalars("hyper/epochs")[0].value == 1
    assert "hyper/run/text_summary" in events.Tags()["tensors"]
    deepcopy(learn).fit(1, 1e-3)  # writers cannot be copied
    with pytest.raises(TypeError, match=r"LogTo\(SummaryWriter\) cannot be pickled .*learn.export"):
        pickle.dumps(learn)
    learn.cbs = [LogTo(print)]
    pickle.dumps(learn)


def wandb_like() -> ModuleType:
    """wandb.log(data, step=None, commit=None): dicts of a step are one, and steps only rise."""
    module = ModuleType("wandb")
    module.history = {}

    def log(data: dict, step: int | None = None, commit: bool | None = None) -> None:
        if module.history and step < max(module.history):
            raise ValueError("steps must rise")
        module.history.setdefault(step, {}).update(data)

    module.log = log
    return module


def trackio_like() -> ModuleType:
    """trackio.log(metrics, step=None)."""
    module = wandb_like()
    log, module.__name__ = module.log, "trackio"
    module.log = lambda metrics, step=None: log(metrics, step)
    return module


def mlflow_like() -> ModuleType:
    """log_metrics(metrics, step=None, ...) takes numbers; log_params sets each once for a run."""
    module = ModuleType("mlflow")
    module.history, module.params = {}, {}

    def log_metrics(metrics, step=None, synchronous=None, run_id=None, timestamp=None) -> None:
        assert all(type(value) is float for value in metrics.values())
        module.history.setdefault(step, {}).update(metrics)

    def log_params(params: dict, synchronous=None, run_id=None) -> None:
        for name, value in params.items():
            if module.params.setdefault(name, value) != value:
                raise ValueError(f"changing param values is not allowed: {name}")

    module.log_metrics, module.log_params = log_metrics, log_params
    module.log_metric = module.log_param = module.log_text = None  # what is not asked for
    return module


@pytest.mark.parametrize("make", [wandb_like, trackio_like, mlflow_like])
def test_modules_of_services_are_targets_by_their_methods(make, learn: Learner) -> None:
    module = make()
    learn.cbs = [LogTo(module)]
    results = [learn.fine_tune(1, freeze_epochs=1), learn.fit(1, 1e-3)]
    rows = [row for result in results for row in result.rows]
    found = {s: v["valid_loss"] for s, v in module.history.items() if "valid_loss" in v}
    assert found == {5 * (i + 1): row["valid_loss"] for i, row in enumerate(rows)}
    assert learn.recorder.run.notes == []
    if make is mlflow_like:
        assert module.params["hyper/run from step 5"] == "fine_tune: all layers"
        assert module.history[0]["hyper/epochs"] == 1.0
    else:
        assert module.history[0]["hyper/run"] == "fine_tune: head, body frozen"
    deepcopy(learn)  # modules cannot be copied
    assert module.__name__ not in sys.modules


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "LogTo cannot log to 3, a int; give a function log"),
        (None, "LogTo cannot log to None"),
        (SummaryWriter, r"was given the class SummaryWriter; pass an instance of it"),
    ],
)
def test_what_cannot_log_is_refused(target, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogTo(target)


def test_log_to_and_save_best_are_resumed_in_any_order(learn: Learner) -> None:
    from nbfinetune.training.resuming.run_state import callback_trees, put_callbacks

    best, log = SaveBest(), LogTo(Logged())
    learn.fit(1, 1e-3, cbs=[best, log])
    trees = callback_trees([best, log], learn)
    again = [LogTo(Logged()), SaveBest()]
    put_callbacks(learn, again, trees)
    assert again[0].state_dict() == log.state_dict()
    assert again[1].row == best.row
    with pytest.raises(ValueError, match="the run had the callback LogTo; pass the same"):
        put_callbacks(learn, [SaveBest()], trees)


def test_losses_are_read_from_the_device_in_blocks(learn: Learner, monkeypatch) -> None:
    reads, flush = [], type(learn.recorder).flush
    monkeypatch.setattr(
        type(learn.recorder), "flush", lambda self: (reads.append(1), flush(self))[1]
    )
    learn.dls.train *= 4
    learn.fit(1, 1e-3, cbs=LogTo(Logged()), show=False)
    assert len(reads) < 20  # steps: at the end of the epoch and of the fit, and once a second


def test_what_takes_long_to_write_out_is_asked_rarely_and_at_the_end(learn, monkeypatch) -> None:
    now, written = [0.0], []

    class Slow:
        def __call__(self, step: int, values: dict) -> None:
            now[0] += 1.0  # a second for each step

        def flush(self) -> None:
            now[0] += 0.5
            written.append(now[0])

    monkeypatch.setattr(log_to, "monotonic", lambda: now[0])
    monkeypatch.setattr(log_to, "log_function", lambda target: target)
    learn.fit(30, 1e-3, cbs=LogTo(Slow()), show=False)
    # Writing takes 0.5 s, so 50 s pass without it; 30 epochs of 5 steps and a row take 180 s.
    assert len(written) == 5
    assert all(b - a >= 50 for a, b in pairwise(written[:-1]))
    assert written[-1] == now[0]
