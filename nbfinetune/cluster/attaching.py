"""Attaching: a new kernel follows the run that an earlier one left with its workers."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nbfinetune.cluster import worker
from nbfinetune.cluster.engines import Engines, there
from nbfinetune.cluster.errors import EngineLost
from nbfinetune.cluster.remote_run import ANSWER, follow
from nbfinetune.cluster.runs.device_memory import given_up
from nbfinetune.history.recorder import FitResult
from nbfinetune.rendering.numbers import counted
from nbfinetune.training.printing import shows
from nbfinetune.training.resuming.description import description, differences
from nbfinetune.training.resuming.keeper import Keeper
from nbfinetune.training.resuming.kept_runs import keeping
from nbfinetune.training.resuming.run_folder import RunFolder
from nbfinetune.training.resuming.run_state import Resumed
from nbfinetune.training.resuming.undo import fits_to_undo
from nbfinetune.training.state import Callback, LearnerState
from nbfinetune.training.steering import exclusive_run


@shows("fit")
@exclusive_run(scales_rates=True)
def attach(
    learn: LearnerState,
    cluster: str | None = None,
    *,
    cbs: Callback | Sequence[Callback] = (),
    show: bool = True,
) -> FitResult:
    """Follow a fit that workers do for a kernel that is gone, from its first event to its end.

    Make the same data and the same learner first. The history and the weights of the run become
    those of the learner, also where it ended meanwhile.

    Parameters
    ----------
    cluster : the profile that it was given; None = workers of this machine
    cbs : callbacks for the screen

    Raises
    ------
    ValueError
        If there is none, or data, network or settings differ; the message says in what.
    """
    engines, run_id, about = _found(cluster)
    if no := differences(about["description"], description(learn)):
        raise ValueError(
            f"the {about['name']} that workers do does not fit: {no}; make data and learner as "
            "before"
        )
    engines.adopt()
    before = engines.call(0, worker.history, run_id).get(ANSWER)
    with ExitStack() as stack:
        undoable = fits_to_undo(learn)
        stack.enter_context(undoable.watching(learn, about["name"], everything=True))
        learn.recorder.runs[:] = before
        learn.rate_note = _goes_on_text(about, len(engines.ids))
        if keeper := _keeper(learn, about):
            stack.enter_context(keeping(learn, keeper))
        stack.enter_context(given_up(learn))
        console = [cb for cb in (*learn.cbs, *cbs) if cb.runs_on == "console"]
        return follow(learn, engines, run_id, console, None, is_fit=True)


def _found(cluster: str | None) -> tuple[Engines, str, dict[str, Any]]:
    """The newest fit that is there, and its workers in the order of their ranks."""
    groups = [*Engines.found(), *there()] if cluster is None else [Engines.of_profile(cluster)]
    for engines in groups:
        ranks: dict[int, int] = {}
        run_id, about = "", {}
        for number, engine in enumerate(engines.ids):
            try:
                known = engines.call(number, worker.runs).get(ANSWER)
            except (EngineLost, TimeoutError):
                continue
            for name, one in known.items():
                if one["is_fit"] and (not run_id or name == run_id):
                    run_id, about = name, about | one
                    ranks[one["rank"]] = engine
        if 0 in ranks:
            engines.ids[:] = [ranks[rank] for rank in sorted(ranks)]
            return engines, run_id, about
    raise ValueError(
        "no workers do a fit for a kernel that is gone; %resume_run goes on from a checkpoint"
    )


def _goes_on_text(about: dict[str, Any], n: int) -> str:
    how = "is over" if about["over"] else "goes on"
    return f"the {about['name']} of {counted(n, 'worker')} {how}; what it did so far comes first"


def _keeper(learn: LearnerState, about: dict[str, Any]) -> Keeper | None:
    """What writes further checkpoints into the folder of the run; None where there is none."""
    path = Path(about.get("folder") or "")
    folder = RunFolder(path)
    if not about.get("folder") or not path.is_dir() or not folder.claim():
        return None
    return Keeper(learn, about["name"], {}, about["every"], Resumed(folder, folder.record()))
