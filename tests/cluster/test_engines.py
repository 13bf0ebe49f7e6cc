import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from nbfinetune.cluster import answering, overview, owners
from nbfinetune.cluster import engines as engines_module
from nbfinetune.cluster.engines import Engines
from nbfinetune.cluster.errors import ClusterError, EngineLost
from nbfinetune.cluster.processes import of_cluster, runs
from nbfinetune.cluster.profiles import files_of_local_clusters


def until(there: Callable[[], object], patience: float = 20.0) -> object:
    """What a function gives once that is something."""
    end = time.monotonic() + patience
    while not (found := there()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_two_engines_start_once_and_share_the_threads_out(local_engines, capfd) -> None:
    said = []
    two = Engines.local(2, log=lambda *text, **how: said.append(text[0]))
    again = local_engines(2)
    assert again.ids == two.ids
    infos = [two.info(rank) for rank in (0, 1)]
    assert len({info.pid for info in infos}) == 2
    assert {info.host for info in infos} == {socket.gethostname()}
    assert [info.local_rank for info in infos] == [0, 1]
    threads = max(1, answering.cores() // 2)
    assert {(info.address, info.threads) for info in infos} == {("127.0.0.1", threads)}
    if said:  # unless another test started them
        assert said[0] == "starting 2 workers: "
        assert said[1].endswith(" s")
    assert capfd.readouterr() == ("", "")


def test_functions_of_cells_and_exceptions_travel(local_engines) -> None:
    two, offset = local_engines(2), 5
    pending = [two.call(rank, lambda x: (x + offset, os.getpid()), rank) for rank in (0, 1)]
    assert [p.get(10) for p in pending] == [(5, two.info(0).pid), (6, two.info(1).pid)]
    assert pending[0].ready()

    class OfACell(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(f"{a} and {b}")

    def fail(kind: type) -> None:
        raise kind(1, 2) if kind is OfACell else kind("bad image")

    with pytest.raises(ValueError, match="bad image") as caught:
        two.call(0, fail, ValueError).get(10)
    assert "in fail" in caught.value.worker_traceback
    with pytest.raises(RuntimeError, match="OfACell: 1 and 2"):
        two.call(1, fail, OfACell).get(10)
    with pytest.raises(TimeoutError):
        two.call(1, time.sleep, 0.5).get(0.01)


def test_engines_have_the_modules_of_the_notebook(local_engines, tmp_path, monkeypatch) -> None:
    """And listen on the loopback alone."""
    two = local_engines(2)
    paths = two.call(0, lambda: sys.path).get(10)
    assert {path for path in sys.path if path} <= set(paths)
    controller = psutil.Process(two._pool.pids()[0])
    family = [controller, *controller.children(recursive=True)]
    listening = [c for p in family for c in p.net_connections("tcp") if c.status == "LISTEN"]
    assert listening
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


def test_killed_engines_are_told_and_replaced(local_engines) -> None:
    two = local_engines(2)
    kept, killed = two.info(0), two.info(1)
    pending = two.call(1, time.sleep, 60)
    assert two.lost() == []
    start = time.monotonic()
    two.signal(1, signal.SIGKILL)
    assert until(two.lost) == [1]
    assert time.monotonic() - start < 10  # a heartbeat alone takes longer
    with pytest.raises(EngineLost, match=rf"^worker 1 \(.+, pid {killed.pid}\) died$") as caught:
        pending.get(10)
    assert caught.value.rank == 1
    with pytest.raises(EngineLost, match="is gone"):
        two.call(1, os.getpid)
    os.kill(kept.pid, signal.SIGKILL)  # the controller does not know when engines are asked for
    new = local_engines(2)
    assert not {new.info(rank).pid for rank in (0, 1)} & {kept.pid, killed.pid}
    assert new.call(0, os.getpid).get(10) == new.info(0).pid


def test_versions_of_engines_are_checked_before_anything_is_called(
    local_engines, monkeypatch
) -> None:
    monkeypatch.setattr("nbfinetune.cluster.hosts.__version__", "9.0")
    with pytest.raises(ClusterError, match=r"has nbfinetune .+, this notebook 9\.0; type there"):
        local_engines(2)


def test_a_missing_library_is_named_in_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ipyparallel", None)
    monkeypatch.setattr(engines_module, "_pools", [])
    with pytest.raises(ClusterError, match=r'missing; type: pip install "nbfinetune\[cluster\]"$'):
        Engines.local(2)
    assert capsys.readouterr().out == ""  # nothing is started


def start_one() -> None:
    from nbfinetune.cluster.engines import Engines

    Engines.local(1)


def test_a_worker_starts_no_workers(local_engines) -> None:
    two = local_engines(2)
    with pytest.raises(ClusterError, match=r"a worker starts no workers; .+ if __name__ == "):
        two.call(0, start_one).get(30)


def test_engines_that_are_there_have_imported_what_a_run_needs(local_engines) -> None:
    two = local_engines(2)
    needed = "nbfinetune.cluster.worker"
    assert two.call(1, eval, f"{needed!r} in __import__('sys').modules").get(10)


# A kernel: it starts an engine, says who it is, and does what it is told.
KERNEL = """
import os, sys, time
from nbfinetune.cluster import engines
from nbfinetune.cluster.engines import Engines
one = Engines.local(1, log=lambda *text, **how: None)
def begin():
    from nbfinetune.cluster import answering, owners
    answering.busy, answering.run = (lambda: True), "the run"
if "run" in sys.argv:
    one.call(0, begin).get(30)
one.stays = "stays" in sys.argv
print(*one._pool.pids(), one.info(0).pid, flush=True)
sys.stdin.readline()
"""


def kernel(*words: str, idle: float = 600) -> tuple[subprocess.Popen, list[int]]:
    """A second kernel, and the processes that it started."""
    process = subprocess.Popen(
        [sys.executable, "-c", KERNEL, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"NBFINETUNE_CLUSTER_IDLE": str(idle)},
    )
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 3
    return process, pids


def test_a_cluster_ends_with_its_kernel_and_leaves_no_file(ipython_folder) -> None:
    process, pids = kernel()
    before = len(files_of_local_clusters())
    cluster_id = psutil.Process(pids[0]).environ()["IPP_CLUSTER_ID"]
    assert len(of_cluster(cluster_id)) > 3  # the schedulers, and what watches the engine
    process.communicate("\n", timeout=30)
    assert process.returncode == 0
    assert not any(map(runs, pids))
    assert not of_cluster(cluster_id)
    assert len(files_of_local_clusters()) == before - 1
    assert not list(ipython_folder.rglob(f"*nb-{process.pid}-*"))


def test_a_killed_kernel_leaves_its_run_and_when_that_is_over_all_ends(
    ipython_folder, monkeypatch, capsys
) -> None:
    process, pids = kernel("run", idle=1.0)
    assert Engines.found() == []  # as long as that kernel lives it is its own
    process.kill()
    process.communicate()
    time.sleep(2)  # twice as long as engines wait that have no run on
    [left] = Engines.found()
    assert all(map(runs, pids))
    assert left.info(0).pid == pids[-1]
    assert left.call(0, lambda: (answering.busy(), answering.run)).get(10) == (True, "the run")
    with monkeypatch.context() as without:
        without.setattr(engines_module, "_pools", [])  # so workers of this kernel are to be started
        overview.say_what_is_left()
        with pytest.raises(ClusterError, match="earlier kernel; %attach follows it, or type: %c"):
            overview.stop_all()
    assert capsys.readouterr().out == (
        "a run of 1 worker, left by an earlier kernel, is still on: %attach follows it, "
        "%cluster --stop --force ends it\n"
    )
    left.call(0, end_of_the_run).get(10)
    until(lambda: not any(map(runs, pids)))
    until(lambda: not of_cluster(left._pool.cluster_id))
    assert Engines.found() == []
    assert not list(ipython_folder.rglob(f"*nb-{process.pid}-*"))


def end_of_the_run() -> None:
    answering.busy = lambda: False


def test_a_cluster_that_stays_is_left_and_taken_over(local_engines, monkeypatch) -> None:
    two = local_engines(2)
    pids, pool = [two.info(rank).pid for rank in (0, 1)], two._pool
    for other in [one for one in engines_module._pools if one is not pool]:
        engines_module._end(other)  # which other tests took over
    two.stays = True
    monkeypatch.setattr(engines_module, "_pools", [pool])
    engines_module._leave_all(os.getpid())  # what the end of a kernel does
    engines_module._leave_all(0)  # that of a process which the kernel forked
    assert all(map(runs, pids))
    note = owners._file(pool.folder, pool.cluster_id)
    note.write_text(note.read_text().replace(f'"pid": {os.getpid()}', '"pid": 999999999'))
    [left] = Engines.found()
    monkeypatch.undo()
    engines_module._pools.remove(pool)
    left.adopt()
    assert Engines.found() == []
    assert [local_engines(2).info(rank).pid for rank in (0, 1)] == pids
    assert not left.stays


def test_a_controller_that_was_killed_loses_all_and_is_replaced(local_engines) -> None:
    one = local_engines(1)
    psutil.Process(one._pool.pids()[0]).kill()  # its schedulers live on
    for connection in one._pool.files.values():
        assert connection["interface"] == "tcp://127.0.0.1"
    assert until(one.lost) == [0]
    new = local_engines(1)
    assert new.call(0, os.getpid).get(10) != one.info(0).pid
    assert not of_cluster(one._pool.cluster_id)


def test_many_more_workers_than_cores_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(answering, "cores", lambda: 2)
    with pytest.raises(ClusterError, match=r"9 workers on 2 cores .* give at most 8"):
        Engines.local(9)
