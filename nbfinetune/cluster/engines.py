"""Engines: processes that work for a notebook, by rank."""

import atexit
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from nbfinetune.cluster import answering, owners, processes, security
from nbfinetune.cluster.errors import ClusterError, EngineLost
from nbfinetune.cluster.hosts import PROBE, EngineInfo, check_versions, local_ranks
from nbfinetune.cluster.pending import Pending
from nbfinetune.cluster.pools import Pool, check_installed
from nbfinetune.cluster.profiles import (
    LOCAL,
    check_starts,
    files_of_local_clusters,
    security_folder,
)
from nbfinetune.rendering.numbers import counted

# s without a call after which engines that have no run on end: their notebook is gone.
IDLE = float(os.environ.get("NBFINETUNE_CLUSTER_IDLE", 600))
_PATIENCE = 120.0  # s; an engine starts in some 3 on a machine that is free
_REPLY = 60.0  # s, of which the first import of torch takes most
_SEEN = 1.0  # s between two looks at a controller
_lock = threading.RLock()
_pools: list[Pool] = []  # of this kernel, which ends them
_keeping = threading.Event()


class Engines:
    """Processes that work for this notebook.

    Made by `local`, `of_profile` or `found`.

    Attributes
    ----------
    ids : the engines' numbers in the order of ranks, those of a host side by side
    """

    def __init__(self, pool: Pool) -> None:
        self._pool, self.ids, self._infos, self._seen = pool, [], {}, (0.0, True)

    @classmethod
    def local(cls, n: int, *, log: Callable[..., object] = print) -> "Engines":
        """n processes on this machine: those of before, as far as they live, and new ones.

        They end with this kernel, or `IDLE` s after it was killed.

        Parameters
        ----------
        log : prints a line, where any are started; takes what print takes

        Raises
        ------
        ClusterError
            If they do not come; or ipyparallel is missing.
        """
        check_installed()
        answering.check_is_no_engine()
        processes.check_number(n)
        with _lock:
            pool, start = _living(LOCAL) or Pool(LOCAL, _new_id()), time.monotonic()
            missing = n - len(pool.ids)
            try:
                if missing > 0:
                    log(f"starting {counted(missing, 'worker')}: ", end="", flush=True)
                    _started(pool, missing, processes.environment(n))
                return cls(pool)._take(n)
            except EngineLost:  # just now, which the controller knows by this
                pass
            finally:
                if missing > 0:
                    log(f"{time.monotonic() - start:.0f} s")
        return cls.local(n, log=log)

    @classmethod
    def of_profile(
        cls, profile: str, n: int | None = None, *, log: Callable[..., object] = print
    ) -> "Engines":
        """The engines of a profile of ipyparallel: of a cluster that runs, else started by it.

        Parameters
        ----------
        n : engines; default: all that there are, or as many as the profile says

        Raises
        ------
        ClusterError
            If there is no such profile, it has too few engines, or sends in clear off one host.
        """
        check_installed()
        answering.check_is_no_engine()
        with _lock:
            pool = _living(profile) or _running(profile)
            if pool is None:
                check_starts(profile)
                pool, start = Pool(profile, _new_id()), time.monotonic()
                log(f"starting the workers of profile {profile}: ", end="", flush=True)
                _started(pool, n, {})
                log(f"{len(pool.ids)} in {time.monotonic() - start:.0f} s")
            if len(pool.ids) < (n or 1):
                raise ClusterError(
                    f"{pool.name} has {counted(len(pool.ids), 'worker')}, {n or 1} wanted; "
                    f"type in a terminal: ipengine --profile={profile}, or give a smaller number"
                )
            try:
                return cls(pool)._take(n)
            except EngineLost:
                return cls.of_profile(profile, n, log=log)

    @classmethod
    def found(cls) -> "list[Engines]":
        """The local clusters that earlier kernels left behind, the newest first.

        They go on by themselves, and `adopt` makes one this kernel's.
        """
        left = []
        for file in files_of_local_clusters():
            cluster_id = file.stem.removeprefix("cluster-")
            if owners.owner(file.parent, cluster_id) == "gone":
                pool = Pool(LOCAL, cluster_id)
                if pool.load() and pool.ids:
                    left.append(cls(pool)._take(None, answering.settled))
                else:
                    pool.end()
        return left

    def adopt(self) -> None:
        """Make the cluster this kernel's: it is used by `local`, and ends with it."""
        with _lock:
            _own(self._pool)

    def let_go(self) -> None:
        """Leave the cluster as it is, where it was found and is not adopted."""
        if self._pool not in _pools:
            self._pool.close()

    @property
    def stays(self) -> bool:
        """Whether the cluster outlives an orderly end of the kernel, as for a run in it."""
        return self._pool.stays

    @stays.setter
    def stays(self, value: bool) -> None:
        self._pool.stays = value

    @property
    def name(self) -> str:
        """What the cluster is called: "local", or its profile."""
        return self._pool.name

    def _take(self, n: int | None, settle: Callable = answering.settle) -> "Engines":
        """Take the first n engines, check versions, and share out threads and devices."""
        ids = self._pool.ids
        asked = [self._pool.call(i, i, f"of {self.name}", eval, PROBE) for i in ids]
        about = {i: answer.get(_REPLY) for i, answer in zip(ids, asked, strict=True)}
        self.ids = sorted(ids, key=lambda i: (about[i]["host"], i))[:n]
        if len(self.ids) < (n or 1):
            raise EngineLost(len(self.ids), f"of {self.name} died")
        for i in self.ids:
            check_versions(about[i]["host"], about[i]["versions"])
        hosts = [about[i]["host"] for i in self.ids]
        controller = security.check_engines(self.name, self._pool.files, hosts)
        places = enumerate(local_ranks(hosts))
        calls = [self.call(rank, settle, *place, controller) for rank, place in places]
        for i, call in zip(self.ids, calls, strict=True):
            self._infos[i] = EngineInfo(**about[i], **call.get(_REPLY))
        known = {i: info for i, info in self._pool.infos.items() if i in ids} | self._infos
        self._pool.infos = dict(sorted(known.items(), key=lambda item: (item[1].host, item[0])))
        return self

    def call(self, rank: int, function: Callable, *args: object) -> Pending:
        """Call a function in an engine, while this goes on; all travels by cloudpickle.

        Raises
        ------
        EngineLost
            If the engine is gone.
        """
        return self._pool.call(self.ids[rank], rank, self._where(rank), function, *args)

    def _where(self, rank: int) -> str:
        info = self._infos.get(self.ids[rank])
        return f"({info.host}, pid {info.pid})" if info else f"of {self.name}"

    def info(self, rank: int) -> EngineInfo:
        """What an engine has; it was asked when it was taken."""
        return self._infos[self.ids[rank]]

    def lost(self) -> list[int]:
        """The ranks whose engine is gone; all of them where the controller is."""
        when, runs = self._seen
        if time.monotonic() > when + _SEEN:
            self._seen = time.monotonic(), (runs := self._pool.controller_runs())
        there = set(self._pool.ids if runs else ())
        return [rank for rank, i in enumerate(self.ids) if i not in there]

    def signal(self, rank: int, sig: int) -> None:
        """Send a signal to an engine."""
        self._pool.signal(self.ids[rank], sig)

    def stop(self) -> bool:
        """End the cluster, or leave it where no notebook started it; returns whether it ended."""
        with _lock:
            return _end(self._pool)


def there() -> list[Engines]:
    """The clusters of this kernel, with the engines of each that were used."""
    found = []
    for pool in _pools:
        found.append(Engines(pool))
        found[-1].ids, found[-1]._infos = list(pool.infos), pool.infos
    return found


def _living(profile: str) -> Pool | None:
    """This kernel's cluster of a profile; one whose controller is gone is ended."""
    for pool in [pool for pool in _pools if pool.profile == profile]:
        if pool.controller_runs():
            return pool
        _end(pool)
    return None


def _new_id() -> str:
    return f"nb-{os.getpid()}-{time.time_ns() // 10**6}"


def _started(pool: Pool, n: int | None, environment: dict[str, str]) -> None:
    """Start engines of a cluster of this kernel; where the first do not come, nothing is left."""
    new = pool not in _pools
    try:
        pool.start(n, environment, _PATIENCE)
    except BaseException as error:
        if new:
            pool.end()
        if isinstance(error, ClusterError) or not isinstance(error, Exception):
            raise
        raise ClusterError(f"{pool.name} did not start: {error}") from None
    _own(pool)


def _running(profile: str) -> Pool | None:
    """The cluster of a profile that answers and is of no other kernel; the newest."""
    folder = security_folder(profile)
    files = folder.glob("ipcontroller*-client.json")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        cluster_id = file.stem.removeprefix("ipcontroller").removesuffix("-client").lstrip("-")
        pool, owner = Pool(profile, cluster_id), owners.owner(folder, cluster_id)
        if owner != "other" and pool.load():
            if owner == "gone":
                _own(pool)
            elif pool not in _pools:
                _pools.append(pool)
            return pool
        if owner == "gone":
            pool.end()
    return None


def _own(pool: Pool) -> None:
    """Make a cluster this kernel's, and let its engines end when this kernel does not call."""
    owners.own(pool.folder, pool.cluster_id)
    if pool not in _pools:
        _pools.append(pool)
    for i in pool.ids:
        pool.call(i, i, pool.name, answering.watch, IDLE, pool.leave())
    if not _keeping.is_set():
        _keeping.set()
        threading.Thread(target=_keep, daemon=True, name="nbfinetune engines").start()
        atexit.register(_leave_all, os.getpid())


def _keep() -> None:
    """Call all engines now and then, as long as this kernel lives."""
    while True:
        time.sleep(IDLE / 5)
        for pool in list(_pools):
            for i in pool.ids:
                with suppress(Exception):  # gone meanwhile
                    pool.call(i, i, pool.name, answering.nothing)


def _end(pool: Pool) -> bool:
    if pool in _pools:
        _pools.remove(pool)
    ours = owners.owner(pool.folder, pool.cluster_id) is not None
    pool.end() if ours else pool.close()
    return ours


def _leave_all(kernel: int) -> None:
    """At the end of the kernel, not of one that it forked: end what is to end with it."""
    for pool in list(_pools) if os.getpid() == kernel else ():
        with suppress(Exception):
            pool.close() if pool.stays else _end(pool)
