"""Runs root: the folder that the folders of all runs are in, and how much may stay there."""

import os
import shutil
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

from nbfinetune.rendering.names import shortened
from nbfinetune.runtime.memmap import cache_folder
from nbfinetune.training.resuming.run_folder import MOST_BYTES, RunFolder

_MOST_RUNS = 200  # whose records stay
FOR_UNDO = "what was before fits"  # status of a folder that is of no use without its process
_said: set[str] = set()


def runs_folder() -> Path | None:
    """The folder of `NBFINETUNE_RUNS`, else `runs` in the cache folder; None if it is "off".

    Without a home folder it is one among the temporary files, which a warning says once.
    """
    chosen = os.environ.get("NBFINETUNE_RUNS", "")
    if chosen.lower() == "off":
        return None
    try:
        return Path(chosen).expanduser() if chosen else cache_folder() / "runs"
    except (OSError, RuntimeError):
        name = f"nbfinetune-{getattr(os, 'getuid', lambda: '')()}"
        folder = Path(tempfile.gettempdir()) / name / "runs"
        say_once(
            f"there is no home folder, so checkpoints of runs are in {folder}, which a restart of "
            "the machine may empty; set NBFINETUNE_RUNS to a folder, or to off"
        )
        return folder


def say_once(text: str) -> None:
    """Warn, but not a second time in this process."""
    if text not in _said:
        _said.add(text)
        warnings.warn(text, stacklevel=2)


def run_folders(root: Path | None) -> list[RunFolder]:
    """The runs that are there, the newest first."""
    with suppress(OSError):
        if root is not None:
            names = sorted(os.listdir(root), reverse=True)
            return [RunFolder(root / name) for name in names if (root / name).is_dir()]
    return []


def sweep(root: Path) -> None:
    """Delete the oldest runs where all together are too large or too many; never one in use."""
    total = 0
    for number, folder in enumerate(run_folders(root)):
        total += folder.n_bytes
        useless = folder.record().get("status") == FOR_UNDO
        if (total > MOST_BYTES or number >= _MOST_RUNS or useless) and not folder.in_use():
            total -= folder.n_bytes
            shutil.rmtree(folder.path, ignore_errors=True)


def unwritable(error: OSError) -> str:
    """That there are no checkpoints of a run, and why, in one line."""
    return (
        f"no checkpoints are written of this run, which goes on: {shortened(str(error), 200)}; "
        "set NBFINETUNE_RUNS to a folder with room, or to off"
    )
