"""Worker: the functions that a notebook calls in an engine, about runs.

A run is in a thread of its own, so the engine answers all the time; and it outlives the notebook
that began it.
"""

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from nbfinetune.cluster import answering
from nbfinetune.cluster.runs.checkpoint_relay import SentCheckpoint
from nbfinetune.cluster.runs.engine_run import EngineRun, Failure, Kept
from nbfinetune.cluster.travel.calls import unpack
from nbfinetune.cluster.travel.results import pack_result
from nbfinetune.history.runs import Run
from nbfinetune.training.spmd.world import World

_PATIENCE = 3.0  # s in which a call ends whose peer is gone
_LOOK = 0.02  # s
_runs: dict[str, EngineRun] = {}  # the newest alone, of which a later notebook may ask


@dataclass(frozen=True)
class State:
    """How a run is, in one worker.

    Parameters
    ----------
    over : whether it has ended, and all its events were read
    failure : what ended it, None if nothing has or it went well
    """

    over: bool
    failure: Failure | None


@dataclass(frozen=True)
class Snapshot:
    """What a learner is after the last whole step, though other workers are gone.

    Parameters
    ----------
    stage : the newest one, None if none began
    n_steps : its training steps
    within : whether the run is still on, waiting for a worker that is gone
    result : what it changed of the learner
    """

    stage: Run | None
    n_steps: int
    within: bool
    result: bytes


def busy() -> bool:
    """Whether a run is on here."""
    return any(not run.over for run in _runs.values())


answering.busy = busy


def free_port(address: str) -> int:
    """A port of this host on which nothing listens."""
    with socket.socket() as made:
        made.bind((address, 0))
        return made.getsockname()[1]


def start(
    run_id: str,
    rank: int,
    size: int,
    address: tuple[str, int],
    device: str,
    about: Mapping[str, Any],
    kept: Kept,
    content: bytes,
    keys: Mapping[str, str],
) -> None:
    """Begin a run here, in a thread.

    Parameters
    ----------
    address : where the first worker listens
    device : that it trains on
    about : what a notebook that comes later has to know of it
    content, keys : of the call, and of its data

    Raises
    ------
    RuntimeError
        If another run is on.
    """
    if busy():
        raise RuntimeError("another run is on")
    _runs.clear()
    join = partial(World.join, rank, size, address, device=device)
    arrive = partial(unpack, content, keys, device=torch.device(device))
    _runs[run_id] = EngineRun(dict(about), rank, kept, join, arrive)


def poll(
    run_id: str, since: int, wait: float, requests: Mapping[str, Any] | None = None
) -> tuple[list[bytes], State]:
    """The events from number `since` on, and how the run is; waits for one of both to change.

    Parameters
    ----------
    wait : seconds at most
    requests : what is asked of the run, see `World.wanted`; of the first worker only
    """
    run = _runs[run_id]
    if requests:
        run.ask(requests)
    events = run.log.since(since, wait)
    over = run.log.all_read(since + len(events))
    return events, State(over, run.failure if over else None)


def ask(run_id: str, requests: Mapping[str, Any]) -> None:
    """Ask something of the run, see `World.wanted`."""
    _runs[run_id].ask(requests)


def note(run_id: str, about: Mapping[str, Any]) -> None:
    """What a later notebook has to know besides."""
    _runs[run_id].about |= about


def hangs() -> bool:
    """Whether a run does not end here, though it should; waits some seconds for it."""
    until = time.monotonic() + _PATIENCE
    while busy() and time.monotonic() < until:
        time.sleep(_LOOK)
    return busy()


def checkpoint(run_id: str, number: int) -> tuple[SentCheckpoint | None, dict[str, str]]:
    """A checkpoint, None once there is a newer one; and the files of what was written before."""
    relay = _runs[run_id].relay
    return relay.fetch(number), relay.written


def acknowledge(run_id: str, number: int, written: Mapping[str, str]) -> None:
    """A checkpoint was written, into these files."""
    _runs[run_id].relay.acknowledge(number, written)


def result(run_id: str, everything: bool) -> dict[str, Any]:
    """What a run gave that went well, and what it changed of the learner.

    Parameters
    ----------
    everything : for a learner that did not send the call, whatever changed
    """
    run = _runs[run_id]
    if everything and run.outcome:
        run.outcome["result"] = pack_result(run.arrived, run.value, everything=True)
    return run.outcome or {}


def snapshot(run_id: str, everything: bool) -> Snapshot | None:
    """What the learner is after the last whole step; None if it did not arrive."""
    run = _runs[run_id]
    until = time.monotonic() + _PATIENCE
    while not run.over and time.monotonic() < until:  # its exchange may just be failing
        time.sleep(_LOOK)
    if run.arrived is None:
        return None
    within = not run.over
    run.arrived.learn.recorder.flush() if run.stage else None
    content = pack_result(run.arrived, everything=everything)
    return Snapshot(run.stage, run.n_steps, within, content)


def runs() -> dict[str, dict[str, Any]]:
    """The run that is here, on or over, with what is to be known of it."""
    return {run_id: run.about | {"over": run.over} for run_id, run in _runs.items()}


def history(run_id: str) -> list[Run]:
    """The stages of the learner that were over when the run began."""
    arrived = _runs[run_id].arrived
    return [] if arrived is None else arrived.learn.recorder.runs[: arrived.n_runs]


def forget(run_id: str) -> None:
    """Give its memory back."""
    _runs.pop(run_id, None)
