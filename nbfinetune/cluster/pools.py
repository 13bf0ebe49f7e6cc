"""Pools: one controller and its engines, started, found, called and watched by ipyparallel.

No other module knows ipyparallel.
"""

import faulthandler
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import ModuleType

from nbfinetune.cluster import answering, owners, processes, security
from nbfinetune.cluster.errors import ClusterError, EngineLost
from nbfinetune.cluster.hosts import EngineInfo
from nbfinetune.cluster.pending import Pending
from nbfinetune.cluster.profiles import LOCAL, security_folder
from nbfinetune.rendering.numbers import counted
from nbfinetune.runtime.interrupts import act_on_interrupt

_CONNECT = 5.0  # s
_LONGEST = 60.0  # s; the controller finds out after 10 that an engine is gone
# A hung process is found in 10 s, not in 30; the hub keeps no messages, which are large.
_HUB = ["--HeartMonitor.period=1000", "--HeartMonitor.max_heartmonitor_misses=10", "--nodb"]
_ON_LOOPBACK = {"load_profile": False, "controller_ip": "127.0.0.1", "controller_args": _HUB}
_log = logging.getLogger("nbfinetune.cluster")
_log.addHandler(logging.NullHandler())
_log.propagate = False  # ipyparallel's lines are not for a notebook


def _ipyparallel() -> ModuleType:
    """The library, imported when it is needed: it brings IPython."""
    try:
        import cloudpickle  # noqa: F401
        import ipyparallel
    except ImportError as error:
        raise ClusterError(
            f'{error.name} is missing; type: pip install "nbfinetune[cluster]"'
        ) from None
    return ipyparallel


def check_installed() -> None:
    """Refuse to go on without the libraries; ClusterError says what to type."""
    _ipyparallel()


class Pool:
    """One cluster of a profile: what was started of it, and who registered with its controller.

    Parameters
    ----------
    profile : of ipyparallel, or `LOCAL`
    cluster_id : part of the names of its files; "" is that of `ipcontroller` and `ipcluster`
    """

    def __init__(self, profile: str, cluster_id: str) -> None:
        self.folder, self.cluster_id, self.profile = security_folder(profile), cluster_id, profile
        self.local, self.stays = profile == LOCAL, False
        self.name = "local" if self.local else f"profile {profile}"
        self._cluster = self._client = None
        self.infos: dict[int, EngineInfo] = {}  # what is known of engines that were used

    @property
    def ids(self) -> list[int]:
        """The engines that are there, as far as the controller knows."""
        return self._client.ids if self._client else []

    def start(self, n: int | None, environment: dict[str, str], patience: float) -> None:
        """Start n more engines, or as many as the profile says, and wait for them."""
        before = set(self.pids())
        if self._cluster is None:
            self._cluster = _ipyparallel().Cluster(
                parent=None,
                log=_log,
                profile_dir=str(self.folder.parent),
                cluster_id=self.cluster_id,
                shutdown_atexit=False,
                delay=0,
                **(_ON_LOOPBACK if self.local else {}),
            )
            owners.own(self.folder, self.cluster_id)
            self._cluster.start_controller_sync()
        there = set(self.ids)
        more = {"environment": environment} if environment else {}
        engine_set = self._cluster.engines[self._cluster.start_engines_sync(n, **more)]
        if self._client is None:
            self.connect()
        self._wait(there, engine_set, set(self.pids()) - before, patience)

    def _wait(self, there: set[int], engine_set: object, pids: set[int], patience: float) -> None:
        """Return when all engines of a set have come, beside those that were there."""
        end = time.monotonic() + max(patience, self._cluster.engine_timeout)
        while len(came := set(self.ids) - there) < engine_set.n:
            act_on_interrupt()
            ended = not all(map(processes.runs, pids))
            if ended or time.monotonic() > end:
                said = engine_set.get_output().strip().splitlines()[-1:]
                why = "one ended" if ended else "time is over"
                raise ClusterError(
                    f"{self.name}: {len(came)} of {counted(engine_set.n, 'worker')} came, {why}; "
                    f"{said[0].strip() if said else 'see the log of its launcher'}"
                )
            time.sleep(0.05)

    def connect(self) -> None:
        """Connect to the controller; OSError, TimeoutError where none answers."""
        self.files = security.connection_files(self.folder, self.cluster_id)
        security.check_controller(self.name, self.files)
        if not security.answers(self.files):
            raise TimeoutError(f"{self.name}: its controller does not answer")
        with security.unsaid_that_not_signed(self.files):
            self._client = _ipyparallel().Client(self.files["client"], timeout=_CONNECT)

    def load(self) -> bool:
        """Connect to what another process started; where it is no more its files are taken away."""
        file = self.folder / f"cluster-{self.cluster_id}.json"
        with suppress(OSError, ValueError, TimeoutError):
            if file.exists():
                self._cluster = _ipyparallel().Cluster.from_file(str(file), parent=None, log=_log)
            self.connect()
            return True
        return False

    def pids(self) -> list[int]:
        """The processes of this host that were started, the controller first."""
        return processes.started(self._cluster.to_dict()) if self._cluster else []

    def controller_runs(self) -> bool:
        """Whether its controller is there: its process, where it is of this host, or its port."""
        ended = self._cluster and processes.controller_ended(self._cluster.to_dict())
        return self._client is not None and not ended and security.answers(self.files)

    def call(self, engine: int, rank: int, where: str, function: Callable, *args) -> Pending:
        """Call a function in an engine; one of Python's own travels by its name alone."""
        if engine not in self.ids:
            raise EngineLost(rank, f"{where} is gone")
        if function is not eval:
            function, args = answering.Answer(), (answering.packed(function, args),)
        self._client.history.clear()  # nobody reads it, and it grows with each call
        return Pending(self._client[engine].apply_async(function, *args), rank, where)

    def signal(self, engine: int, sig: int) -> None:
        """Send a signal to an engine; one that is stopped has it too."""
        self._client.send_signal(sig, targets=engine, block=False)

    def leave(self) -> Callable[[], bool]:
        """A function for an engine: see `answering.watch`."""
        return partial(_leave, self.files["client"])

    def close(self) -> None:
        """Leave the cluster as it is."""
        if self._client:
            self._client.close()
            self._client = None

    def end(self) -> None:
        """End all that was started, and take its files away."""
        self.close()
        processes.end(self.cluster_id)
        if self._cluster and not self.local:
            with suppress(Exception):  # a job that is not there any more cannot be ended
                self._cluster.stop_cluster_sync()
        self._cluster = None
        owners.clean(self.folder, self.cluster_id)


def _leave(connection: dict) -> bool:
    """Runs in an engine that nobody calls; the last one has the controller ended, too.

    By another process: the engine is gone before the controller would have been told.
    """
    with suppress(Exception):  # a controller that is out of reach holds nobody
        client = _ipyparallel().Client(connection, timeout=_CONNECT)
        if len(client.ids) > 1:
            return get_ipython().kernel.engine_id != min(client.ids)  # noqa: F821
        code = "from nbfinetune.cluster.pools import end_controller; end_controller()"
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True, text=True
        )
        process.stdin.write(json.dumps(connection))
        process.stdin.close()
    return True


def end_controller() -> None:
    """End the controller whose connection is in stdin, once it has no engine any more."""
    faulthandler.dump_traceback_later(_LONGEST, exit=True)  # nobody waits for this process
    with _ipyparallel().Client(json.load(sys.stdin), timeout=_CONNECT) as client:
        while client.ids:
            time.sleep(0.1)
        client.shutdown(hub=True)
