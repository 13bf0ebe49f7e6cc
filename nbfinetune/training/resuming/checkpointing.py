"""Checkpointing: the callback that lets a run be written, and go on, between two of its steps."""

from nbfinetune.history.runs import Run
from nbfinetune.runtime.interrupts import interrupts_held
from nbfinetune.training.batches.streams import Streams, put_streams, streams_of
from nbfinetune.training.resuming.keeper import Keeper
from nbfinetune.training.resuming.places import Place
from nbfinetune.training.resuming.run_state import (
    Resumed,
    put_callbacks,
    put_optimizer,
    put_settings,
    put_weights,
    stream_tree,
    streams_from,
)
from nbfinetune.training.state import Callback, LearnerState
from nbfinetune.training.steering import annealed


class Checkpoints(Callback):
    """Asks the keeper, at each place where a run can go on, whether a checkpoint is due.

    It is the last callback: what the others did at an event is done. Such places are the begin of
    an epoch, the end of a step, and, for a SIGTERM, the passes after the last step of an epoch.

    Parameters
    ----------
    resumed : what the run goes on with
    """

    runs_on = "all"

    def __init__(self, keeper: Keeper, resumed: Resumed | None) -> None:
        self._keeper, self._resumed = keeper, resumed
        self._begin: Streams | None = None  # of the epoch
        self._trained: tuple[int, Streams] | None = None  # after its last step: how many, and where
        self._valid: Streams | None = None  # before its validation

    def before_fit(self, learn: LearnerState) -> None:
        self._keeper.open(learn)
        self._keeper.on = True

    def before_epoch(self, learn: LearnerState) -> None:
        self._trained = self._valid = None
        if self._resumed is not None:
            resumed, self._resumed = self._resumed, None
            with interrupts_held():
                self._go_on(learn, resumed)
            return
        self._begin = streams_of(learn)
        if self._keeper.due(learn, at_epoch=True):
            self._write(learn, 0, self._begin)

    def after_batch(self, learn: LearnerState) -> None:
        if not learn.training:
            self._look(learn)
            return
        self._keeper.count_step()
        done = learn.iter + 1
        over = done == learn.n_iter or annealed(learn)
        if over:
            self._trained = done, streams_of(learn)
        if done % learn.accumulate and done < learn.n_iter:
            return  # the gradients of these batches are in no checkpoint
        if self._keeper.due(learn, at_epoch=False):
            self._write(learn, done, streams_of(learn), over=over)

    def after_train(self, learn: LearnerState) -> None:
        self._valid = streams_of(learn)

    def after_part(self, learn: LearnerState) -> None:
        self._look(learn)

    def _look(self, learn: LearnerState) -> None:
        """Within a pass that changes nothing; within a training batch there is no place."""
        if not self._keeper.termination.came:
            return
        if self._valid is not None:
            self._write(learn, learn.n_iter, self._valid, over=True, trained=True)
        elif self._trained is not None:
            self._write(learn, *self._trained, over=True)

    def after_fit(self, learn: LearnerState) -> None:
        self._keeper.on = False

    def _write(
        self,
        learn: LearnerState,
        batch: int,
        streams: Streams,
        *,
        over: bool = False,
        trained: bool = False,
    ) -> None:
        place = {"epoch": learn.epoch, "batch": batch, "over": over, "trained": trained}
        place |= {"begin": stream_tree(self._begin), "streams": stream_tree(streams)}
        if not self._keeper.off and self._keeper.folder is not None:
            self._keeper.write(learn, self._others(learn), place)
        if self._keeper.termination.came:
            self._keeper.termination.pass_on()

    def _others(self, learn: LearnerState) -> list[Callback]:
        return [cb for cb in learn.run_cbs if cb is not self]

    def _go_on(self, learn: LearnerState, resumed: Resumed) -> None:
        """Put everything where the checkpoint has it."""
        tree, run = resumed.tree, learn.recorder.run
        put_weights(learn, tree["weights"])
        put_optimizer(learn, tree["optimizer"])
        put_settings(learn, tree["settings"])
        kept, why = run.kept, run.kept_why
        put_callbacks(learn, self._others(learn), tree["callbacks"])
        run.kept, run.kept_why = kept, why
        learn.recorder._average = tree["average"]
        place = tree["place"]
        self._begin, streams = streams_from(place["begin"]), streams_from(place["streams"])
        put_streams(learn, self._begin)
        if place["over"]:
            self._trained = place["batch"], streams
        if place["trained"]:
            self._valid = streams
            put_streams(learn, streams)
        if place["batch"] or place["over"]:
            learn.place = Place(
                place["batch"],
                place["over"],
                place["trained"],
                lambda: put_streams(learn, streams),
            )


def next_stage(learn: LearnerState, start_epoch: int) -> tuple[list[Callback], Run | None, int]:
    """What the next stage of a call has for its checkpoints.

    Returns
    -------
    cbs : its last callbacks
    run : the history that it goes on with, None = a new one
    start_epoch : its first epoch
    """
    keeper: Keeper | None = learn.keeper
    if keeper is None or keeper.on:  # a fit within a fit
        return [], None, start_epoch
    keeper.stage += 1
    resumed, keeper.resumed = keeper.resumed, None
    if resumed is None or resumed.tree is None:
        return [Checkpoints(keeper, None)], None, start_epoch
    return [Checkpoints(keeper, resumed)], resumed.run, resumed.tree["place"]["epoch"]


def stages_before(learn: LearnerState) -> list[Run]:
    """The stages that a call has behind it which goes on."""
    return list(learn.keeper.stages) if learn.keeper is not None else []


def in_second_stage(learn: LearnerState) -> bool:
    """Whether a call goes on after its first stage."""
    resumed = learn.keeper and learn.keeper.resumed
    return resumed is not None and resumed.stage > 0
