"""Hosts: what the processes of a cluster run on, and whether they fit this notebook."""

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from nbfinetune.cluster.errors import ClusterError
from nbfinetune.rendering.numbers import counted
from nbfinetune.rendering.tables import Table
from nbfinetune.version import __version__

# An expression, as it needs nothing of ours there: a function would need the same Python.
_FIRST = "next((d.version for d in __import__('importlib.metadata').metadata.distributions(name="
PROBE = (
    "{'host': __import__('socket').gethostname(), 'pid': __import__('os').getpid(), 'versions': {"
    "'Python': '%d.%d' % __import__('sys').version_info[:2], "
    f"'torch': {_FIRST}'torch')), None), 'cloudpickle': {_FIRST}'cloudpickle')), None), "
    "'nbfinetune': __import__('nbfinetune.version').version.__version__ "
    "if __import__('importlib.util').util.find_spec('nbfinetune') else None}}"
)


@dataclass(frozen=True)
class EngineInfo:
    """A process that works for a notebook, and what it has.

    Parameters
    ----------
    host : name of its machine
    pid : its process there
    versions : of Python, torch and nbfinetune there
    address : where other engines reach its host
    cores : that it may use, shared with the other engines of its host
    gpus : of its host, shared likewise
    local_rank : among the engines of its host
    device : that it trains on, "cuda:1" or "cpu"
    threads : that it computes with
    """

    host: str
    pid: int
    versions: dict[str, str]
    address: str
    cores: int
    gpus: int
    local_rank: int
    device: str
    threads: int


def our_versions() -> dict[str, str | None]:
    """The versions here of all that `PROBE` asks for there."""
    found = {"Python": "{}.{}".format(*sys.version_info)}
    for name in ("torch", "cloudpickle"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found | {"nbfinetune": __version__}


def check_versions(host: str, theirs: dict[str, str | None]) -> None:
    """Refuse an engine whose programs are of other versions: its numbers would be others.

    Builds of one version of torch, for CPUs or for GPUs, are alike; cloudpickle need only be there.

    Raises
    ------
    ClusterError
        If it has none of a package, or another version.
    """
    for name, ours in our_versions().items():
        found = theirs[name]
        here, there = ((text or "").split("+")[0] for text in (ours, found))
        if found is None:
            extra = '"nbfinetune[cluster]"' if name == "cloudpickle" else f"{name}=={here}"
            raise ClusterError(f"{host} has no {name}; type there: pip install {extra}")
        if name != "cloudpickle" and here != there:
            fix = (
                "use one Python" if name == "Python" else f"type there: pip install {name}=={here}"
            )
            raise ClusterError(f"{host} has {name} {there}, this notebook {here}; {fix}")


def local_ranks(hosts: Sequence[str]) -> list[tuple[int, int]]:
    """For each engine its place among those of its host, and their number.

    Examples
    --------
    >>> local_ranks(["a", "a", "b"])
    [(0, 2), (1, 2), (0, 1)]
    """
    return [(hosts[:i].count(host), hosts.count(host)) for i, host in enumerate(hosts)]


def engine_row(rank: int, info: EngineInfo, state: str) -> tuple[str, ...]:
    """An engine as a row of `overview_table`."""
    here = " (here)" if info.host == socket.gethostname() else ""
    threads = f"{info.threads} of {counted(info.cores, 'core')}"
    return str(rank), info.host + here, str(info.pid), info.device, threads, state


def overview_table(rows: Sequence[Sequence[str]]) -> Table:
    """Hosts, devices and states of clusters; without any, how one is started."""
    if rows:
        columns = ("worker", "host", "pid", "device", "threads", "state")
        return Table("", columns, rows, "%cluster --stop ends them")
    start = (
        ("%cluster --workers 2", "2 processes on this machine"),
        ("%cluster --cluster PROFILE", "those of a profile of ipyparallel, or joins them"),
    )
    return Table("there is no cluster", ("what you type", "what it starts"), start)
