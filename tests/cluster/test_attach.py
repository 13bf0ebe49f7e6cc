import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runs_of_workers import Seen, new_learner, same, weights

from nbfinetune.cluster import attaching, worker
from nbfinetune.training.resuming.run_folder import RunFolder

FIRST_KERNEL = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
from runs_of_workers import Seen, Slow, new_learner

learn = new_learner()
learn.fit(1, 1e-3, show=False)
told = Seen(6, lambda learn: print("it trains", flush=True))
learn.fit(6, 1e-2, show=False, workers=2, checkpoint=8, cbs=[Slow(), told])
"""


def kill_a_kernel_that_trains() -> None:
    command = [sys.executable, "-c", FIRST_KERNEL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as kernel:
        while "it trains" not in kernel.stdout.readline():
            assert kernel.poll() is None
        kernel.send_signal(signal.SIGKILL)


@pytest.fixture
def whole():
    """A learner that did the same in one process, and what its screen saw."""
    learn, seen = new_learner(), Seen()
    learn.fit(1, 1e-3, show=False, checkpoint="off")
    learn.fit(6, 1e-2, show=False, checkpoint="off", cbs=[seen])
    return learn, seen


@pytest.fixture(autouse=True)
def runs(ipython_folder, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NBFINETUNE_RUNS", str(tmp_path))
    return tmp_path


def test_a_new_kernel_follows_the_run_of_a_killed_one_from_its_first_event(runs, whole) -> None:
    kill_a_kernel_that_trains()
    learn, seen = new_learner(), Seen()
    other = new_learner(28)
    with pytest.raises(ValueError, match=r"the fit that workers do does not fit: .* batches"):
        other.attach(show=False)
    result = learn.attach(show=False, cbs=[seen])
    alone, its_screen = whole
    assert seen.events == its_screen.events
    assert [run.status for run in learn.recorder.runs] == ["finished", "finished"]
    for one, other in zip(alone.recorder.runs, learn.recorder.runs, strict=True):
        assert other.losses == pytest.approx(one.losses, rel=1e-4)
    assert result.stages == (learn.recorder.run,)
    assert result.kept is learn.recorder.run.rows[-1]
    assert same(weights(learn), weights(alone))
    folders = [RunFolder(path) for path in sorted(runs.iterdir())]
    assert [folder.record()["status"] for folder in folders] == ["finished", "finished"]
    assert not any(folder.checkpoints() for folder in folders)
    learn.fit(1, 1e-3, show=False, workers=2)  # its workers are this kernel's now
    learn.undo_fit()
    learn.undo_fit()
    with pytest.raises(ValueError, match="no workers do a fit for a kernel that is gone"):
        learn.attach(show=False)


@pytest.mark.bulk
def test_a_run_that_ended_meanwhile_is_followed_too(whole) -> None:
    kill_a_kernel_that_trains()
    engines, run_id, _ = attaching._found(None)
    while not engines.call(0, worker.runs).get(30)[run_id]["over"]:
        pass
    learn, seen = new_learner(), Seen()
    learn.attach(show=False, cbs=[seen])
    assert seen.events == whole[1].events
    assert same(weights(learn), weights(whole[0]))


def test_a_run_that_is_followed_can_be_stopped() -> None:
    kill_a_kernel_that_trains()
    learn = new_learner()
    result = learn.attach(show=False, cbs=[Seen(10, lambda learn: learn.control.stop())])
    assert result.status == "stopped"
    assert 10 <= len(learn.recorder.run.losses) < 48
