"""`Learner.resume_run`: a run of a process that is gone goes on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from nbfinetune.arguments import as_whole_number
from nbfinetune.data.corrections import put_marks
from nbfinetune.history.recorder import FitResult
from nbfinetune.rendering.numbers import counted
from nbfinetune.rendering.tables import Table
from nbfinetune.runtime.interrupts import interrupts_held
from nbfinetune.training.arguments import check_data
from nbfinetune.training.monitors import EarlyStopping, SaveBest
from nbfinetune.training.printing import shows
from nbfinetune.training.resuming.description import callback_names, description, differences
from nbfinetune.training.resuming.keeper import start_digest
from nbfinetune.training.resuming.packing import unpack
from nbfinetune.training.resuming.run_folder import RunFolder
from nbfinetune.training.resuming.run_state import (
    Resumed,
    check_weights,
    put_features,
    put_settings,
    put_weights,
    runs_from,
)
from nbfinetune.training.resuming.runs_root import run_folders, runs_folder
from nbfinetune.training.resuming.undo import fits_to_undo
from nbfinetune.training.state import Callback, LearnerState
from nbfinetune.training.steering import exclusive_run

_METHODS = ("fit", "fit_one_cycle", "fit_flat_cos", "fit_sgdr", "fine_tune")
_OURS = {"EarlyStopping": EarlyStopping, "SaveBest": SaveBest}
_WELL = ("finished", "stopped")


@dataclass(frozen=True)
class LeftRun:
    """A run whose process is gone, or that was interrupted or failed.

    Parameters
    ----------
    folder, record : its files, and what is known of it
    """

    folder: RunFolder
    record: dict

    @property
    def text(self) -> str:
        """When it was, what, and how it ended."""
        when = time.strftime("%d %b %H:%M", time.localtime(self.record["when"]))
        status = self.record["status"].replace("running", "killed")
        return f"{self.record['method']} of {when}, {status}"


def left_runs() -> list[LeftRun]:
    """The runs that could go on, the newest first."""
    found = []
    for folder in run_folders(runs_folder()):
        record = folder.record()
        if record.get("method") not in _METHODS or record.get("status") in _WELL:
            continue
        goes_on = record.get("weights") or folder.checkpoints()
        if goes_on and not folder.in_use():
            found.append(LeftRun(folder, record))
    return found


def left_runs_table(learn: LearnerState) -> Table:
    """What `resume_run` can go on with, and what does not fit this learner."""
    here = description(learn)
    rows = []
    for number, run in enumerate(left_runs(), 1):
        no = differences(run.record.get("description", {}), here)
        rows.append((str(number), run.text, no or "fits"))
    title = f"{counted(len(rows), 'run')} to go on with" if rows else "no run to go on with"
    return Table(title, ("number", "run", "this learner"), rows)


@shows("fit")
@exclusive_run(scales_rates=True)
def resume_run(
    learn: LearnerState,
    number: int | None = None,
    *,
    cbs: Callback | Sequence[Callback] = (),
    workers: int | None = None,
    cluster: str | None = None,
    show: bool = True,
) -> FitResult:
    """Go on with a run whose process was killed, from its newest checkpoint.

    Make the same data and the same learner first. On a CPU the weights at its end are, to the last
    bit, those of the run that was not killed.

    Parameters
    ----------
    number : which run, 1 = the newest, as `%resume_run --list` lists them; None = the newest that
        fits this learner
    cbs : callbacks of yours that the run had, made anew; its own `EarlyStopping` and `SaveBest` are
        made again
    workers, cluster : those that go on with it, as for `fit`, however many it had before
    show : see `fit`

    Raises
    ------
    ValueError
        If there is none, or data, network or settings differ; the message says in what.
    """
    check_data(learn)
    run = _chosen(learn, number)
    record = run.record
    if callback_names(cbs) != record.get("own_cbs", []):
        raise ValueError(
            f"the run had the callbacks {record.get('own_cbs')} of yours, and cbs has "
            f"{callback_names(cbs)}; pass the same, made anew: learn.resume_run(cbs=[...])"
        )
    with fits_to_undo(learn).watching(learn, record["method"], everything=True):
        return _resumed(learn, run, cbs, {"workers": workers, "cluster": cluster})


def _resumed(
    learn: LearnerState, run: LeftRun, cbs: Sequence[Callback], by: dict[str, object]
) -> FitResult:
    record = run.record
    try:
        arguments = unpack(record["arguments"], {})
        ours = [_OURS[cb["of"]](**cb["options"]) for cb in record["cbs"]]
        if not run.folder.claim():
            raise ValueError("it goes on in another process")
        resumed = _prepared(learn, run)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        run.folder.release()
        raise ValueError(f"{run.text} cannot go on: {error}") from None
    learn.resumed, learn.rate_note = resumed, _goes_on_text(run, resumed)
    try:
        method = getattr(learn, record["method"])
        return method(**arguments, **by, cbs=[*cbs, *ours], checkpoint=record["every"])
    finally:
        learn.resumed = None
        run.folder.release()


def _goes_on_text(run: LeftRun, resumed: Resumed) -> str:
    """Which run goes on, where, and how many others could."""
    where = "from its begin"
    if resumed.run is not None:
        place, stage = resumed.tree["place"], resumed.run.stage
        where = f"in epoch {place['epoch'] + 1} of {resumed.run.n_epoch}{stage and ' of ' + stage}"
        where += f", after {counted(place['batch'], 'batch').replace('batchs', 'batches')}"
    others = len(left_runs())  # it is in use now
    more = f"; {counted(others, 'other')} could go on: %resume_run --list" if others else ""
    return f"going on with {run.text}, {where}{more}"


def _chosen(learn: LearnerState, number: int | None) -> LeftRun:
    found = left_runs()
    if not found:
        raise ValueError("there is no run to go on with: all ended, or wrote no checkpoint yet")
    here = description(learn)
    texts = [differences(run.record.get("description", {}), here) for run in found]
    if number is None:
        fitting = [run for run, no in zip(found, texts, strict=True) if not no]
        if fitting:
            return fitting[0]
        number = 1
    number = as_whole_number("number", number, 1, len(found))
    if no := texts[number - 1]:
        raise ValueError(
            f"{found[number - 1].text} does not fit: {no}; make data and learner as before"
        )
    return found[number - 1]


def _prepared(learn: LearnerState, run: LeftRun) -> Resumed:
    """Weights and history as they were; the rest is put back when the stage goes on."""
    start = unpack(run.record["settings"], {})
    for state, tensors in run.folder.read_checkpoints():
        tree = unpack(state, tensors)
        check_weights(learn, tree["weights"])
        runs = runs_from(tree["runs"])
        with interrupts_held():
            put_weights(learn, tree["weights"])
            put_settings(learn, tree["settings"])
            put_features(learn, tree["features"])
            second_stage = learn.second_stage
            put_settings(learn, start)
            learn.second_stage = second_stage
            learn.recorder.runs[:] = runs[:-1]
            put_marks(tree["marks"])
        return Resumed(run.folder, run.record, tree, runs[tree["first_run"] : -1], runs[-1])
    if start_digest(learn) != run.record["weights"]:
        raise ValueError("it wrote no checkpoint yet, and began with other weights")
    with interrupts_held():
        put_settings(learn, start)
        learn.opt.state.clear()
        learn._rng = None
    return Resumed(run.folder, run.record)
