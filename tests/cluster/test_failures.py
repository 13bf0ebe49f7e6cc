import re
import signal
import threading

import psutil
import pytest
import torch
from runs_of_workers import At, Seen, Slow, kill, new_learner, same, weights

from nbfinetune import Learner
from nbfinetune.cluster.engines import Engines
from nbfinetune.cluster.errors import ClusterError
from nbfinetune.cluster.runs.failures import WorkerFailed, WorkerLost


@pytest.fixture(autouse=True)
def two(local_engines, monkeypatch) -> Engines:
    monkeypatch.setenv("NBFINETUNE_HEARTBEAT", "2")
    return local_engines(2)


def after(step: int) -> list[torch.Tensor]:
    """The weights of one process after so many steps."""
    alone = new_learner()
    alone.fit(100, 1e-2, show=False, cbs=[Seen(step - 1, lambda learn: learn.control.stop())])
    assert len(alone.recorder.run.lrs) == step
    return weights(alone)


def check_last_whole_step(learn: Learner, error: Exception, seen: Seen) -> None:
    """The learner has its weights, the history its steps, and screens were told."""
    run = learn.recorder.run
    [step] = map(int, re.findall(r"after step (\d+);", str(error)))
    assert same(weights(learn), after(step))
    assert len(run.losses) in (step, step - 1)  # killed between a step and its record
    assert (run.status, learn.status, seen.status) == ("failed", "failed", "failed")
    assert seen.events[-1][0] == "after_fit"
    assert not learn.control.running
    assert "\n" not in str(error)


def goes_on(learn: Learner) -> None:
    """The next run has engines."""
    learn.fit(1, 1e-2, show=False, workers=2)
    assert learn.recorder.run.status == "finished"


def test_an_exception_in_a_worker_names_it_and_not_those_that_waited_for_it(two) -> None:
    def fail(learn) -> None:
        raise KeyError("no such picture")

    learn, seen = new_learner(), Seen()
    with pytest.raises(WorkerFailed, match="KeyError: 'no such picture' after 11 steps;") as found:
        learn.fit(9, 1e-2, show=False, workers=2, cbs=[At(11, 1, fail), seen])
    info = two.info(1)
    assert str(found.value).startswith(f"worker 1 ({info.host}, pid {info.pid}) raised")
    assert "train again to go on from there" in str(found.value)
    assert "in fail\nKeyError: 'no such picture'" in str(found.value.__cause__)
    check_last_whole_step(learn, found.value, seen)
    goes_on(learn)
    assert [two.info(rank).pid for rank in (0, 1)] == [
        Engines.local(2).info(rank).pid for rank in (0, 1)
    ]


def test_an_error_of_a_users_callback_is_raised_as_in_one_process() -> None:
    class Wrong(Slow):
        def after_epoch(self, learn) -> None:
            raise ZeroDivisionError("of mine")

    learn = new_learner()
    with pytest.raises(ZeroDivisionError, match=r"^of mine$") as found:
        learn.fit(2, 1e-2, show=False, workers=2, cbs=[Wrong()])
    assert "in after_epoch\nZeroDivisionError: of mine" in str(found.value.__cause__)
    assert learn.recorder.run.status == "failed"
    assert len(learn.recorder.run.losses) == 8


def test_a_worker_without_memory_says_what_helps() -> None:
    def fail(learn) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    learn, seen = new_learner(), Seen()
    expected = r"worker 1 \(.*\) ran out of memory \(.*2.00 GiB\) after 3 steps;.*smaller batches"
    with pytest.raises(WorkerFailed, match=expected) as found:
        learn.fit(9, 1e-2, show=False, workers=2, cbs=[At(3, 1, fail), seen])
    check_last_whole_step(learn, found.value, seen)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_is_named_and_the_other_gives_the_weights(two, rank) -> None:
    learn, seen, info = new_learner(), Seen(), two.info(rank)
    with pytest.raises(WorkerLost, match=rf"^worker {rank} .*pid {info.pid}\) died") as found:
        learn.fit(
            9, 1e-2, show=False, workers=2, cbs=[At(11, rank, kill(signal.SIGKILL)), Slow(), seen]
        )
    check_last_whole_step(learn, found.value, seen)
    goes_on(learn)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_hangs_is_found_by_its_silence(two, rank) -> None:
    learn, seen, info = new_learner(), Seen(), two.info(rank)
    expected = rf"^worker {rank} .*pid {info.pid}\) did not answer for 2 s after"
    with pytest.raises(WorkerLost, match=expected) as found:
        learn.fit(9, 1e-2, show=False, workers=2, cbs=[At(11, rank, kill(signal.SIGSTOP)), seen])
    check_last_whole_step(learn, found.value, seen)
    goes_on(learn)


def test_without_its_controller_a_run_says_what_there_is(two) -> None:
    learn = new_learner()
    before = weights(learn)
    controller = psutil.Process(two._pool.pids()[0])

    def end(learn) -> None:
        for process in [controller, *controller.children(recursive=True)]:
            process.kill()

    act = Seen(5, end)
    expected = "controller is gone.*no worker is left to give its weights"
    with pytest.raises(WorkerLost, match=expected):
        learn.fit(100, 1e-2, show=False, workers=2, cbs=[act, Slow()])
    assert same(before, weights(learn))
    assert len(learn.recorder.run.losses) >= 5
    goes_on(learn)


def test_a_search_that_fails_changes_nothing(two) -> None:
    learn = new_learner()
    before = weights(learn)
    with pytest.raises(WorkerLost, match=r"worker 1 .* died after .*; nothing was changed; do it"):
        learn.lr_find(workers=2, show=False, cbs=[At(5, 1, kill(signal.SIGKILL))])
    assert same(before, weights(learn))
    assert learn.recorder.runs == []
    assert learn.lr == 1e-3


def test_a_second_run_waits_for_no_other_one(two, monkeypatch) -> None:
    from nbfinetune.cluster import remote_run

    monkeypatch.setattr(remote_run, "_IDLE", 0.2)
    one, other, begun = new_learner(), new_learner(), threading.Event()
    how = {"show": False, "workers": 2}
    seen = Seen(3, lambda learn: begun.set())
    run = threading.Thread(target=lambda: one.fit(100, 1e-2, cbs=[seen, Slow()], **how))
    run.start()
    begun.wait(30)
    with pytest.raises(ClusterError, match="another run is on in these workers: wait for it"):
        other.fit(1, 1e-2, **how)
    one.control.stop()
    run.join(30)
    assert one.recorder.run.status == "stopped"
