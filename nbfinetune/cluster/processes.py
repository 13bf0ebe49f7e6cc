"""Processes: those of this host that a cluster consists of, and how they are ended."""

from collections.abc import Iterable
from contextlib import suppress

_PATIENCE = 1.0  # s between asking and forcing; there is nothing of the user's in them to save


def started(cluster: dict) -> list[int]:
    """The numbers of the processes of this host in what ipyparallel notes of a cluster."""
    states = [cluster["controller"]["state"]] if cluster.get("controller") else []
    for engines in cluster["engines"]["sets"].values():
        states += engines.get("engines", {}).values()
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
    """End processes of ipyparallel, those that are stopped too, and all that they started."""
    import psutil

    ours = []
    for pid in filter(runs, pids):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            ours += [process, *process.children(recursive=True)]
    for force in (False, True):
        for process in ours:
            with suppress(psutil.Error):
                process.kill() if force else process.terminate()
        _, ours = psutil.wait_procs(ours, _PATIENCE)
