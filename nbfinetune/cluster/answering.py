"""Answering: what an engine does with a call, and how it ends when nobody calls any more.

Functions, arguments and results travel by cloudpickle, so those of a notebook's cells do too.
"""

import importlib
import math
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable

from nbfinetune.cluster.errors import ClusterError


def busy() -> bool:
    """Whether a run is on in this engine, which then stays; `watch` asks the module for it."""
    return False


_called = time.monotonic()
_settled: dict[str, object] = {}
_watching = threading.Lock()


def packed(function: Callable, args: tuple) -> bytes:
    """A call as `Answer` takes it."""
    import cloudpickle

    return cloudpickle.dumps((function, args))


class Answer:
    """Calls a function in an engine. An object, as it is found by its name in any Python."""

    def __call__(self, call: bytes) -> bytes:
        """What became of a call, both as pickles: (True, result) or (False, exception).

        An exception has the text of its traceback as `worker_traceback`.
        """
        import cloudpickle

        global _called
        _called = math.inf  # as long as this goes on
        try:
            function, args = pickle.loads(call)
            return cloudpickle.dumps((True, function(*args)))
        except Exception as error:
            return cloudpickle.dumps((False, _travelling(error)))
        finally:
            _called = time.monotonic()


def _travelling(error: Exception) -> Exception:
    """An exception that can be pickled, there and back: the same, or its text."""
    import traceback

    import cloudpickle

    text = "".join(traceback.format_exception(error))
    error.__traceback__ = error.__cause__ = error.__context__ = None
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.worker_traceback = text
    return error


def cores() -> int:
    """The cores of this host that this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def check_is_no_engine() -> None:
    """Refuse to start engines in one: each of them would start more, without an end.

    Raises
    ------
    ClusterError
        If this process is an engine, or one of an engine's.
    """
    if _settled or "IPP_CLUSTER_ID" in os.environ:
        raise ClusterError(
            "a worker starts no workers; in the file that it imports, put the lines that start "
            'runs under: if __name__ == "__main__":'
        )


def is_busy() -> bool:
    """Whether a run is on, asked from the notebook."""
    return busy()


def settle(local_rank: int, on_host: int, controller: str | None) -> dict[str, object]:
    """Share out the threads and devices of this host among its engines; what this one has then.

    Parameters
    ----------
    local_rank : of this engine among those of its host
    on_host : number of these
    controller : address of the controller, None where all engines are on one host

    Returns
    -------
    dict of the fields of `EngineInfo` that are known here: address, cores, gpus,
    local_rank, device, threads
    """
    global _settled
    import torch

    importlib.import_module("nbfinetune.cluster.worker")  # takes seconds, for which no run waits

    threads = max(1, cores() // on_host)
    torch.set_num_threads(threads)
    gpus = torch.cuda.device_count()
    address = _address(controller)
    if controller is not None:
        _exchange_through(address)
    _settled = {
        "address": address,
        "cores": cores(),
        "gpus": gpus,
        "local_rank": local_rank,
        "device": f"cuda:{local_rank % gpus}" if gpus else "cpu",
        "threads": threads,
    }
    return _settled


def settled(*place: object) -> dict[str, object]:
    """As `settle`, but what was shared out before stays: a run may be on."""
    return _settled or settle(*place)


def _address(controller: str | None) -> str:
    """Where other engines reach this host: the address of its way to the controller."""
    if own := os.environ.get("NBFINETUNE_ADDRESS"):
        return own
    if controller is None:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((controller, 9))  # nothing is sent: the system only chooses the way
        found = way.getsockname()[0]
    # A tunnel ends at this host, which says nothing of where it is.
    return socket.gethostbyname(socket.gethostname()) if found.startswith("127.") else found


def _exchange_through(address: str) -> None:
    """Let torch send gradients by the network of an address, not of the host's name."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(known.address == address for known in addresses):
            for backend in ("GLOO", "NCCL"):
                os.environ.setdefault(f"{backend}_SOCKET_IFNAME", name)


def nothing() -> None:
    """What a notebook that is there calls now and then."""


def watch(idle: float, leave: Callable[[], bool]) -> None:
    """End this engine when nobody called for `idle` s and no run is on.

    Parameters
    ----------
    leave : tells the others; False where this engine must stay a little longer
    """
    if _watching.acquire(blocking=False):
        threading.Thread(target=_watch, args=(idle, leave), daemon=True).start()


def _watch(idle: float, leave: Callable[[], bool]) -> None:
    while True:
        time.sleep(min(idle / 4, 30))
        if time.monotonic() - _called > idle and not busy() and leave():
            os._exit(0)
