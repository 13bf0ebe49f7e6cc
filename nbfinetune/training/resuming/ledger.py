"""Ledger: the searches and fits of a learner, and those that other kernels did on its data."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from nbfinetune.history.plots import calls, overlaid, summary_of
from nbfinetune.history.report import TrainingReport
from nbfinetune.history.runs import Run
from nbfinetune.history.verdicts import verdict
from nbfinetune.networks.layer_groups import lr_text
from nbfinetune.rendering.figures import Picture
from nbfinetune.rendering.numbers import counted, minutes
from nbfinetune.rendering.tables import Table
from nbfinetune.training.resuming.description import OF_PICTURES, description
from nbfinetune.training.resuming.keeper import SESSION
from nbfinetune.training.resuming.packing import unpack
from nbfinetune.training.resuming.run_folder import RunFolder
from nbfinetune.training.resuming.run_state import runs_from
from nbfinetune.training.resuming.runs_root import run_folders, runs_folder
from nbfinetune.training.resuming.searches import searches_of
from nbfinetune.training.state import LearnerState

_COLUMNS = ("when", "method", "trained", "rate", "epochs", "status", "result", "time")
_MOST = 10  # runs of other kernels that are listed
_SAME = ("vocab", *(OF_PICTURES.format(side) for side in ("training", "held-out")))


@dataclass(frozen=True)
class _Entry:
    """A line of the ledger: its number, its cells, what stands below it, and what it shows."""

    number: str
    cells: dict[str, str]
    text: str
    runs: Callable[[], Sequence[Run]]
    shown: Callable[[], object]


def ledger(learn: LearnerState, *which: int | str) -> Table | Picture | object:
    """All searches and fits as a table, what one of them showed, or the losses of several.

    Parameters
    ----------
    which : numbers of the table: 2 is a fit of this kernel, "s1" a search, "k1" a fit of another
        kernel, which was killed or is over, on the same pictures

    Raises
    ------
    ValueError
        If there is no such number, or nothing is left to be shown.
    """
    entries = [*_own(learn), *_of_other_kernels(learn)]
    if not which:
        return _table(entries)
    found = [_entry(entries, str(number)) for number in which]
    if len(found) == 1:
        return found[0].shown()
    return overlaid({f"run {entry.number}": entry.runs() for entry in found})


def _table(entries: Sequence[_Entry]) -> Table:
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        rows.append((entry.number, *(entry.cells.get(key, "") for key in _COLUMNS)))
        if entry.text:
            rows.append((f"run {entry.number}: {entry.text}",))
    here = [entry for entry in entries if not entry.number.startswith("k")]
    others = len(entries) - len(here)
    title = counted(len(here), "run") if here else "nothing was trained yet"
    title += f", and {counted(others, 'run')} of other kernels on these pictures" if others else ""
    return Table(title, ("run", *_COLUMNS), rows)


def _entry(entries: Sequence[_Entry], number: str) -> _Entry:
    for entry in entries:
        if entry.number == number:
            return entry
    there = ", ".join(entry.number for entry in entries)
    known = f"%runs lists {there}" if there else "nothing was trained yet"
    raise ValueError(f"there is no run {number}; {known}")


def _own(learn: LearnerState) -> list[_Entry]:
    """The fits and searches of this learner, in their order."""
    entries: list[tuple[float, _Entry]] = []
    for number, stages in enumerate(calls(learn.recorder.runs), 1):
        report = TrainingReport(stages)
        entry = _Entry(
            str(number),
            summary_of(stages),
            verdict(stages),
            lambda stages=stages: stages,
            lambda report=report: report,
        )
        entries.append((stages[0].when, entry))
    for number, search in enumerate(searches_of(learn), 1):
        found, rate = search.found, getattr(search.found, "lr", None)
        cells = {"when": _when(search.when), "method": "lr_find", "trained": search.trained}
        cells |= {"rate": lr_text(rate) if rate is not None else "none", "status": "finished"}
        cells["time"] = minutes(search.seconds)
        entry = _Entry(f"s{number}", cells, "", lambda: _no_fit(), lambda found=found: found)
        entries.append((search.when, entry))
    return [entry for _, entry in sorted(entries, key=lambda pair: pair[0])]


def _no_fit() -> Sequence[Run]:
    raise ValueError("a search cannot be laid over fits; show it alone, as %runs s1")


def _of_other_kernels(learn: LearnerState) -> list[_Entry]:
    if learn.dls is None:
        return []
    here, entries = description(learn), []
    for folder in run_folders(runs_folder()):
        record = folder.record()
        there = record.get("description", {})
        same = bool(there) and all(there.get(key) == here.get(key) for key in _SAME)
        if len(entries) == _MOST or record.get("session") == SESSION or not same:
            continue
        with suppress(KeyError, TypeError, ValueError):
            number = f"k{len(entries) + 1}"
            entries.append(_other(number, folder, record))
    return entries


def _other(number: str, folder: RunFolder, record: dict) -> _Entry:
    cells = dict(record.get("summary", {}))
    if record["status"] == "running":
        status = "running in another kernel" if folder.in_use() else "killed"
        cells |= {"method": record["method"], "trained": record["trained"], "status": status}
    cells["when"] = _when(record["when"])

    def runs() -> Sequence[Run]:
        return _runs_of(folder)

    return _Entry(number, cells, "", runs, lambda: TrainingReport(runs()))


def _runs_of(folder: RunFolder) -> list[Run]:
    """What a run of another kernel did, up to its last checkpoint if it was killed."""
    running = (
        folder.record().get("status") == "running"
    )  # the history is of before, if there is one
    trees = None if running else folder.read_history()
    if trees is None:
        for state, tensors in folder.read_checkpoints():
            tree = unpack(state, tensors)
            trees = tree["runs"][tree["first_run"] :]
            break
    if not trees:
        raise ValueError("nothing was written yet of what this run did")
    return runs_from(trees)


def _when(seconds: float) -> str:
    return time.strftime("%d %b %H:%M", time.localtime(seconds))
