"""Dead kernels: a run that is killed goes on in a new process, equal to the last bit."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from nbfinetune import Callback, CancelFit, Corrections, ImageDataLoaders, Learner, vision_learner
from nbfinetune.training.resuming import keeper, run_folder, runs_root
from nbfinetune.training.resuming.resume import left_runs

SCRIPT = Path(__file__).parent / "killed_runs.py"
KILLED, TERMINATED = 9, -15
EQUAL = "goes on in a new process; final weights equal to the last bit"

Runner = Callable[..., list[dict]]


@pytest.fixture(scope="module")
def run_jobs(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Does jobs of `killed_runs`, one process after another, in a folder of their own."""

    def run(*jobs: dict) -> list[dict]:
        folder = tmp_path_factory.mktemp("killed")
        given = {"NBFINETUNE_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, SCRIPT, folder, json.dumps(jobs)],
            env=os.environ | given,
            capture_output=True,
            text=True,
        )
        results = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(results) == len(jobs), done.stderr
        return results

    return run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs, for a test in this process."""
    monkeypatch.setenv("NBFINETUNE_RUNS", str(tmp_path / "runs"))
    runs_root._said.clear()
    return tmp_path / "runs"


# Three runs of every kind of kill share a process that imports torch once.
KILLS = [
    {"at": ["batch", 9]},  # of 20 of the head
    {"at": ["batch", 27]},  # with all layers
    {"at": ["validation", 5]},
    {"writing": 17},  # a checkpoint is there in part
]


@pytest.fixture(scope="module")
def killed(run_jobs: Runner) -> dict[str, list[dict]]:
    jobs = [{"config": "fine_tune", "mode": "run"}]
    for kill in KILLS:
        jobs.append({"config": "fine_tune", "mode": "run", "checkpoint": 4} | kill)
        jobs.append({"config": "fine_tune", "mode": "resume"})
    terms = [("fine_tune", "batch", 7), ("accumulated", "validation", 3)]
    for config, *place in terms:
        jobs.append({"config": config, "mode": "run", "sigterm": place})
        jobs.append({"config": config, "mode": "resume"})
    jobs.append({"config": "fine_tune", "mode": "run", "sigterm": ["batch", 7], "thread": True})
    jobs.append({"config": "fine_tune", "mode": "resume"})
    jobs.append({"config": "accumulated", "mode": "run"})
    whole, *results, accumulated = run_jobs(*jobs)
    names = [*map(json.dumps, KILLS), *(config for config, *_ in terms), "thread"]
    pairs = {name: [whole, *results[2 * i :][:2]] for i, name in enumerate(names)}
    return pairs | {"accumulated": [accumulated, *pairs["accumulated"][1:]]}


def check_equal(results: list[dict], code: int, record: Callable) -> None:
    whole, ended, resumed = results
    assert (whole["code"], ended["code"], resumed["code"]) == (0, code, 0)
    assert resumed["digest"] == whole["digest"]
    assert resumed["stages"] == whole["stages"]
    assert resumed["left"] == 0, "the checkpoints of a run that ended well stay"
    record("seen", "equal weights, optimizer, history and random numbers")


@pytest.mark.fault("kill -9 while the head trains", EQUAL)
def test_a_run_killed_while_the_head_trains_goes_on(killed, record_property) -> None:
    check_equal(killed[json.dumps(KILLS[0])], KILLED, record_property)


@pytest.mark.fault("kill -9 while all layers train", EQUAL)
def test_a_run_killed_while_all_layers_train_goes_on(killed, record_property) -> None:
    check_equal(killed[json.dumps(KILLS[1])], KILLED, record_property)


@pytest.mark.fault("kill -9 while it validates", EQUAL)
def test_a_run_killed_while_it_validates_goes_on(killed, record_property) -> None:
    check_equal(killed[json.dumps(KILLS[2])], KILLED, record_property)


@pytest.mark.fault("kill -9 while a checkpoint is written", "the one before is whole; " + EQUAL)
def test_a_run_killed_while_a_checkpoint_is_written_goes_on(killed, record_property) -> None:
    check_equal(killed[json.dumps(KILLS[3])], KILLED, record_property)


@pytest.mark.fault("SIGTERM while the head trains", "a checkpoint at the next batch; " + EQUAL)
def test_a_run_that_is_told_to_end_writes_a_checkpoint_first(killed, record_property) -> None:
    check_equal(killed["fine_tune"], TERMINATED, record_property)


@pytest.mark.fault("SIGTERM while it validates, with accumulation", "a checkpoint; " + EQUAL)
def test_a_run_that_is_told_to_end_while_it_validates_goes_on(killed, record_property) -> None:
    check_equal(killed["accumulated"], TERMINATED, record_property)


@pytest.mark.fault("SIGTERM while a --bg run trains", "a checkpoint at the next batch; " + EQUAL)
def test_a_run_in_a_thread_that_is_told_to_end_goes_on(killed, record_property) -> None:
    check_equal(killed["thread"], TERMINATED, record_property)


def pairs_of(run_jobs: Runner, kills: list[dict], configs: list[str]) -> list[list[dict]]:
    """Of each kill the results of a whole run, the killed one and the one that went on."""
    jobs = [{"config": config, "mode": "run"} for config in configs]
    for i, kill in enumerate(kills):
        config = configs[i % len(configs)]
        jobs.append({"config": config, "mode": "run"} | kill)
        jobs.append({"config": config, "mode": "resume"})
    results = run_jobs(*jobs)
    n = len(configs)
    return [[results[i % n], *results[n + 2 * i :][:2]] for i in range(len(kills))]


CONFIGS = ["fine_tune", "accumulated", "views", "as fastai", "own loaders", "restarts"]


@pytest.mark.bulk
@pytest.mark.fault("kill -9 at 48 random times, 6 recipes", EQUAL)
def test_runs_killed_at_random_times_go_on(run_jobs, record_property) -> None:
    chance = random.Random(1)
    kills = [
        {"after": chance.uniform(0.05, 1.1), "checkpoint": chance.choice([1, 2, 5, None])}
        for _ in range(48)
    ]
    pairs = pairs_of(run_jobs, kills, CONFIGS)
    ended = [three for three in pairs if three[1]["code"] == 0]
    before = [three for three in pairs if three[1]["code"] and three[2].get("nothing")]
    went_on = [three for three in pairs if three[1]["code"] and not three[2].get("nothing")]
    unlike = [three for three in went_on if three[2].get("digest") != three[0]["digest"]]
    record_property(
        "seen",
        f"{len(went_on)} went on, {len(unlike)} of them unlike; {len(ended)} had ended, "
        f"{len(before)} had not begun",
    )
    assert not unlike
    assert len(went_on) >= 20


@pytest.mark.bulk
@pytest.mark.fault("kill -9 in each of the first 40 writes, 3 recipes", EQUAL)
def test_runs_killed_in_any_write_go_on(run_jobs, record_property) -> None:
    kills = [{"writing": n, "checkpoint": 1} for n in range(1, 41)]
    pairs = pairs_of(run_jobs, kills, CONFIGS[:3])
    unlike = [three for three in pairs if three[2].get("digest") != three[0]["digest"]]
    record_property("seen", f"{len(pairs)} killed, {len(unlike)} unlike")
    assert not unlike
    assert all(three[1]["code"] == KILLED for three in pairs)


@pytest.mark.bulk
@pytest.mark.fault("SIGTERM at each of 12 places, 3 recipes", "a checkpoint first; " + EQUAL)
def test_runs_told_to_end_anywhere_go_on(run_jobs, record_property) -> None:
    places = [["batch", n] for n in (1, 2, 6, 13)] + [["validation", n] for n in (1, 2, 4)]
    places += [["trained", 1], ["trained", 3], ["epoch", 1], ["epoch", 2], ["epoch", 4]]
    kills = [{"sigterm": place} for place in places for _ in CONFIGS[:3]]
    pairs = pairs_of(run_jobs, kills, CONFIGS[:3])
    unlike = [three for three in pairs if three[2].get("digest") != three[0]["digest"]]
    record_property("seen", f"{len(pairs)} told to end, {len(unlike)} unlike")
    assert not unlike
    assert all(three[1]["code"] == TERMINATED for three in pairs)


class Break(Callback):
    """Ends a fit with an error, as a kernel that dies would, in training batch n."""

    def __init__(self, n: int) -> None:
        self.left = n

    def after_batch(self, learn: Learner) -> None:
        self.left -= learn.training
        if not self.left:
            raise RuntimeError("broken")


Break.__module__ = "nbfinetune.tests"


def broken(learn: Learner, n: int = 12, **options) -> Learner:
    with pytest.raises(RuntimeError, match="broken"):
        learn.fit_one_cycle(3, 1e-2, cbs=[Break(n)], show=False, checkpoint=1, **options)
    return learn


@pytest.fixture
def make(loaders, mlp) -> Callable[..., Learner]:
    """Makes a learner of three layer groups, always the same."""
    state = {name: value.clone() for name, value in mlp.state_dict().items()}

    def made(net: nn.Module = mlp, **options) -> Learner:
        if net is mlp:
            mlp.load_state_dict(state)
        groups = [[part] for part in net]
        return Learner(loaders, net, groups=groups, device="cpu", **options)

    return made


@pytest.mark.fault("run that failed", "goes on in the same kernel too, from its checkpoint")
def test_a_run_that_failed_goes_on(make, runs) -> None:
    whole = make()
    whole.fit_one_cycle(3, 1e-2, show=False)
    kept = [p.detach().clone() for p in whole.model.parameters()]
    broken(make())
    learn = make()
    result = learn.resume_run(show=False)
    assert len(result.rows) == 3
    assert all(map(torch.equal, kept, learn.model.parameters()))


@pytest.mark.fault("marks on pictures, a found rate, events", "are back with the run")
def test_marks_rate_and_events_are_back(make, runs) -> None:
    class Slower(Callback):
        def before_epoch(self, learn: Learner) -> None:
            learn.control.scale = 0.5

    Slower.__module__ = "nbfinetune.tests"
    marks = Corrections()
    marks.mark(Path("a.png"), "remove", "cat")
    learn = make()
    learn.use_rate(0.003, "as lr_find found")
    with pytest.raises(RuntimeError, match="broken"):
        learn.fit_one_cycle(3, cbs=[Slower(), Break(12)], show=False, checkpoint=1)
    left = dict(marks.marks)
    del marks
    gc.collect()
    new, learn = Corrections(), make()
    learn.resume_run(show=False)
    assert new.marks == left
    assert learn.chosen.text == "3.0e-3, as lr_find found"
    assert learn.recorder.run.events == [(0, "learning rate times 0.5")]
    assert max(step[-1] for step in learn.recorder.run.lrs) <= 0.0015


@pytest.mark.fault("no run was killed", "one line")
def test_there_must_be_a_run_to_go_on_with(make, runs) -> None:
    learn = make()
    learn.fit(1, show=False)
    with pytest.raises(ValueError, match="there is no run to go on with"):
        learn.resume_run(show=False)


@pytest.mark.fault("another network", "refused in one line that says what differs")
def test_another_network_is_refused_unchanged(make, runs) -> None:
    broken(make())
    other = make(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)))
    before = [p.detach().clone() for p in other.model.parameters()]
    with pytest.raises(ValueError, match="parameters of the layer groups was") as caught:
        other.resume_run(show=False)
    assert "\n" not in str(caught.value)
    assert all(map(torch.equal, before, other.model.parameters()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "seed was 42 but is 1"),
        ({"wd": 0.5}, "wd was 0.01 but is 0.5"),
        ({"accumulate": 2}, "accumulate was 1 but is 2"),
        ({"clip_grad": 1.0}, "clip_grad was None but is 1.0"),
    ],
)
@pytest.mark.fault("another setting of the learner", "refused in one line that says which")
def test_another_setting_is_refused(make, runs, options, message) -> None:
    broken(make())
    with pytest.raises(ValueError, match=message):
        make(**options).resume_run(show=False)


@pytest.mark.fault("a picture renamed, other labels, another size", "refused, saying which")
def test_other_pictures_are_refused(runs, photos, small_net, tmp_path) -> None:
    def learner(**options) -> Learner:
        dls = ImageDataLoaders.from_folder(photos, **({"size": 32, "bs": 4} | options))
        return vision_learner(dls, small_net(), device="cpu")

    broken(learner(), 2)
    with pytest.raises(ValueError, match="size was 32 but is 48"):
        learner(size=48).resume_run(show=False)
    with pytest.raises(ValueError, match="the file names and labels of the training pictures are"):
        learner(seed=3).resume_run(show=False)
    fixed = learner()
    fixed.dls.train.dataset.targets[0] += 1
    with pytest.raises(ValueError, match="the file names and labels of the training pictures are"):
        fixed.resume_run(show=False)


class Mine(Callback):
    """A callback of the user's."""


@pytest.mark.fault("callbacks of the user's are missing", "refused, naming them")
def test_callbacks_of_the_users_are_asked_for(make, runs) -> None:
    learn = make()
    with pytest.raises(RuntimeError, match="broken"):
        learn.fit(3, cbs=[Mine(), Break(8)], show=False, checkpoint=1)
    with pytest.raises(ValueError, match=r"the run had the callbacks \['Mine'\] of yours"):
        make().resume_run(show=False)
    assert len(make().resume_run(cbs=[Mine()], show=False).rows) == 3


@pytest.mark.parametrize("damage", ["cut", "other bytes", "gone"])
@pytest.mark.fault("newest checkpoint damaged or gone", "the one before is taken")
def test_the_checkpoint_before_a_damaged_one_is_taken(make, runs, damage) -> None:
    broken(make())
    whole = make()
    whole.fit_one_cycle(3, 1e-2, show=False, checkpoint="off")
    kept = [p.detach().clone() for p in whole.model.parameters()]
    [folder] = [left.folder for left in left_runs()]
    file = folder.path / f"{folder.checkpoints()[-1]:06}.safetensors"
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.write_bytes(os.urandom(2000))
    learn = make()
    learn.resume_run(show=False)
    assert all(map(torch.equal, kept, learn.model.parameters()))


@pytest.mark.fault("checkpoint of weights of another shape", "refused, nothing is changed")
def test_weights_of_another_shape_change_nothing(make, runs) -> None:
    broken(make())
    [folder] = [left.folder for left in left_runs()]
    for _ in folder.checkpoints():
        state, tensors = next(folder.read_checkpoints())
        tensors["run.weights.model.2.bias"] = torch.zeros(7)
        folder.write_checkpoint(state, {"": tensors}, {})
    learn = make()
    before = [p.detach().clone() for p in learn.model.parameters()]
    with pytest.raises(ValueError, match=r"cannot go on: model.2.bias is \[7\] there, \[2\] here"):
        learn.resume_run(show=False)
    assert all(map(torch.equal, before, learn.model.parameters()))
    assert learn.recorder.runs == []


@pytest.mark.fault("disk full while a checkpoint is written", "one warning; the run ends well")
def test_a_full_disk_ends_no_run(make, runs, monkeypatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_whole", full)
    learn = make()
    with pytest.warns(UserWarning, match="no checkpoints are written of this run, which goes on"):
        result = learn.fit(2, show=False, checkpoint=1)
    assert result.status == "finished"


@pytest.mark.fault("folder of runs is a file", "one warning; the run ends well")
def test_a_folder_that_cannot_be_ends_no_run(make, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NBFINETUNE_RUNS", str(tmp_path / "file"))
    runs_root._said.clear()
    with pytest.warns(UserWarning, match="no checkpoints are written"):
        assert make().fit(1, show=False).status == "finished"


@pytest.mark.fault("no home folder", "runs are among the temporary files, said once")
def test_without_a_home_folder_runs_are_among_temporary_files(monkeypatch, tmp_path) -> None:
    for name in ("NBFINETUNE_RUNS", "NBFINETUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown() -> Path:
        raise OSError("the home folder is not known")

    monkeypatch.setattr(runs_root, "cache_folder", unknown)
    monkeypatch.setattr(runs_root.tempfile, "gettempdir", lambda: str(tmp_path))
    runs_root._said.clear()
    with pytest.warns(UserWarning, match="there is no home folder"):
        folder = runs_root.runs_folder()
    assert folder.parent.parent == tmp_path
    assert runs_root.runs_folder() == folder  # another warning would be an error


@pytest.mark.parametrize("chosen", ["off", "OFF"])
@pytest.mark.fault("NBFINETUNE_RUNS=off, checkpoint=off", "nothing is written")
def test_nothing_is_written_where_nobody_wants_it(make, tmp_path, monkeypatch, chosen) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NBFINETUNE_RUNS", chosen)
    make().fit(1, show=False, checkpoint=1)
    monkeypatch.delenv("NBFINETUNE_RUNS")
    make().fit(1, show=False, checkpoint="off")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("checkpoint=0, -1, 'often'", "refused, saying what is allowed")
@pytest.mark.parametrize("checkpoint", [0, -1, "often", 1.5, float("nan")])
def test_an_interval_that_is_none_is_refused(make, runs, checkpoint) -> None:
    learn = make()
    with pytest.raises(ValueError, match='it must be a number of steps, "epoch" or "off"'):
        learn.fit(1, checkpoint=checkpoint, show=False)
    assert learn.recorder.runs == []


def test_runs_are_written_into_the_cache_folder(make, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("NBFINETUNE_RUNS", raising=False)
    monkeypatch.delenv("NBFINETUNE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make().fit(1, show=False)
    [folder] = (tmp_path / "nbfinetune" / "runs").iterdir()
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["history.json", "history.safetensors", "run.json"]


def test_only_the_last_two_checkpoints_stay_and_what_they_need(make, runs) -> None:
    learn = make()
    learn.freeze()
    broken(learn)
    [folder] = [left.folder for left in left_runs()]
    kept = {file.name for file in folder.path.iterdir() if file.name[0].isdigit()}
    last = folder.checkpoints()[-1]
    assert folder.checkpoints() == [last - 1, last]
    two = {f"{n:06}{end}" for n in (last - 1, last) for end in (".json", ".safetensors")}
    assert two | {"000000-kept.safetensors"} == kept


@pytest.mark.fault("2 GB of checkpoints of earlier runs", "the oldest are deleted")
def test_the_oldest_runs_are_swept(make, runs, monkeypatch) -> None:
    for _ in range(3):
        broken(make())
    sizes = [left.folder.n_bytes for left in left_runs()]
    names = [left.folder.path.name for left in left_runs()]
    monkeypatch.setattr(runs_root, "MOST_BYTES", sum(sizes[:2]) + 100)
    runs_root.sweep(runs)
    assert [left.folder.path.name for left in left_runs()] == names[:2]


@pytest.mark.fault("a run of another kernel is on", "it is not offered, nor swept")
def test_a_run_that_is_on_is_left_alone(make, runs, monkeypatch) -> None:
    broken(make())
    [left] = left_runs()
    assert left.folder.claim()
    assert left_runs() == []
    monkeypatch.setattr(runs_root, "MOST_BYTES", 1)
    runs_root.sweep(runs)
    assert left.folder.path.exists()
    left.folder.release()
    assert len(left_runs()) == 1


def test_the_interval_stretches_where_writing_is_slow(make, runs, monkeypatch) -> None:
    written = []
    now = [0.0]
    monkeypatch.setattr(keeper, "perf_counter", lambda: now[0])

    class Clock(Callback):
        def after_batch(self, learn: Learner) -> None:
            now[0] += 1.0

    write = keeper.Keeper._write

    def slow(self, learn, cbs, place) -> int:
        written.append(now[0])
        now[0] += 0.5
        return write(self, learn, cbs, place)

    monkeypatch.setattr(keeper.Keeper, "_write", slow)
    make().fit(40, cbs=[Clock()], show=False)
    total = now[0]
    assert len(written) >= 3
    assert 0.5 * len(written) <= 0.01 * total + 0.5


def test_a_second_signal_acts_at_once_and_the_handler_is_put_back(make, runs) -> None:
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(learn.iter))

    class Told(Callback):
        def before_batch(self, learn: Learner) -> None:
            if learn.training and learn.epoch == 0 and learn.iter == 1:
                os.kill(os.getpid(), signal.SIGTERM)
                assert seen == []  # it waits for the end of the step
                os.kill(os.getpid(), signal.SIGTERM)
                assert seen == [1]

    try:
        learn = make()
        learn.fit(1, cbs=[Told()], show=False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(seen) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


class StopAfter(Callback):
    """Ends a call after the first epoch with all layers."""

    def after_epoch(self, learn: Learner) -> None:
        if learn.recorder.run.stage == "all layers":
            raise CancelFit


@pytest.mark.parametrize("recipe", ["measured", "fastai"])
@pytest.mark.fault("fine_tune ended, saved, loaded, start_epoch=1", "weights equal to the last bit")
def test_a_saved_fine_tune_goes_on(photos, small_net, tmp_path, recipe) -> None:
    def learner() -> Learner:
        dls = ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=32, bs=4)
        return vision_learner(dls, small_net(), device="cpu", train_bn=recipe == "fastai")

    how = {"recipe": recipe, "keep_best": False, "freeze_epochs": 2, "show": False}
    whole, ended, learn = learner(), learner(), learner()
    whole.fine_tune(3, **how)
    ended.fine_tune(3, cbs=[StopAfter()], **how)
    ended.save(tmp_path / "ended.safetensors")
    learn.load(tmp_path / "ended.safetensors")
    result = learn.fine_tune(3, start_epoch=1, **how)
    assert [row["epoch"] for row in result.rows] == [1, 2]
    assert all(map(torch.equal, whole.model.parameters(), learn.model.parameters()))


@pytest.mark.fault("random numbers in a file are damaged", "one line, nothing is changed")
def test_damaged_random_numbers_are_refused(make, tmp_path) -> None:
    learn = make()
    learn.fit(1, show=False)
    learn._rng = learn._rng | {"torch": learn._rng["torch"][:100]}
    learn.save(tmp_path / "a.safetensors")
    other = make()
    before = [p.detach().clone() for p in other.model.parameters()]
    with pytest.raises(ValueError, match="in its header there is no state of random numbers"):
        other.load(tmp_path / "a.safetensors")
    assert all(map(torch.equal, before, other.model.parameters()))
