"""Processes: those of this host that a cluster consists of, and how they are ended."""

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from nbfinetune.cluster import answering
from nbfinetune.cluster.errors import ClusterError
from nbfinetune.rendering.numbers import counted

if TYPE_CHECKING:
    import psutil

_PATIENCE = 1.0  # s
_TRIES = 3
_MOST = 4  # workers for each core


def environment(n: int) -> dict[str, str]:
    """What n local engines get: the notebook's modules, and their share of the threads."""
    threads = max(1, answering.cores() // n)
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    # Python would look into the working folder first, and may find another nbfinetune there.
    alone = {"PYTHONPATH": places, "PYTHONSAFEPATH": "1"}
    return alone | {"OMP_NUM_THREADS": str(threads)}


def check_number(n: int) -> None:
    """Refuse many more workers on this host than it has cores."""
    most = _MOST * answering.cores()
    if n > most:
        raise ClusterError(
            f"{n} workers on {counted(answering.cores(), 'core')} hinder each other, and take "
            f"some 0.75 GB each: give at most {most}, or a --cluster of other machines"
        )


def started(cluster: dict) -> list[int]:
    """The numbers of the processes of this host in what ipyparallel notes of a cluster."""
    states, controller, engines = [], cluster.get("controller"), cluster["engines"]
    if controller and controller["class"].lower() == "local":  # others' numbers are of other hosts
        states.append(controller["state"])
    if engines["class"].lower() == "local":
        states += [state for each in engines["sets"].values() for state in each["engines"].values()]
    return [state["pid"] for state in states if state.get("pid", -1) > 0]


def controller_ended(cluster: dict) -> bool:
    """Whether the controller is of this host and its process is gone; its port may still be open.

    Its schedulers are forks of it, which have the port too.
    """
    about = cluster.get("controller")
    local = about and about["class"].lower() == "local"
    return bool(local) and not runs(about["state"]["pid"])


def runs(pid: int) -> bool:
    """Whether a process of ipyparallel has this number; the system gives numbers again."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return not dead and "ipyparallel" in " ".join(process.cmdline())
    return False


def of_cluster(cluster_id: str) -> list["psutil.Process"]:
    """The processes of this host that belong to a cluster: also those whose parent was killed.

    ipyparallel gives the cluster's name to each in its environment.
    """
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # of another user, or gone
            ours = "ipyparallel" in " ".join(process.cmdline())
            if ours and process.environ().get("IPP_CLUSTER_ID") == cluster_id:
                found.append(process)
    return found


def end(cluster_id: str) -> None:
    """End the processes of a cluster on this host, those that are stopped too.

    At once, as the end of a kernel does not wait long; they have nothing to save. Again, as one
    that is just starting starts others.
    """
    import psutil

    for _ in range(_TRIES):
        if not (ours := of_cluster(cluster_id)):
            return
        for process in ours:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(ours, _PATIENCE)
