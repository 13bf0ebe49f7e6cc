"""Following: the notebook goes along with a run in workers, and takes over what it leaves.

While it waits clicks act, and what is asked of the run goes to the workers; an interrupt stops it
in all of them. The learner gets what came of the run at once, when it is over.
"""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from warnings import warn

from nbfinetune.arguments import users_line
from nbfinetune.cluster import worker
from nbfinetune.cluster.engines import Engines
from nbfinetune.cluster.errors import ClusterError, EngineLost
from nbfinetune.cluster.runs import failures
from nbfinetune.cluster.runs.replay import Replay
from nbfinetune.cluster.runs.watching import Broken, Watch
from nbfinetune.cluster.travel.calls import Parcel
from nbfinetune.cluster.travel.results import unpack_result
from nbfinetune.cluster.worker import Snapshot
from nbfinetune.networks import layer_groups
from nbfinetune.rendering.names import first_few
from nbfinetune.runtime.interrupts import act_on_interrupt, interrupts_held
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.resuming.searches import note_search
from nbfinetune.training.state import LearnerState

_STATE = 600.0  # s that weights may take on their way
_END = 5.0  # s in which an engine that was killed is known to be gone


class Following:
    """One run in workers, until it is over.

    Parameters
    ----------
    parcel : of the call; None = another notebook sent it
    is_fit : whether the call is to change weights and history
    on_checkpoint : called with the number of each that can be fetched
    go_on : what to type after a failure
    """

    def __init__(
        self,
        learn: LearnerState,
        engines: Engines,
        run_id: str,
        replay: Replay,
        parcel: Parcel | None,
        *,
        is_fit: bool,
        on_checkpoint: Callable[[int], None],
        go_on: Callable[[], str],
    ) -> None:
        self._learn, self._engines, self._run_id = learn, engines, run_id
        self._replay, self._parcel, self._is_fit = replay, parcel, is_fit
        self._on_checkpoint, self._go_on = on_checkpoint, go_on
        self._watch = Watch(engines, run_id)
        self._sent: dict[str, Any] = {"paused": False, "stopping": False, "scale": 1.0}
        self._stages = self._checkpoint = 0

    def to_its_end(self) -> object:
        """Go along, and return what the call gives.

        Raises
        ------
        KeyboardInterrupt
            After an interrupt, once all workers have stopped; the learner has their weights.
        WorkerLost, WorkerFailed
            The learner has the weights after the last whole step, where a worker was left.
        Exception
            What all workers raised alike.
        """
        try:
            interrupt = self._go_along()
        except Broken as broken:
            error = self._failure(broken)
            raise error from error.__cause__
        except BaseException:  # a second interrupt, or an error of a screen
            self._leave()
            raise
        value = self._result(wanted=interrupt is None or self._is_fit)
        self._replay.end("interrupted" if interrupt else "finished")
        if interrupt is not None:
            raise interrupt
        return value

    def _go_along(self) -> KeyboardInterrupt | None:
        """Until it is over; returns the interrupt that stopped it."""
        interrupt = None
        while not self._watch.over:
            try:
                act_on_interrupt()
                self._step()
            except KeyboardInterrupt as error:
                if interrupt is not None:
                    raise
                interrupt, self._replay.interrupted = error, True
                self._learn.control.stopping = True
            except CancelFit:  # of a callback that is here
                self._learn.control.stopping = True
        return interrupt

    def _step(self) -> None:
        self._learn.control.poll()
        self._pass_on()
        for event in self._watch.events():
            self._replay.take(event)
        self._fetch_checkpoint()

    def _fetch_checkpoint(self) -> None:
        """Take the newest one, if it was not taken yet."""
        if self._replay.checkpoint >= self._checkpoint:
            self._checkpoint = self._replay.checkpoint + 1
            self._on_checkpoint(self._replay.checkpoint)

    def _pass_on(self) -> None:
        """Send what is asked of the run and was not sent yet."""
        control = self._learn.control
        if self._stages != self._replay.n_stages:  # each begins with the scale 1
            self._stages, self._sent["scale"] = self._replay.n_stages, 1.0
        changed = {
            k: getattr(control, k) for k, v in self._sent.items() if getattr(control, k) != v
        }
        self._sent |= changed
        if control.finish_in is not None:
            changed["finish_in"], control.finish_in = control.finish_in, None
        if changed:
            self._watch.request(**changed)

    def _result(self, *, wanted: bool) -> object:
        """What the call gave, once the learner has what came of it."""
        if not wanted:
            self._replay.forget_runs()
            return None
        outcome = self._engines.call(0, worker.result, self._run_id, self._parcel is None)
        outcome = outcome.get(_STATE)
        returned = unpack_result(outcome["result"], self._learn, self._parcel)
        with interrupts_held():
            returned.put()
            self._replay.tell_interrupt()
            for search in outcome["searches"]:
                note_search(self._learn, replace(search, found=returned.value))
        if returned.left:
            warn(f"not brought back: {first_few(returned.left)}", stacklevel=users_line())
        for rank in range(len(self._engines.ids)):
            with suppress(EngineLost):
                self._engines.call(rank, worker.forget, self._run_id)
        return returned.value

    def _failure(self, broken: Broken) -> Exception:
        """What to raise, once the learner has what a worker that is left has."""
        size = len(self._engines.ids)
        blamed = failures.culprit(broken.failures, size) if not broken.gone else None
        if 0 not in broken.gone:
            for event in self._watch.rest():
                self._replay.take(event)
            self._fetch_checkpoint()
        n_steps, kept = self._take_snapshot(broken)
        infos = {rank: self._engines.info(rank) for rank in range(size)}
        if broken.gone:
            gone = {rank: infos[rank] for rank in sorted(broken.gone)}
            return failures.lost(gone, broken.what, n_steps, kept, self._go_on())
        if blamed is None:
            return failures.of_all(broken.failures[0])
        failure = broken.failures[blamed]
        return failures.failed(blamed, infos[blamed], failure, kept, self._go_on())

    def _take_snapshot(self, broken: Broken) -> tuple[int, str]:
        """The steps that were done, and what became of the weights, in words."""
        snapshot, stuck = self._snapshot(broken.gone) if self._is_fit else (None, set())
        n_steps, kept = self._replay.n_steps, "nothing was changed"
        if snapshot is not None and snapshot.stage is not None:
            n_steps = snapshot.n_steps
            kept = f"the learner has the weights after step {n_steps:,}"
            self._put(snapshot)
        elif self._is_fit and self._replay.n_stages:
            kept = "no worker is left to give its weights: the learner has those of before"
        if not self._is_fit:
            self._replay.forget_runs()
        self._replay.end("failed")
        self._end_engines(broken.gone | stuck)
        return n_steps, kept

    def _put(self, snapshot: Snapshot) -> None:
        learn = self._learn
        with interrupts_held():
            unpack_result(snapshot.result, learn, self._parcel).put()
            learn.status = "failed"
            learn.opt.zero_grad()
            learn.model.eval()
            if snapshot.within:  # some layers are fixed for the time of a stage
                layer_groups.freeze_to(learn.groups, learn.frozen, train_bn=learn.train_bn)

    def _snapshot(self, gone: set[int]) -> tuple[Snapshot | None, set[int]]:
        """That of the first worker that gives one; and those that hang in an exchange."""
        found, stuck = None, set()
        for rank in range(len(self._engines.ids)):
            if rank in gone:
                continue
            try:
                if found is None:
                    asked = worker.snapshot, self._run_id, self._parcel is None
                    found = self._engines.call(rank, *asked).get(_STATE)
                if self._engines.call(rank, worker.hangs).get(_END):
                    stuck.add(rank)
            except Exception:  # it is gone too, or cannot give any
                stuck.add(rank)
        return found, stuck

    def _end_engines(self, ranks: set[int]) -> None:
        """End those that hang; the next run has others in their place."""
        for rank in ranks - set(self._engines.lost()):
            with suppress(Exception):
                self._engines.signal(rank, signal.SIGKILL)
        until = time.monotonic() + _END
        while ranks - set(self._engines.lost()) and time.monotonic() < until:
            time.sleep(0.05)

    def _leave(self) -> None:
        """Let the run stop by itself, and take nothing of it."""
        with suppress(Broken, EngineLost, ClusterError):
            self._engines.call(0, worker.ask, self._run_id, {"stopping": True, "paused": False})
        if not self._is_fit:
            self._replay.forget_runs()
        self._replay.end("interrupted")
