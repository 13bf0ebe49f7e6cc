"""The Recorder: the only history of a learner, and the result that a fit returns from it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from torch import Tensor, stack

from nbfinetune.history.frames import history_frame
from nbfinetune.history.plots import calls, loss_plot, runs_table, schedule_plot
from nbfinetune.history.report import TrainingReport
from nbfinetune.history.runs import SMOOTHING, Run
from nbfinetune.history.verdicts import verdict
from nbfinetune.rendering.figures import Picture
from nbfinetune.rendering.left_out import left_out
from nbfinetune.rendering.names import printable
from nbfinetune.rendering.numbers import counted
from nbfinetune.rendering.tables import Table
from nbfinetune.runtime.interrupts import whole

if TYPE_CHECKING:
    from pandas import DataFrame


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

    @property
    def verdict(self) -> str:
        """What is to be said of the call: "" if nothing is; see `history.verdicts`."""
        return verdict(self.stages)

    @property
    def summary(self) -> str:
        """How it ended and which epoch was kept, with its loss and metrics, in one line."""
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

    def __repr__(self) -> str:
        return "\n".join(filter(None, [self.summary, printable(self.verdict)]))

    def _repr_html_(self) -> str:
        return TrainingReport(self.stages, self.summary)._repr_html_()


class Recorder:
    """The history of a learner: one `Run` for each fit, in `runs`.

    Losses are read from the device in blocks, by `flush`: each read waits for the device.
    `train_loss` of a row is fastai's moving average, carried from epoch to epoch of one fit.
    It shows itself as the picture and the table of the newest call.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(left_out("Recorder", name), name=name, obj=self)

    @property
    def run(self) -> Run:
        """The newest run."""
        return self.runs[-1]

    @property
    def newest(self) -> list[Run]:
        """The stages of the newest call of a fit method."""
        return (calls(self.runs) or [[]])[-1]

    def plot_loss(self, skip_start: int = 5, with_valid: bool = True, log: bool = False) -> Picture:
        """The losses of the newest call over its steps.

        Parameters
        ----------
        skip_start : first steps that are left out, but never all
        with_valid : whether validation losses are shown too
        log : whether the axis of losses is logarithmic
        """
        return loss_plot(self.newest, skip_start, with_valid, log)

    def plot_sched(self) -> Picture:
        """The learning rate of the last layer group and the momentum of the newest call."""
        return schedule_plot(self.newest)

    def to_df(self, by: str = "epoch") -> "DataFrame":
        """All fits as a pandas DataFrame, a row for each epoch; or, by="step", for each step.

        Raises
        ------
        ImportError
            Without pandas, with what to type.

        Examples
        --------
        >>> learn.recorder.to_df().plot(x="epoch", y="valid_loss")  # doctest: +SKIP
        """
        return history_frame(self.runs, by)

    def shown(self, number: int | None = None) -> Table | TrainingReport:
        """A table of all calls, or what a screen leaves of the one with this number."""
        if number is None:
            return runs_table(self.runs)
        found = calls(self.runs)
        if not 1 <= number <= len(found):
            there = f"runs 1 to {len(found)}" if found else "no runs yet"
            raise ValueError(f"there is no run {number}; this learner has {there}")
        return TrainingReport(found[number - 1])

    def __repr__(self) -> str:
        return repr(TrainingReport(self.newest)) if self.runs else "nothing was trained yet"

    def _repr_html_(self) -> str:
        return TrainingReport(self.newest)._repr_html_() if self.runs else "nothing was trained yet"

    @whole
    def begin(self, run: Run) -> None:
        """From now on steps and epochs are those of `run`."""
        self.runs.append(run)
        self._pending: list[Tensor] = []
        self._average = 0.0

    @whole
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

    @whole
    def flush(self) -> None:
        """Read the losses of the steps since the last flush."""
        if not self._pending:
            return
        for loss in stack(self._pending).tolist():
            self.run.losses.append(loss)
            self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
            self.run.smooth.append(self._average / (1 - SMOOTHING ** len(self.run.losses)))
        self._pending.clear()

    @property
    def train_loss(self) -> float:
        """Moving average of the training losses read so far, without its start-up bias."""
        return self.run.smooth[-1] if self.run.smooth else float("nan")

    @whole
    def add_epoch(self, epoch: int, values: list[float], seconds: float) -> None:
        """An epoch is done: its validation loss and metrics, and how long it took."""
        self.flush()
        row = [epoch, self.train_loss, *values, seconds]
        self.run.row_steps.append(len(self.run.losses))
        self.run.rows.append(dict(zip(self.run.names, row, strict=True)))

    @whole
    def end(self, status: str) -> None:
        """The run is over; see `Run` for how."""
        self.flush()
        self.run.status = status
