"""Keeper: writes a run to the disk while it is on, as often as that costs next to nothing."""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from torch import Tensor

from nbfinetune.data.corrections import all_marks
from nbfinetune.history.plots import summary_of
from nbfinetune.history.runs import Run
from nbfinetune.networks.weights_digest import weights_digest
from nbfinetune.training.monitors import EarlyStopping, SaveBest
from nbfinetune.training.resuming.description import callback_names, description
from nbfinetune.training.resuming.packing import Packed, Unchanging
from nbfinetune.training.resuming.run_folder import RunFolder
from nbfinetune.training.resuming.run_state import (
    ROOT,
    Resumed,
    Tree,
    callback_trees,
    feature_trees,
    optimizer_tree,
    run_tree,
    settings_tree,
    weights_tree,
)
from nbfinetune.training.resuming.runs_root import runs_folder, say_once, sweep, unwritable
from nbfinetune.training.resuming.termination import Termination
from nbfinetune.training.state import Callback, LearnerState

_SHARE = 0.01  # of the time of training that checkpoints may take
_SPEED = 2e8  # bytes a second that a disk writes, until it is known
_LEAST = 0.005  # s that a checkpoint takes at least, until it is known
SESSION = secrets.token_hex(8)  # of this process
_LONG = 60.0  # s after which one is written within an epoch too


class Keeper:
    """Writes the run of one call.

    Parameters
    ----------
    method : name of the fit method
    arguments : what it was given
    every : steps between two checkpoints; None = at the ends of epochs, where that costs 1 % of
        the time or less
    resumed : what the call goes on with; None if it begins, and once its first stage has it

    Attributes
    ----------
    stage : number of the stage that is on, from 0
    stages : the runs of the call that were over before it was resumed
    on : whether one of its stages is on
    """

    def __init__(
        self,
        learn: LearnerState,
        method: str,
        arguments: dict,
        every: int | None,
        resumed: Resumed | None = None,
    ) -> None:
        self.method, self.arguments, self.every, self.resumed = method, arguments, every, resumed
        self.off, self.on = every == 0, False
        self.stage = -1 if resumed is None else resumed.stage - 1
        self.stages: list[Run] = [] if resumed is None else resumed.runs_before
        self.termination = Termination(lambda: setattr(learn.control, "paused", False))
        self.folder: RunFolder | None = None if resumed is None else resumed.folder
        self._record: dict = {} if resumed is None else resumed.record
        self._begin_settings: object = None
        self._begin_weights: str | None = None
        self._first_run = len(learn.recorder.runs) - len(self.stages)
        self._begun = self._written = perf_counter()
        self._spent = 0.0
        self._second_a_byte = 1 / _SPEED
        self._steps = 0
        self._where: dict[str, tuple[Tensor, int, str]] = {}
        begun = resumed is not None and (resumed.tree or resumed.record.get("weights"))
        self._has_one = bool(begun)
        self._old_runs: dict[int, dict] = {}

    @property
    def starts_new(self) -> str | None:
        """A digest of the weights it began with, where a new process makes them again."""
        return self._begin_weights or self._record.get("weights")

    def open(self, learn: LearnerState) -> None:
        """The first stage begins: make the folder, unless there is one, or cannot be any."""
        here = self._record.get("status") == "running" and self._record["session"] == SESSION
        if self.off or here:
            return
        with self._timed():
            self._open(learn)

    def _open(self, learn: LearnerState) -> None:
        try:
            new = self.folder is None
            if new:
                root = runs_folder()
                if root is None:
                    self.off = True
                    return
                self.folder = RunFolder.new(root)
                self._record = self._new_record(learn)
            self._record |= {"status": "running", "session": SESSION}
            self.folder.write_record(self._record)
            if new:
                sweep(root)
        except Exception as error:  # whatever it is, the run goes on
            self.give_up(error)

    def _new_record(self, learn: LearnerState) -> dict:
        """What a new process needs to begin the same call, and to tell what it was."""
        pack = Packed().pack  # no tensors: rates are numbers
        given = self.arguments
        cbs = given.get("cbs", ())
        left_out = ("cbs", "show", "learn", "workers", "cluster")
        call = {key: value for key, value in given.items() if key not in left_out}
        ours = [
            {"of": type(cb).__name__, "options": cb.options}
            for cb in cbs
            if type(cb) in (EarlyStopping, SaveBest)
        ]
        return {
            "when": time.time(),
            "method": self.method,
            "arguments": pack(call, "arguments"),
            "cbs": ours,
            "own_cbs": callback_names(cbs),
            "every": self.every,
            "description": description(learn),
            "settings": self._begin_settings,
            "weights": self._begin_weights,
            "trained": learn.trained_text(),
            "session": SESSION,
        }

    def begin(self, learn: LearnerState) -> None:
        """The call begins: what it starts from is noted, before it changes anything."""
        if self.off or self.resumed is not None:
            return
        with self._timed():
            self._note_start(learn)

    def _note_start(self, learn: LearnerState) -> None:
        try:
            self._begin_settings = Packed().pack(settings_tree(learn), "settings")
        except TypeError as error:
            self.give_up(error)
            return
        # What was just made is made again in a new process: there is nothing to write of it yet.
        new = not learn.opt.state and not learn.recorder.runs and learn._rng is None
        self._begin_weights = start_digest(learn) if new else None
        self._has_one = new

    def due(self, learn: LearnerState, *, at_epoch: bool) -> bool:
        """Whether a checkpoint is to be written at this place, between two steps."""
        if self.off or self.folder is None:
            return False
        if self.termination.came:
            return True
        if self.every is not None:
            return not at_epoch and self._steps >= self.every
        now = perf_counter()
        if not at_epoch and self._has_one and now - self._written < _LONG:
            return False
        expected = max(self._bytes_to_write(learn) * self._second_a_byte, _LEAST)
        return self._spent + expected <= _SHARE * (now - self._begun)

    def _bytes_to_write(self, learn: LearnerState) -> int:
        """About: a weight that trains with its moments, others and features the first time."""
        n_bytes = 0
        for name, p in learn.model.named_parameters():
            written = f"{ROOT}.weights.model.{name}" in self._where
            if p.requires_grad:
                n_bytes += (3 if learn.opt.state.get(p) else 1) * p.nbytes
            elif not written:
                n_bytes += p.nbytes
        for side, cached in learn.features.kept(learn.dls).items():
            for view, values in cached.values.items():
                name = f"{ROOT}.features.{side} {view}.values"
                n_bytes += 0 if name in self._where else values.nbytes
        return n_bytes

    def count_step(self) -> None:
        """A training batch is done."""
        self._steps += 1

    def write(self, learn: LearnerState, cbs: Sequence[Callback], place: Tree) -> None:
        """Write a checkpoint.

        Parameters
        ----------
        place : where in the stage it is, and the random numbers
        """
        before = self._spent
        try:
            with self._timed():
                n_bytes = self._write(learn, cbs, place)
        except Exception as error:  # whatever it is, the run goes on
            self.give_up(error)
            return
        took = self._spent - before
        self._second_a_byte = max(took / max(n_bytes, 1), self._second_a_byte / 2)
        self._written, self._steps, self._has_one = perf_counter(), 0, True

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """What is done inside counts as the cost of checkpoints."""
        started = perf_counter()
        yield
        self._spent += perf_counter() - started

    def _write(self, learn: LearnerState, cbs: Sequence[Callback], place: Tree) -> int:
        learn.recorder.flush()
        packed = Packed()
        tree = {
            "stage": self.stage,
            "place": place,
            "weights": weights_tree(learn),
            "optimizer": optimizer_tree(learn),
            "settings": settings_tree(learn),
            "features": feature_trees(learn),
            "callbacks": callback_trees(cbs, learn),
            "runs": [self._run_tree(run) for run in learn.recorder.runs],
            "first_run": self._first_run,
            "average": learn.recorder._average,
            "marks": all_marks(),
        }
        state = packed.pack(tree, ROOT)
        elsewhere, unchanging = {}, {}
        for name, tensor in packed.unchanging.items():
            known = self._where.get(name)
            if known and known[0] is tensor and known[1] == tensor._version:
                elsewhere[name] = known[2]
            else:
                unchanging[name] = tensor
        files = {"": packed.tensors, "-kept": unchanging}
        where = self.folder.write_checkpoint(state, files, elsewhere)
        self._where = {n: (t, t._version, where[n]) for n, t in packed.unchanging.items()}
        return sum(t.nbytes for group in files.values() for t in group.values())

    def _run_tree(self, run: Run) -> Tree:
        """A run; one that is over does not change."""
        if run.status == "running":
            return run_tree(run)
        if id(run) not in self._old_runs:
            tree = {
                key: Unchanging(value) if isinstance(value, Tensor) else value
                for key, value in run_tree(run).items()
            }
            self._old_runs[id(run)] = tree
        return self._old_runs[id(run)]

    def give_up(self, error: Exception) -> None:
        """Write no checkpoints any more, as that failed."""
        self.off = True
        say_once(unwritable(error))

    def end(self, learn: LearnerState, status: str) -> None:
        """The call is over: what went well needs no checkpoints."""
        if self.folder is None:
            return
        well = status in ("finished", "stopped")
        seconds = self._record.get("seconds", 0.0) + perf_counter() - self._begun
        self._record |= {"status": status, "seconds": seconds}
        try:
            if runs := learn.recorder.runs[self._first_run :]:
                packed = Packed()
                state = packed.pack([run_tree(run) for run in runs], ROOT)
                self.folder.write_history(state, packed.tensors)
                self._record["summary"] = summary_of(runs)
            self.folder.write_record(self._record)
            if well:
                self.folder.drop_checkpoints()
        except Exception as error:  # whatever it is, the run goes on
            self.give_up(error)
        finally:
            self.folder.release()


def start_digest(learn: LearnerState) -> str:
    """A digest of all weights; that of a body whose features are kept is taken anyhow."""
    parts = learn.body_and_head if learn.features.wanted else None
    if parts is None:
        return weights_digest(learn.model).hex()
    body = learn.features.digest(parts[0], compare_bytes=False)
    return body.hex() + weights_digest(parts[1]).hex()
