"""Processes: those of this host that a cluster consists of, and how they are ended."""

from collections.abc import Iterable
from contextlib import suppress

_PATIENCE = 1.0  # s


def started(cluster: dict) -> list[int]:
    """The numbers of the processes of this host in what ipyparallel notes of a cluster."""
    states, controller, engines = [], cluster.get("controller"), cluster["engines"]
    if controller and controller["class"].lower() == "local":  # others' numbers are of other hosts
        states.append(controller["state"])
    if engines["class"].lower() == "local":
        states += [state for each in engines["sets"].values() for state in each["engines"].values()]
    return [state["pid"] for state in states if state.get("pid", -1) > 0]


def runs(pid: int) -> bool:
    """Whether a process of ipyparallel has this number; the system gives numbers again."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return not dead and "ipyparallel" in " ".join(process.cmdline())
    return False


def end(pids: Iterable[int]) -> None:
    """End processes of ipyparallel, those that are stopped too, and all that they started.

    At once, as the end of a kernel does not wait long; they have nothing to save.
    """
    import psutil

    ours = []
    for pid in filter(runs, pids):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            ours += [process, *process.children(recursive=True)]
    for process in ours:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(ours, _PATIENCE)
