"""Watching: the notebook's look at a run in workers: its events, its requests, who is gone.

Only the first worker is asked all the time: its steps are those of all, so none is gone while it
goes on. Where it is silent for a while, all are asked. So it costs the same for any number of them.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

from nbfinetune.cluster import worker
from nbfinetune.cluster.engines import Engines
from nbfinetune.cluster.errors import ClusterError, EngineLost
from nbfinetune.cluster.pending import Pending
from nbfinetune.cluster.runs.engine_run import Failure
from nbfinetune.cluster.worker import State

HEARTBEAT = 30.0  # s in which a worker that lives answers, or NBFINETUNE_HEARTBEAT
_WAIT = 0.1  # s that the first worker waits for an event before it answers, and hears requests
_SILENT = 2.0  # s without an event after which all workers are asked
_MANY = 100  # questions to others a second, at most, about
_LOOK = 0.005  # s between two looks at answers
_GRACE = 3.0  # s in which it is known who is gone, after an exchange has failed


def heartbeat() -> float:
    """Seconds in which a worker must answer."""
    return float(os.environ.get("NBFINETUNE_HEARTBEAT", HEARTBEAT))


class Broken(Exception):
    """The run cannot go on.

    Attributes
    ----------
    gone : the workers that are lost
    what : what they did: "died", or that they do not answer
    failures : what the others ended with
    """

    def __init__(self, gone: set[int], what: str, failures: dict[int, Failure]) -> None:
        super().__init__(what)
        self.gone, self.what, self.failures = gone, what, failures


class Watch:
    """Asks the workers about one run.

    Attributes
    ----------
    since : number of events read
    """

    def __init__(self, engines: Engines, run_id: str) -> None:
        self.engines, self.run_id, self.since = engines, run_id, 0
        self.over = False
        self._requests: dict[str, Any] = {}
        self._first: tuple[Pending, float] | None = None
        self._others: dict[int, tuple[Pending, float]] = {}
        self._asked_all = self._heard = time.monotonic()

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self.engines.ids)

    def request(self, **requests: Any) -> None:
        """Ask something of the run; it goes with the next question."""
        self._requests |= requests

    def events(self) -> list[bytes]:
        """New events, [] if there are none yet; waits some ms.

        Raises
        ------
        Broken
            If a worker is gone, or has failed.
        """
        if lost := self.engines.lost():
            raise Broken(set(lost), self._how(lost), {})
        events, state = self._ask_first()
        if events:
            self._heard = time.monotonic()
        if state is not None and state.failure is not None:
            raise self._broken({0: state.failure})
        if state is not None and state.over:
            self.over = True
        elif not events:
            self._ask_others()
        return events

    def _how(self, lost: list[int]) -> str:
        all_of_them = len(lost) == self.size > 1
        return "cannot be reached, as their controller is gone," if all_of_them else "died"

    def _ask_first(self) -> tuple[list[bytes], State | None]:
        if self._first is None:
            requests, self._requests = self._requests, {}
            self._first = self._call(0, self.since, _WAIT, requests), time.monotonic()
        pending, asked = self._first
        until = time.monotonic() + _LOOK * 4
        while not pending.ready() and time.monotonic() < until:
            time.sleep(_LOOK)
        if not pending.ready():
            if time.monotonic() - asked > _WAIT + heartbeat():
                raise self._silent({0})
            return [], None
        self._first = None
        events, state = self._answer(0, pending)
        self.since += len(events)
        return events, state

    def _ask_others(self) -> None:
        """Where the first one is silent: whether all answer, and none has failed."""
        now = time.monotonic()
        pause = max(_SILENT, self.size / _MANY)
        if not self._others and now - max(self._heard, self._asked_all) > min(pause, heartbeat()):
            self._asked_all = now
            self._others = {r: (self._call(r, 0, 0.0), now) for r in range(1, self.size)}
        for rank, (pending, asked) in list(self._others.items()):
            if pending.ready():
                del self._others[rank]
                _, state = self._answer(rank, pending)
                if state.failure is not None:
                    raise self._broken({rank: state.failure})
            elif now - asked > heartbeat():
                raise self._silent({r for r, (_, when) in self._others.items() if when == asked})

    def _call(self, rank: int, since: int, wait: float, requests: dict | None = None) -> Pending:
        try:
            return self.engines.call(rank, worker.poll, self.run_id, since, wait, requests)
        except EngineLost:
            raise Broken({rank}, "died", {}) from None

    def _answer(self, rank: int, pending: Pending) -> tuple[list[bytes], State]:
        try:
            return pending.get(_GRACE)
        except EngineLost:
            raise self._broken({}, {rank}) from None
        except KeyError:
            raise ClusterError(
                f"worker {rank} knows nothing of this run; another notebook has begun one there"
            ) from None

    def _silent(self, ranks: set[int]) -> Broken:
        return Broken(ranks, f"did not answer for {heartbeat():.0f} s", {})

    def _broken(self, failures: dict[int, Failure], gone: set[int] = frozenset()) -> Broken:
        """Hear all, as an exchange fails in those that did nothing wrong."""
        until = time.monotonic() + _GRACE
        gone, asked = set(gone), {}
        for rank in set(range(self.size)) - set(failures) - gone:
            try:
                asked[rank] = self._call(rank, 0, _GRACE)
            except Broken:
                gone.add(rank)
        while asked and time.monotonic() < until + heartbeat():
            gone |= set(self.engines.lost())
            for rank, pending in list(asked.items()):
                if rank in gone:
                    del asked[rank]
                elif pending.ready():
                    del asked[rank]
                    try:
                        _, state = pending.get(_GRACE)
                    except EngineLost:
                        gone.add(rank)
                        continue
                    if state.failure is not None:
                        failures[rank] = state.failure
            if gone:
                break
            time.sleep(_LOOK)
        # A process that was killed is known to be some tenths of a second later.
        while not gone and all(f.broken for f in failures.values()) and time.monotonic() < until:
            gone |= set(self.engines.lost())
            time.sleep(_LOOK)
        if gone or not asked:
            return Broken(gone, self._how(list(gone)), failures)
        return Broken(set(asked), f"did not answer for {heartbeat():.0f} s", failures)

    def rest(self) -> Iterator[bytes]:
        """The events of the first worker that were not read, as far as it still answers."""
        try:
            while True:
                events, _ = self._answer_within(0, self.since)
                if not events:
                    return
                self.since += len(events)
                yield from events
        except (Broken, EngineLost, TimeoutError, ClusterError):
            return

    def _answer_within(self, rank: int, since: int) -> tuple[list[bytes], State]:
        return self._call(rank, since, 0.0).get(_GRACE)
