import socket
import sys

import pytest

from nbfinetune.cluster import hosts
from nbfinetune.cluster.errors import ClusterError
from nbfinetune.cluster.hosts import (
    PROBE,
    EngineInfo,
    check_versions,
    engine_row,
    local_ranks,
    our_versions,
    overview_table,
)
from nbfinetune.version import __version__

HERE = {"Python": "3.12", "torch": "2.14.1+cpu", "cloudpickle": "3.1.3", "nbfinetune": "0.1.0"}


@pytest.fixture
def here(monkeypatch) -> None:
    monkeypatch.setattr(hosts, "our_versions", lambda: HERE)


def test_the_probe_says_of_this_process_what_it_is() -> None:
    found = eval(PROBE)
    assert found["host"] == socket.gethostname()
    assert found["versions"] == our_versions()
    assert found["versions"]["nbfinetune"] == __version__
    assert found["versions"]["Python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_builds_of_one_torch_and_any_cloudpickle_are_alike(here) -> None:
    check_versions("node7", HERE | {"torch": "2.14.1+cu126", "cloudpickle": "2.0"})


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"torch": "2.13.0"}, "node7 has torch 2.13.0, this notebook 2.14.1; type there: "
                              "pip install torch==2.14.1"),
        ({"nbfinetune": "0.0.9"}, "node7 has nbfinetune 0.0.9, this notebook 0.1.0; "
                                  "type there: pip install nbfinetune==0.1.0"),
        ({"Python": "3.11"}, "node7 has Python 3.11, this notebook 3.12; use one Python"),
        ({"nbfinetune": None}, "node7 has no nbfinetune; type there: pip install nbfinetune==0.1"),
        ({"cloudpickle": None}, 'node7 has no cloudpickle; type there: pip install "nbfinetune[c'),
    ],
)  # fmt: skip
def test_other_versions_are_refused_with_host_and_both(here, theirs, message) -> None:
    with pytest.raises(ClusterError) as caught:
        check_versions("node7", HERE | theirs)
    assert str(caught.value).startswith(message)


def test_engines_of_a_host_are_numbered_among_themselves() -> None:
    assert local_ranks(["a", "a", "a", "b"]) == [(0, 3), (1, 3), (2, 3), (0, 1)]


def test_a_table_names_worker_host_device_threads_and_state() -> None:
    info = EngineInfo("node7", 41, {}, "10.0.0.7", 16, 4, 1, "cuda:1", 4)
    text = repr(overview_table([("profile slurm: 1 worker",), engine_row(1, info, "at work")]))
    assert [line.split() for line in text.splitlines()] == [
        ["worker", "host", "pid", "device", "threads", "state"],
        ["profile", "slurm:", "1", "worker"],
        ["1", "node7", "41", "cuda:1", "4", "of", "16", "cores", "at", "work"],
        ["%cluster", "--stop", "ends", "them"],
    ]


def test_without_a_cluster_the_table_says_what_to_type() -> None:
    assert repr(overview_table([])).splitlines()[0] == "there is no cluster"
    assert "%cluster --workers 2" in repr(overview_table([]))
