import csv
import json
import signal

import pytest
from runs_of_workers import At, Counting, Seen, kill, new_learner, same, weights

from nbfinetune import EarlyStopping, LogTo, SaveBest
from nbfinetune.cluster.runs.checkpoint_relay import RelayFolder, write_sent
from nbfinetune.cluster.runs.failures import WorkerLost
from nbfinetune.training.resuming.run_folder import RunFolder
from nbfinetune.training.resuming.runs_root import run_folders

NEVER = At(-1, 1, print)  # in the place of the callback of the run that is resumed


@pytest.fixture(autouse=True)
def runs(local_engines, tmp_path, monkeypatch):
    monkeypatch.setenv("NBFINETUNE_RUNS", str(tmp_path))
    local_engines(2)
    return tmp_path


def lose_a_worker(learn, method: str = "fit", step: int = 19, **how) -> None:
    lost = At(step, 1, kill(signal.SIGKILL))
    with pytest.raises(WorkerLost, match="%resume_run goes on from the last checkpoint"):
        getattr(learn, method)(3, 1e-2, cbs=[lost], checkpoint=5, workers=2, show=False, **how)


@pytest.mark.parametrize("workers", [1, 3, None])
def test_a_run_of_two_workers_goes_on_with_any_number(runs, workers) -> None:
    whole, cut = new_learner(), new_learner()
    whole.fit(3, 1e-2, checkpoint="off", show=False)
    lose_a_worker(cut)
    [folder] = run_folders(runs)
    [(state, _), *_] = folder.read_checkpoints()
    assert (state["place"]["epoch"], state["place"]["batch"]) == (1, 7)  # step 15
    anew = new_learner()
    result = anew.resume_run(workers=workers, show=False, cbs=[NEVER])
    assert result.status == "finished"
    assert anew.recorder.run.losses == pytest.approx(whole.recorder.run.losses, rel=1e-4)
    assert len(anew.recorder.run.rows) == 3
    assert same(weights(anew), weights(whole))
    assert folder.record()["status"] == "finished"
    assert folder.checkpoints() == []


def test_the_second_stage_of_fine_tune_goes_on_with_the_best_of_the_first(runs) -> None:
    how = {"freeze_epochs": 1, "show": False, "checkpoint": "off"}
    whole, cut, anew = new_learner(), new_learner(), new_learner()
    whole.fine_tune(3, 1e-2, **how)
    lose_a_worker(cut, "fine_tune", 14, freeze_epochs=1)
    result = anew.resume_run(workers=2, show=False, cbs=[NEVER])
    assert [run.name for run in result.stages] == [run.name for run in whole.recorder.runs]
    for one, other in zip(whole.recorder.runs, anew.recorder.runs, strict=True):
        assert other.losses == pytest.approx(one.losses, rel=1e-4)
    assert any(row is result.kept for run in result.stages for row in run.rows)
    assert result.kept["valid_loss"] == pytest.approx(whole.recorder.run.kept["valid_loss"], 1e-4)


def test_what_went_well_leaves_a_record_and_no_checkpoints(runs) -> None:
    learn = new_learner()
    learn.fit(2, 1e-2, checkpoint=3, workers=2, show=False, cbs=[SaveBest(), EarlyStopping()])
    [folder] = run_folders(runs)
    record = folder.record()
    assert (record["status"], record["method"], record["own_cbs"]) == ("finished", "fit", [])
    assert [cb["of"] for cb in record["cbs"]] == ["SaveBest", "EarlyStopping"]
    assert "workers" not in json.dumps(record["arguments"])
    assert folder.checkpoints() == []
    assert not folder.in_use()


def test_a_call_that_is_refused_leaves_no_folder(runs) -> None:
    with pytest.raises(ValueError, match="n_epoch is 0"):
        new_learner().fit(0, 1e-2, workers=2, show=False)
    assert run_folders(runs) == []


def test_without_a_place_for_them_no_checkpoints_are_sent(monkeypatch) -> None:
    monkeypatch.setenv("NBFINETUNE_RUNS", "off")
    learn, seen = new_learner(), Seen()
    learn.fit(2, 1e-2, checkpoint=2, workers=2, show=False, cbs=[seen])
    assert learn.recorder.run.status == "finished"


def test_tensors_are_held_until_they_are_written_and_then_named(tmp_path) -> None:
    from torch import ones

    told = []
    relay, folder = RelayFolder(told.append), RunFolder.new(tmp_path)
    where = relay.write_checkpoint({"n": 0}, {"": {"a": ones(1)}, "-kept": {"b": ones(2)}}, {})
    relay.write_checkpoint({"n": 1}, {"": {"a": 2 * ones(1)}}, {"b": where["b"]})
    assert told == [0, 1]
    assert relay.fetch(0) is None  # a newer one is there, which has all that it needs
    sent = relay.fetch(1)
    written = write_sent(folder, sent, {})
    relay.acknowledge(1, written)
    assert relay.fetch(1).sheets == {}
    relay.write_checkpoint({"n": 2}, {"": {"a": 3 * ones(1)}}, {"b": where["b"]})
    write_sent(folder, relay.fetch(2), relay.written)
    (state, tensors), (older, _) = folder.read_checkpoints()
    assert (state, older) == ({"n": 2}, {"n": 1})
    assert tensors["a"].tolist() == [3.0]
    assert tensors["b"].tolist() == [1.0, 1.0]
    folder.release()


def test_callbacks_go_on_where_they_were_those_that_stay_here_too(runs, tmp_path_factory) -> None:
    log = tmp_path_factory.mktemp("log") / "log.csv"
    lost = At(19, 1, kill(signal.SIGKILL))
    cut, cbs = new_learner(), [Counting(), LogTo(str(log)), lost]
    with pytest.raises(WorkerLost):
        cut.fit(3, 1e-2, cbs=cbs, checkpoint=5, workers=2, show=False)
    anew, counting = new_learner(), Counting()
    anew.resume_run(workers=2, show=False, cbs=[counting, LogTo(str(log)), NEVER])
    assert counting.n == 24
    steps = [row["step"] for row in csv.DictReader(log.open()) if row["train_loss"]]
    assert steps == [str(i + 1) for i in range(24)]
