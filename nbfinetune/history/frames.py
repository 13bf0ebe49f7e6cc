"""Frames: what a recorder has, as a pandas DataFrame."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nbfinetune.history.plots import calls
from nbfinetune.history.runs import Run
from nbfinetune.rendering.frames import data_frame
from nbfinetune.rendering.names import shown

if TYPE_CHECKING:
    from pandas import DataFrame


def history_frame(runs: Sequence[Run], by: str) -> "DataFrame":
    """A row for each epoch or step of the fits, with the number that `%runs` gives these.

    Parameters
    ----------
    by : "epoch": losses, metrics, time in seconds; "step": the loss as it was and averaged, the
        rate of each layer group, momentum, seconds since the run began
    """
    if by not in _ROWS:
        raise ValueError(f"by is {shown(by)}; it must be one of {', '.join(_ROWS)}")
    rows = []
    for number, stages in enumerate(calls(runs), 1):
        for run in stages:
            of = {"run": number, "method": run.method, "stage": run.stage}
            rows += [of | row for row in _ROWS[by](run)]
    names = dict.fromkeys(name for row in rows for name in row)  # metrics may differ
    return data_frame({name: [row.get(name) for row in rows] for name in names})


def _epochs(run: Run) -> Iterator[dict[str, float]]:
    yield from run.rows


def _steps(run: Run) -> Iterator[dict[str, float]]:
    steps = zip(run.losses, run.smooth, run.lrs, run.moms, run.seconds, strict=False)
    for step, (loss, smooth, lrs, mom, seconds) in enumerate(steps, 1):
        yield {"step": step, "loss": loss, "smooth": smooth} | {
            **{f"lr {group}": lr for group, lr in enumerate(lrs)},
            "mom": mom,
            "seconds": seconds,
        }


_ROWS = {"epoch": _epochs, "step": _steps}
