"""Failures: which worker failed, where it was, and what to type, each in one line."""

from collections.abc import Mapping

from nbfinetune.cluster.errors import ClusterError
from nbfinetune.cluster.hosts import EngineInfo
from nbfinetune.cluster.runs.engine_run import Failure
from nbfinetune.rendering.names import shortened
from nbfinetune.rendering.numbers import counted

_LONGEST = 300  # characters of an error's text
_MEMORY = ("OutOfMemoryError", "MemoryError", "DefaultCPUAllocator: can't allocate")


class WorkerLost(ClusterError):
    """A worker is gone, or does not answer."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook: the line alone."""
        return [f"{type(self).__name__}: {self}"]


class WorkerFailed(ClusterError):
    """An exception in one worker; its traceback there is the cause of this."""

    def _render_traceback_(self) -> list[str]:
        cause = [str(self.__cause__)] if self.__cause__ else []
        return [*cause, f"{type(self).__name__}: {self}"]


class InWorker(Exception):
    """The traceback of an exception where it was raised, as text."""


def where(rank: int, info: EngineInfo) -> str:
    """A worker, its host and its process."""
    return f"worker {rank} ({info.host}, pid {info.pid})"


def lost(
    gone: Mapping[int, EngineInfo], what: str, n_steps: int, kept: str, go_on: str
) -> WorkerLost:
    """The error for workers that are gone.

    Parameters
    ----------
    what : "died" or what else they did
    kept, go_on : what became of the weights, and what to type
    """
    names = ", ".join(where(rank, info) for rank, info in gone.items())
    return WorkerLost(f"{names} {what} after {counted(n_steps, 'step')}; {kept}; {go_on}")


def failed(rank: int, info: EngineInfo, failure: Failure, kept: str, go_on: str) -> WorkerFailed:
    """The error for an exception in one worker."""
    text = shortened(failure.text.strip(), _LONGEST)
    what = f"raised {text}"
    if any(word in failure.text for word in _MEMORY):
        what = f"ran out of memory ({text})"
        go_on = f"give smaller batches (bs=) or fewer workers on that host; {go_on}"
    steps = counted(failure.n_steps, "step")
    error = WorkerFailed(f"{where(rank, info)} {what} after {steps}; {kept}; {go_on}")
    error.__cause__ = InWorker(f"in worker {rank}:\n{failure.trace}")
    return error


def of_all(failure: Failure) -> Exception:
    """The error that all workers raised alike: it is one of the call, as in one process."""
    failure.error.__cause__ = InWorker(f"in the workers:\n{failure.trace}")
    return failure.error


def culprit(failures: Mapping[int, Failure], size: int) -> int | None:
    """Which worker is to blame; None if all raised the same.

    Where one fails the others do too, in their next exchange with it.
    """
    own = {rank: failure for rank, failure in failures.items() if not failure.broken}
    texts = {failure.text for failure in own.values()}
    if len(own) == size and len(texts) == 1:
        return None
    return min(own or failures)
