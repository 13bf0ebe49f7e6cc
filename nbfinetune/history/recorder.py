"""The Recorder: the only history of a learner, and the result that a fit returns from it."""

from dataclasses import dataclass
from typing import NoReturn

from torch import Tensor, stack

from nbfinetune.history.runs import Run
from nbfinetune.rendering.left_out import left_out
from nbfinetune.rendering.numbers import counted

_SMOOTHING = 0.98  # fastai's AvgSmoothLoss


@dataclass(frozen=True)
class FitResult:
    """What a call of a fit method did.

    Parameters
    ----------
    stages : the recorded runs, two for `fine_tune`
    kept : the row whose weights the model has now; None if they are those of no epoch's end
    """

    stages: tuple[Run, ...]
    kept: dict[str, float] | None

    @property
    def rows(self) -> list[dict[str, float]]:
        """The rows of all stages."""
        return [row for stage in self.stages for row in stage.rows]

    @property
    def status(self) -> str:
        """How the last stage ended: "finished" or "stopped"."""
        return self.stages[-1].status

    def __repr__(self) -> str:
        last = self.stages[-1]
        text = (
            f"{last.name.partition(':')[0]} {self.status} after {counted(len(self.rows), 'epoch')}"
        )
        if self.kept is None:
            return text
        if not self.rows or self.kept is not self.rows[-1]:
            own = [s.name for s in self.stages if any(row is self.kept for row in s.rows)]
            where = own[0].partition(": ")[2] if own else "an earlier fit"
            text += f", kept epoch {self.kept['epoch']}{where and ' of ' + where}"
        values = [f"{name} {self.kept[name]:.4f}" for name in last.names[2:-1]]
        return f"{text}: {', '.join(values)}"


class Recorder:
    """The history of a learner: one `Run` for each fit, in `runs`.

    Losses are read from the device in blocks, by `flush`: each read waits for the device.
    `train_loss` of a row is fastai's moving average, carried from epoch to epoch of one fit.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(left_out("Recorder", name), name=name, obj=self)

    @property
    def run(self) -> Run:
        """The newest run."""
        return self.runs[-1]

    def begin(self, run: Run) -> None:
        """From now on steps and epochs are those of `run`."""
        self.runs.append(run)
        self._pending: list[Tensor] = []
        self._average = 0.0

    def add_step(self, loss: Tensor, lrs: list[float], mom: float, seconds: float) -> None:
        """A training step is done.

        Parameters
        ----------
        loss : a scalar
        lrs, mom : the rate of each layer group, and the momentum
        seconds : since the run began, without pauses
        """
        self._pending.append(loss)
        self.run.lrs.append(lrs)
        self.run.moms.append(mom)
        self.run.seconds.append(seconds)

    def flush(self) -> None:
        """Read the losses of the steps since the last flush."""
        if not self._pending:
            return
        for loss in stack(self._pending).tolist():
            self.run.losses.append(loss)
            self._average = _SMOOTHING * self._average + (1 - _SMOOTHING) * loss
            self.run.smooth.append(self._average / (1 - _SMOOTHING ** len(self.run.losses)))
        self._pending.clear()

    @property
    def train_loss(self) -> float:
        """Moving average of the training losses read so far, without its start-up bias."""
        return self.run.smooth[-1] if self.run.smooth else float("nan")

    def add_epoch(self, epoch: int, values: list[float], seconds: float) -> None:
        """An epoch is done: its validation loss and metrics, and how long it took."""
        self.flush()
        row = [epoch, self.train_loss, *values, seconds]
        self.run.row_steps.append(len(self.run.losses))
        self.run.rows.append(dict(zip(self.run.names, row, strict=True)))

    def end(self, status: str) -> None:
        """The run is over; see `Run` for how."""
        self.flush()
        self.run.status = status
