"""Sent folder: the notebook's run folder, and the checkpoints that come from the first worker."""

from collections.abc import Sequence
from contextlib import suppress

from nbfinetune.cluster import worker
from nbfinetune.cluster.engines import Engines
from nbfinetune.cluster.errors import ClusterError, EngineLost
from nbfinetune.cluster.runs.checkpoint_relay import write_sent
from nbfinetune.training.resuming.keeper import Keeper
from nbfinetune.training.resuming.packing import Packed
from nbfinetune.training.resuming.run_state import ROOT, Tree, callback_trees, put_callbacks
from nbfinetune.training.state import Callback, LearnerState

ANSWER = 180.0  # s; the first call of an engine imports torch, slowly on a busy machine


class SentFolder:
    """The run folder of a call, with the checkpoints that the first worker sends.

    Parameters
    ----------
    console : callbacks that stayed here, whose states are part of each checkpoint
    """

    def __init__(
        self,
        learn: LearnerState,
        keeper: Keeper,
        engines: Engines,
        run_id: str,
        console: Sequence[Callback],
    ) -> None:
        self._learn, self._keeper, self._console = learn, keeper, console
        self._engines, self._run_id = engines, run_id

    def open(self) -> None:
        """Have a folder from the first stage on."""
        self._keeper.open(self._learn)
        if self._keeper.folder is not None:
            path = str(self._keeper.folder.path)
            with suppress(EngineLost):
                self._engines.call(0, worker.note, self._run_id, {"folder": path})

    def write(self, number: int) -> None:
        """Write a checkpoint, unless there is a newer one by now."""
        if self._keeper.off or self._keeper.folder is None:
            return
        try:
            fetched = self._engines.call(0, worker.checkpoint, self._run_id, number).get(ANSWER)
        except (EngineLost, TimeoutError, ClusterError):
            return  # which the run finds too
        sent, written = fetched
        if sent is None:
            return
        try:
            states = Packed().pack(callback_trees(self._console, self._learn), ROOT)
            sent.state["callbacks"] += states
            new = write_sent(self._keeper.folder, sent, written)
        except Exception as error:  # whatever it is, the run goes on
            self._keeper.give_up(error)
            return
        with suppress(EngineLost):
            self._engines.call(0, worker.acknowledge, self._run_id, number, new)

    def go_on(self) -> str:
        """What to type after a failure."""
        if self._keeper.folder is not None and self._keeper.folder.checkpoints():
            return "%resume_run goes on from the last checkpoint, with any number of --workers"
        return "train again to go on from there; it has new workers then"


def split_states(trees: Sequence[Tree]) -> tuple[list[Tree], list[Tree]]:
    """The states of callbacks that workers have, and of those that stay here."""
    here = [tree for tree in trees if tree.get("runs_on") == "console"]
    return [tree for tree in trees if tree.get("runs_on") != "console"], here


class GoingOn(Callback):
    """Gives callbacks that stayed here the states that they had in a run that goes on."""

    runs_on = "console"

    def __init__(self, cbs: Sequence[Callback], states: Sequence[Tree]) -> None:
        self._cbs, self._states = cbs, states

    def before_epoch(self, learn: LearnerState) -> None:
        if self._cbs:
            cbs, self._cbs = self._cbs, []
            put_callbacks(learn, cbs, self._states)
