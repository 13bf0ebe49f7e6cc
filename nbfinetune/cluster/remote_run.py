"""Remote run: a call of a learner that workers do, and what the notebook has to do with it."""

import secrets
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from nbfinetune.cluster import worker
from nbfinetune.cluster.data.giving import give_all
from nbfinetune.cluster.engines import Engines
from nbfinetune.cluster.errors import ClusterError, EngineLost
from nbfinetune.cluster.overview import say_what_is_left
from nbfinetune.cluster.runs.device_memory import given_up
from nbfinetune.cluster.runs.engine_run import Kept
from nbfinetune.cluster.runs.failures import WorkerLost
from nbfinetune.cluster.runs.following import Following
from nbfinetune.cluster.runs.replay import Replay
from nbfinetune.cluster.runs.sent_folder import ANSWER, GoingOn, SentFolder, split_states
from nbfinetune.cluster.travel.calls import Parcel, pack_call
from nbfinetune.training.resuming.description import description
from nbfinetune.training.resuming.keeper import Keeper
from nbfinetune.training.resuming.runs_root import runs_folder
from nbfinetune.training.state import Callback, LearnerState, as_callbacks

_IDLE = 10.0  # s in which the workers of a run that was left stop


def run(
    learn: LearnerState,
    function: Callable,
    given: dict[str, Any],
    workers: int | None,
    cluster: str | None,
) -> object:
    """Do a call of a learner in workers; see `training.spmd.spread.Runner`."""
    method = f"{function.__module__}.{function.__name__}"
    keeper: Keeper | None = learn.keeper
    parcel = pack_call(learn, method, given)  # what cannot travel is refused before anything starts
    if cluster is None:
        say_what_is_left()
    engines = Engines.local(workers) if cluster is None else Engines.of_profile(cluster, workers)
    about = {"method": method, "is_fit": keeper is not None, "description": None}
    if keeper is not None:
        about |= {"description": description(learn), "name": keeper.method, "every": keeper.every}
    own = [*(learn.cbs if keeper is not None else ()), *as_callbacks(given.get("cbs", ()))]
    console = [cb for cb in own if cb.runs_on == "console"]
    with given_up(learn):
        run_id = f"{time.time_ns()}-{secrets.token_hex(4)}"
        engines.stays, stayed = True, engines.stays  # a kernel that is restarted leaves the run
        try:
            start(engines, run_id, parcel, about, kept_of(learn, console))
            return follow(learn, engines, run_id, console, parcel, is_fit=keeper is not None)
        finally:
            engines.stays = stayed


def wait_until_idle(engines: Engines) -> None:
    """Return when no run is on in the engines.

    Raises
    ------
    ClusterError
        If one is, and goes on.
    """
    until = time.monotonic() + _IDLE
    asked = {rank: engines.call(rank, worker.busy) for rank in range(len(engines.ids))}
    while True:
        busy = [rank for rank, pending in asked.items() if pending.get(ANSWER)]
        if not busy:
            return
        if time.monotonic() > until:
            raise ClusterError(
                "another run is on in these workers: wait for it, type %attach to follow it, or "
                "%cluster --stop to end it"
            )
        time.sleep(0.1)
        asked = {rank: engines.call(rank, worker.busy) for rank in busy}


def kept_of(learn: LearnerState, console: list[Callback]) -> Kept:
    """What the first worker does with the run folder of the call that is on.

    Callbacks of the console go on here, by another one that is put behind them.
    """
    keeper: Keeper | None = learn.keeper
    if keeper is None:
        return Kept()
    off = keeper.off or runs_folder() is None
    record = None if off else {"weights": keeper.starts_new}
    resumed, keeper.resumed = keeper.resumed, None
    every = 0 if off else keeper.every
    if resumed is None or resumed.tree is None:
        return Kept(record, every)
    tree = {k: v for k, v in resumed.tree.items() if k not in ("runs", "marks", "features")}
    tree["callbacks"], here = split_states(tree["callbacks"])
    console.append(GoingOn(list(console), here))
    return Kept(record, every, tree, resumed.tree["first_run"], resumed.run)


def start(
    engines: Engines,
    run_id: str,
    parcel: Parcel,
    about: Mapping[str, Any],
    kept: Kept,
) -> None:
    """Let all workers begin.

    Raises
    ------
    WorkerLost, ClusterError
        If one is gone, or busy; no other one waits for it then.
    """
    try:
        wait_until_idle(engines)
        keys = give_all(engines, parcel.data)
        _start(engines, run_id, parcel, keys, about, kept)
    except EngineLost as error:
        for rank in range(len(engines.ids)):
            with suppress(Exception):
                if engines.call(rank, worker.busy).get(ANSWER):  # it waits for the one that is gone
                    engines.signal(rank, signal.SIGKILL)
        raise WorkerLost(
            f"{error} before its first step; nothing was changed; do it again, it has new workers"
        ) from None


def _start(
    engines: Engines,
    run_id: str,
    parcel: Parcel,
    keys: Mapping[str, str],
    about: Mapping[str, Any],
    kept: Kept,
) -> None:
    size, first = len(engines.ids), engines.info(0)
    address = first.address, engines.call(0, worker.free_port, first.address).get(ANSWER)
    begun = [
        engines.call(
            rank,
            worker.start,
            run_id,
            rank,
            size,
            address,
            engines.info(rank).device,
            {**about, "rank": rank, "size": size},
            kept,
            parcel.content,
            keys,
        )
        for rank in range(size)
    ]
    for pending in begun:
        pending.get(ANSWER)


def follow(
    learn: LearnerState,
    engines: Engines,
    run_id: str,
    console: list[Callback],
    parcel: Parcel | None,
    *,
    is_fit: bool,
) -> object:
    """Go along with a run to its end; see `Following`."""
    keeper: Keeper | None = learn.keeper
    folder = None if keeper is None else SentFolder(learn, keeper, engines, run_id, console)
    replay = Replay(learn, console, folder.open if folder else lambda: None)
    following = Following(
        learn,
        engines,
        run_id,
        replay,
        parcel,
        is_fit=is_fit,
        on_checkpoint=folder.write if folder else lambda number: None,
        go_on=folder.go_on if folder else lambda: "do it again; it has new workers then",
    )
    return following.to_its_end()
