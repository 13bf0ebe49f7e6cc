"""Engine run: one call of a learner's method, in one of the workers that make it together."""

import inspect
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from nbfinetune.cluster.runs.checkpoint_relay import RelayFolder
from nbfinetune.cluster.runs.emitting import Emitting
from nbfinetune.cluster.runs.event_log import EventLog
from nbfinetune.cluster.travel.calls import Arrived
from nbfinetune.cluster.travel.results import pack_result
from nbfinetune.history.runs import Run
from nbfinetune.training.resuming.run_state import Resumed, Tree, same_row
from nbfinetune.training.resuming.searches import searches_of
from nbfinetune.training.spmd.first_worker import in_first_worker
from nbfinetune.training.spmd.world import World
from nbfinetune.training.state import LearnerState, as_callbacks

_OF_TORCH = "torch/distributed"  # where errors are raised in which another worker has a part
_WORDS = ("gloo", "nccl", "distbackend", "connection closed by peer", "connection reset by peer")


@dataclass(frozen=True)
class Kept:
    """What a fit has to do with the notebook's run folder.

    Parameters
    ----------
    record : of the folder; None where no checkpoints are written
    every : steps between two of them, as for `Keeper`
    tree : the checkpoint that it goes on from, without the history; None if it begins
    first_run : number of the call's first stage in the history
    run : the stage that goes on
    """

    record: dict | None = None
    every: int | None = 0
    tree: Tree | None = None
    first_run: int = 0
    run: Run | None = None


@dataclass(frozen=True)
class Failure:
    """What ended a run in one worker.

    Parameters
    ----------
    error : the exception
    text : its type and message
    trace : its traceback
    n_steps : training steps of its newest stage
    broken : whether it is that another worker was gone
    """

    error: Exception
    text: str
    trace: str
    n_steps: int
    broken: bool


class EngineRun:
    """Runs a call in a thread, and keeps what it tells from the first event on.

    Parameters
    ----------
    about : what a notebook that comes later has to know of it
    join : meets the other workers
    unpack : gives what is to be called
    """

    def __init__(
        self,
        about: dict,
        rank: int,
        kept: Kept,
        join: Callable[[], World],
        unpack: Callable[[], Arrived],
    ) -> None:
        self.about, self.rank, self.kept = about, rank, kept
        self.log = EventLog()
        self.relay = RelayFolder(lambda n: self.log.add({"name": "checkpoint", "number": n}))
        self.world: World | None = None
        self.arrived: Arrived | None = None
        self.value: object = None
        self.outcome: dict[str, Any] | None = None
        self.failure: Failure | None = None
        self._join, self._unpack = join, unpack
        self._asked: dict[str, Any] = {}  # before there was a world
        self._lock = threading.Lock()
        self.thread = threading.Thread(target=self._work, daemon=True, name=f"rank {rank}")
        self.thread.start()

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return not self.thread.is_alive()

    @property
    def stage(self) -> Run | None:
        """Its newest one."""
        if self.arrived is None:
            return None
        runs = self.arrived.learn.recorder.runs[self.arrived.n_runs :]
        return runs[-1] if runs else None

    @property
    def n_steps(self) -> int:
        """Training steps of the newest stage."""
        stage = self.stage
        return 0 if stage is None else len(stage.lrs) + self.arrived.learn.unrecorded

    def ask(self, requests: Mapping[str, Any]) -> None:
        """Ask something of the run; it acts on it after the batch at hand."""
        with self._lock:
            if self.world is None:
                self._asked |= requests
            else:  # a new dict, as the run may take the old one at this moment
                self.world.wanted = {**self.world.wanted, **requests}

    def _work(self) -> None:
        try:
            self.arrived = self._unpack()
            world = self._join()
            with self._lock:
                self.arrived.learn.world = self.world = world
                world.wanted |= self._asked
            control = self.arrived.learn.control
            control.poll = partial(world.while_paused, control)
            with self._told():
                self.outcome = self._called()
        except BaseException as error:
            self.failure = self._failed(error)
        finally:
            if self.world is not None:
                self.world.leave()
            self.log.end()

    def _called(self) -> dict[str, Any]:
        """Do it, and what came of it."""
        learn, given = self.arrived.learn, dict(self.arrived.arguments)
        method = _named(self.arrived.method)
        known, first = inspect.signature(method).parameters, self.rank == 0
        emitting = Emitting(self.log, learn)
        learn.cbs = in_first_worker(learn.cbs)
        if "cbs" in known:
            own = in_first_worker(as_callbacks(given.get("cbs", ())))
            given["cbs"] = [*own, emitting] if first else own
        if "checkpoint" in known:
            self._put_kept(learn)
            given["checkpoint"] = self.kept.every or None if first and self.kept.record else "off"
        searches = len(searches_of(learn))
        with learn.quiet():
            value = method(learn, **given)
        if not first:
            return {}
        emitting.flush(learn)
        self.value = value
        return {
            "result": pack_result(self.arrived, value),
            "searches": searches_of(learn)[searches:],
        }

    def _put_kept(self, learn: LearnerState) -> None:
        """Let the fit go on where it was, and its checkpoints go to the notebook."""
        kept, runs = self.kept, learn.recorder.runs
        if kept.run is not None:
            kept.run.kept = same_row([*runs, kept.run], kept.run.kept)
        before = [] if kept.tree is None else runs[kept.first_run :]
        learn.resumed = Resumed(self.relay, kept.record or {}, kept.tree, before, kept.run)

    def _failed(self, error: BaseException) -> Failure:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        trace = "".join(traceback.format_exception(error))
        broken = isinstance(error, Exception) and _is_of_another(error, text)
        error = error if isinstance(error, Exception) else RuntimeError(text)
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return Failure(error, text, trace, self.n_steps, broken)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Warnings, and what is printed in this thread, go to the notebook."""
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("default")
            warnings.showwarning = self._warned
            if self.rank == 0:
                stack.callback(setattr, sys, "stdout", sys.stdout)
                sys.stdout = _Printed(sys.stdout, self.log)
            yield

    def _warned(self, message: object, category: type, *_: object) -> None:
        if self.rank == 0 and issubclass(category, UserWarning):
            self.log.add({"name": "warned", "text": str(message)})


def _named(path: str) -> Callable:
    """The function of a path such as nbfinetune.training.fitting.fit."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _is_of_another(error: Exception, text: str) -> bool:
    """Whether an exchange with others failed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next:
        trace = trace.tb_next
    file = "" if trace is None else trace.tb_frame.f_code.co_filename.replace("\\", "/")
    return _OF_TORCH in file or any(word in text.lower() for word in _WORDS)


class _Printed:
    """A stream that tells what one thread writes, and passes on what others do."""

    def __init__(self, stream: Any, log: EventLog) -> None:
        self._stream, self._log, self._thread = stream, log, threading.current_thread()

    def write(self, text: str) -> int:
        if threading.current_thread() is not self._thread:
            return self._stream.write(text)
        self._log.add({"name": "printed", "text": text})
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
