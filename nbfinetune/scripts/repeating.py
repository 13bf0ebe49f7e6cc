"""`Learner.to_script`: a Python script that makes and trains a learner as it was, call by call."""

from os import PathLike
from pathlib import Path

import torch

from nbfinetune.arguments import as_path, check_bool
from nbfinetune.data.datasets import gives_pictures
from nbfinetune.runtime.own_files import check_place, make_folder, write_whole
from nbfinetune.scripts.values import Writing
from nbfinetune.training.state import LearnerState
from nbfinetune.version import __version__

_SCRIPT = '''\
"""{what}{left_out}

Written by nbfinetune {version}. On the same machine, with the same versions of the packages and
as many threads, it gives the losses of the notebook to the last digit.
"""

{imports}

torch.set_num_threads({threads})

# Of each run: the training loss of its last step, and its last validation loss.
EXPECTED = {expected}


def main() -> None:
{body}
    found = [(run.losses[-1], run.rows[-1]["valid_loss"]) for run in learn.recorder.runs]
    print("losses of each run:", *found, sep="\\n")
    if found == EXPECTED:
        print("as in the notebook, to the last digit")
    else:
        print("in the notebook they were:", *EXPECTED, sep="\\n")


if __name__ == "__main__":
    main()
'''


def to_script(learn: LearnerState, file: str | PathLike, *, overwrite: bool = False) -> Path:
    """Write a plain Python script that repeats what was done with the learner; returns its path.

    It makes the same data and the same network and then does the same searches, fits and settings
    in the same order, with the same seeds: for `sbatch`, or to reproduce a notebook. What
    was taken back by `undo_fit` is not in it. Names of files are absolute.

    Parameters
    ----------
    file : the script, such as "train.py"
    overwrite : whether it may replace a file that is there

    Raises
    ------
    ValueError
        For what cannot be written down: a learner, network, loss or augmentation that was made in
        the notebook, a run that was stopped, or steered by hand, or is of another process.
    FileExistsError
        If the file is there and `overwrite` is False.

    Examples
    --------
    >>> learn.to_script("train.py")  # doctest: +SKIP
    """
    check_bool(overwrite=overwrite)
    learn.check_idle()
    path = as_path(file, "file")
    check_place(path, overwrite=overwrite)
    script = _script(learn)
    make_folder(path.parent)
    write_whole(path, script.encode())
    return path


def _script(learn: LearnerState) -> str:
    if getattr(learn, "made_by", None) is None:
        raise ValueError(
            "the learner was made by Learner(...), of a model that no script can make again; "
            "vision_learner(dls, NAME) and load_learner can be written"
        )
    if learn.dls is not None and not all(map(gives_pictures, (learn.dls.train, learn.dls.valid))):
        raise ValueError(
            "a loader of the data was put in by hand, which no script can make again; the data is "
            "what ImageDataLoaders.from_folder and its like make"
        )
    _check_runs(learn)
    writing = Writing()
    made = learn.made_by
    first = made.arguments.get("dls")
    body = [] if first is None else [f"dls = {writing.dls(first)}"]
    body.append(f"learn = {writing.call(made)}")
    for call in learn.calls:
        if "" in call.arguments:
            body.append(f"learn.{call.name} = {writing.value(call.arguments[''], call.name)}")
        else:
            body.append(f"learn.{writing.call(call)}")
    runs = [(run.losses[-1], run.rows[-1]["valid_loss"]) for run in learn.recorder.runs]
    expected = [f"\n    {writing.value(run, 'a loss')}," for run in runs]
    names = ", ".join(sorted(writing.left_out))
    return _SCRIPT.format(
        left_out=f"\nLeft out, as they change no loss: {names}." if names else "",
        what=f"{made.arguments.get('arch', 'A network')}: data, network, searches and fits.",
        version=__version__,
        imports=writing.imports(),
        threads=torch.get_num_threads(),
        expected="".join(["[", *expected, "\n" if runs else "", "]"]),
        body="\n".join(f"    {line}" for line in body),
    )


def _check_runs(learn: LearnerState) -> None:
    """Raise ValueError for runs that no call repeats."""
    known = max((call.n_runs for call in learn.calls), default=0)
    if known != len(learn.recorder.runs):
        raise ValueError(
            f"the history has {len(learn.recorder.runs)} runs, {known} of which were called of "
            "this learner in this process: the others cannot be written"
        )
    for number, run in enumerate(learn.recorder.runs, 1):
        by_hand = [what for _, what in run.events if what != "paused"]
        why = run.status if run.status != "finished" and not run.ended else ", ".join(by_hand)
        if run.diverged:
            why = "ended as its loss was not finite"
        if why:
            raise ValueError(
                f"run {number}, {run.name}, was not left alone ({why}): a script cannot repeat "
                "that; learn.undo_fit() takes the last call back"
            )
