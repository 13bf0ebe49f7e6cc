"""Overview: which clusters there are, for `%cluster` and `learn.cluster`."""

from nbfinetune.cluster import answering
from nbfinetune.cluster.engines import Engines, there
from nbfinetune.cluster.errors import ClusterError, EngineLost
from nbfinetune.cluster.hosts import engine_row, overview_table
from nbfinetune.rendering.numbers import counted
from nbfinetune.rendering.tables import Table

_PATIENCE = 2.0  # s; an engine that is not hung answers in some ms
AT_WORK = "at work"
_LEFT = ", left by an earlier kernel"


def change(
    workers: int | None = None,
    cluster: str | None = None,
    *,
    stop: bool = False,
    force: bool = False,
) -> Table | str:
    """Start or join workers, or end them all; what there is then, or a line of what ended.

    Parameters
    ----------
    workers : that there shall be, at least 1
    cluster : a profile of ipyparallel; default: this machine
    stop : end them, see `stop_all`
    force : with `stop`

    Raises
    ------
    ValueError
        If that is no number of workers, or start and stop are asked for at once.
    ClusterError
        If it cannot be done.
    """
    starts = workers is not None or cluster is not None
    if (starts and (stop or force)) or (force and not stop):
        raise ValueError(
            "type --workers N, --cluster PROFILE or both, or --stop, or --stop --force"
        )
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; it must be 1 or more")
    if stop:
        return stop_all(force=force)
    if cluster is not None:
        Engines.of_profile(cluster, workers)
    elif workers is not None:
        say_what_is_left()
        Engines.local(workers)
    return overview()


def overview() -> Table:
    """The hosts, devices and states of the clusters of this kernel, and of those left behind."""
    rows = []
    for engines, whose in _all():
        hosts = {engines.info(rank).host for rank in range(len(engines.ids))}
        rows.append(
            (
                f"{engines.name}{whose}: {counted(len(engines.ids), 'worker')} on "
                f"{counted(len(hosts), 'host')}",
            )
        )
        for rank, state in enumerate(states(engines)):
            rows.append(engine_row(rank, engines.info(rank), state))
        engines.let_go()
    return overview_table(rows)


def _all() -> list[tuple[Engines, str]]:
    return [(e, "") for e in there()] + [(e, _LEFT) for e in Engines.found()]


def say_what_is_left() -> None:
    """Tell of runs that earlier kernels left, where this one is to start workers beside them."""
    for engines in Engines.found() if not there() else ():
        if AT_WORK in states(engines):
            print(
                f"a run of {counted(len(engines.ids), 'worker')}{_LEFT}, is still on: %attach "
                "follows it, %cluster --stop --force ends it"
            )
        engines.let_go()


def states(engines: Engines) -> list[str]:
    """What each engine is at, in the order of ranks: "ready", "at work", "no answer" or "gone"."""
    asked = []
    for rank in range(len(engines.ids)):
        try:
            asked.append(engines.call(rank, answering.is_busy))
        except EngineLost:
            asked.append(None)
    return [_state(answer) for answer in asked]


def _state(answer: object) -> str:
    try:
        return "gone" if answer is None else AT_WORK if answer.get(_PATIENCE) else "ready"
    except TimeoutError:
        return "no answer"
    except EngineLost:
        return "gone"


def stop_all(*, force: bool = False) -> str:
    """End the clusters of this kernel and those that earlier kernels left; a line says which.

    Parameters
    ----------
    force : also where a run is on, whose weights are lost then

    Raises
    ------
    ClusterError
        If a run is on.
    """
    found = _all()
    for engines, whose in found:
        if not force and AT_WORK in states(engines):
            how = "%attach follows it" if whose else "end it with %stop"
            raise ClusterError(
                f"a run is on in {engines.name}{whose}; {how}, or type: %cluster --stop --force"
            )
    said: dict[str, list[str]] = {}
    for engines, whose in found:
        name = f"{engines.name}{whose} ({counted(len(engines.ids), 'worker')})"
        what = "ended" if engines.stop() else "left, as no notebook started it"
        said.setdefault(what, []).append(name)
    lines = [f"{what}: {', '.join(names)}" for what, names in said.items()]
    return "; ".join(lines) or "there is no cluster"
