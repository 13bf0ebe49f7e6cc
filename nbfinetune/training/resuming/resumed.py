"""Resumed: what a call goes on with that was begun in another process."""

from dataclasses import dataclass, field

from nbfinetune.history.runs import Run
from nbfinetune.training.resuming.run_folder import RunFolder


@dataclass
class Resumed:
    """A call, as its newest checkpoint has it.

    Parameters
    ----------
    folder, record : of the run
    tree : the checkpoint, None where none was written yet: the call begins anew
    runs_before : its stages that are over
    run : the stage that goes on
    """

    folder: RunFolder
    record: dict
    tree: dict | None = None
    runs_before: list[Run] = field(default_factory=list)
    run: Run | None = None

    @property
    def stage(self) -> int:
        """The number of the stage that goes on, from 0."""
        return 0 if self.tree is None else self.tree["stage"]
