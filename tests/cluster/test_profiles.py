"""Clusters of profiles: started by hand, and by the launcher of Slurm through stand-ins."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nbfinetune.cluster import engines as engines_module
from nbfinetune.cluster import security
from nbfinetune.cluster.engines import Engines
from nbfinetune.cluster.errors import ClusterError
from nbfinetune.cluster.overview import stop_all
from nbfinetune.cluster.processes import of_cluster

PROGRAMS = {
    "sbatch": """
echo sbatch >> {log}
setsid sh "$1" > {log}.job 2>&1 < /dev/null &
echo $! > {log}.pid
echo Submitted batch job 4711
""",
    "srun": 'for rank in 1 2; do "$@" & done; wait\n',
    "scancel": 'echo scancel "$@" >> {log}; kill -TERM -$(cat {log}.pid)\n',
    "squeue": "echo 4711\n",
}


def profile(folder: Path, name: str, **files: str) -> Path:
    """A profile with some configuration."""
    home = folder / f"profile_{name}"
    home.mkdir(exist_ok=True)
    for file, text in files.items():
        (home / f"{file}_config.py").write_text(text)
    return home


@pytest.fixture
def slurm(ipython_folder: Path, tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A profile of Slurm, and what its programs note."""
    log = tmp_path / "log"
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text("#!/bin/sh\n" + text.format(log=log))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)  # ipyparallel writes the script into the working folder
    text = 'c = get_config()\nc.Cluster.engine_launcher_class = "slurm"\nc.Cluster.n = 2\n'
    profile(ipython_folder, "slurm", ipcluster=text)
    yield log
    for pool in [pool for pool in engines_module._pools if pool.profile == "slurm"]:
        engines_module._end(pool)


def test_slurm_starts_engines_and_cancels_them(slurm: Path, capsys) -> None:
    two = Engines.of_profile("slurm")
    said = r"starting the workers of profile slurm: 2 in \d+ s\n"
    assert re.fullmatch(said, capsys.readouterr().out)
    assert [two.info(rank).local_rank for rank in (0, 1)] == [0, 1]
    assert Engines.of_profile("slurm", 1).ids == two.ids[:1]  # joined
    assert len({two.call(rank, os.getpid).get(10) for rank in (0, 1)}) == 2
    with pytest.raises(ClusterError, match="profile slurm has 2 workers, 3 wanted"):
        Engines.of_profile("slurm", 3)
    pids = [two.info(rank).pid for rank in (0, 1)]
    two.stop()
    assert slurm.read_text() == "sbatch\nscancel 4711\n"
    _, left = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 10)
    assert not left
    assert not of_cluster(two._pool.cluster_id)


def test_a_program_of_slurm_that_is_missing_is_named(slurm: Path, monkeypatch, capsys) -> None:
    (slurm.parent / "sbatch").unlink()
    with pytest.raises(ClusterError, match=r"profile slurm did not start: .*'sbatch'"):
        Engines.of_profile("slurm")
    assert not [pool for pool in engines_module._pools if pool.profile == "slurm"]


def test_profiles_that_cannot_start_say_what_to_type(ipython_folder: Path) -> None:
    with pytest.raises(ClusterError, match=r"no profile 'no' in .+; type: ipython profile create"):
        Engines.of_profile("no")
    profile(ipython_folder, "empty")
    with pytest.raises(ClusterError, match="type in a terminal: ipcluster start --profile=empty"):
        Engines.of_profile("empty")


def started(*words: str, **environment: str) -> subprocess.Popen:
    """A program of ipyparallel, as in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=environment.get("PYTHONPATH"),  # which Python searches first
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | environment,
    )


@pytest.fixture
def by_hand(ipython_folder: Path, tmp_path: Path) -> Iterator[dict[str, int]]:
    """A controller with encryption, an engine, and one with another version of this package."""
    profile(ipython_folder, "hand")
    other = tmp_path / "nbfinetune"
    other.mkdir()
    (other / "__init__.py").write_text("")
    (other / "version.py").write_text("__version__ = '0'")
    processes = [
        started("ipyparallel.controller", "--profile=hand", "--IPController.enable_curve=True"),
        started("ipyparallel.engine", "--profile=hand", "--IPEngine.wait_for_url_file=30"),
        started(
            "ipyparallel.engine",
            "--profile=hand",
            "--IPEngine.wait_for_url_file=30",
            PYTHONPATH=str(tmp_path),
        ),
    ]
    yield dict(zip(("controller", "engine", "other"), (p.pid for p in processes), strict=True))
    for process in processes:
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            one.kill()
        process.wait(10)


def test_a_cluster_started_by_hand_is_joined_and_left_alone(by_hand, monkeypatch, caplog) -> None:
    import ipyparallel

    with ipyparallel.Client(profile="hand", timeout=30) as client:
        client.wait_for_engines(2, timeout=60, interactive=False)
    with pytest.raises(ClusterError, match=f"{socket.gethostname()} has nbfinetune 0, this noteb"):
        Engines.of_profile("hand")
    os.kill(by_hand["other"], signal.SIGKILL)
    caplog.clear()
    one = Engines.of_profile("hand")
    assert one.info(0).pid == by_hand["engine"]
    assert one._pool.files["client"]["curve_serverkey"]
    assert "not recommended" not in caplog.text
    monkeypatch.setattr(security.socket, "gethostname", lambda: "laptop")
    assert Engines.of_profile("hand").info(0).pid == by_hand["engine"]  # elsewhere, encrypted
    monkeypatch.undo()
    engines_module._pools.remove(one._pool)
    monkeypatch.setattr(engines_module, "_pools", [one._pool])  # not those of other tests
    assert stop_all() == "left, as no notebook started it: profile hand (1 worker)"
    assert psutil.pid_exists(by_hand["engine"])
    assert psutil.pid_exists(by_hand["controller"])
