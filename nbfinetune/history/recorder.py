"""The Recorder: the only history of a learner, and the result that a fit returns from it."""

from dataclasses import dataclass, field

from torch import Tensor, stack

SMOOTHING = 0.98  # fastai's AvgSmoothLoss


@dataclass
class Run:
    """What one fit did.

    Attributes
    ----------
    name : the method, and the stage of it
    n_epoch, n_iter : epochs planned, training batches in one
    first_epoch : the first that was run
    names : columns of a row: epoch, train_loss, valid_loss, the metrics, time
    rows : for each epoch done, name -> value; time in seconds
    row_steps : steps done at each of the rows
    losses : raw training loss of each step
    smooth : their moving average, without its start-up bias
    lrs : learning rate of each layer group at each step
    moms : momentum at each step
    events : what was done by hand, as (steps done, what)
    status : "running", "finished", "stopped", "interrupted" or "failed"
    seconds : from the begin to the end of each step, without pauses
    kept : the row whose weights the run will end with, where it keeps the best; else None
    body_epochs : epochs that run the frozen body, whose features are kept then; None = all epochs
    """

    name: str
    n_epoch: int
    n_iter: int
    names: list[str]
    rows: list[dict[str, float]] = field(default_factory=list)
    row_steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smooth: list[float] = field(default_factory=list)
    lrs: list[list[float]] = field(default_factory=list)
    moms: list[float] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    kept: dict[str, float] | None = None
    first_epoch: int = 0
    status: str = "running"
    body_epochs: int | None = None

    @property
    def kept_text(self) -> str:
        """Whether features of the frozen body are kept, in one line, or ""."""
        if self.body_epochs is None:
            return ""
        if not self.body_epochs:
            return "the features of the frozen body are known from before"
        first = "first epoch" if self.body_epochs == 1 else f"first {self.body_epochs} epochs"
        return f"the frozen body runs in the {first} only, its features are kept"


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
        text = f"{last.name.partition(':')[0]} {self.status} after {len(self.rows)} epochs"
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
            self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
            self.run.smooth.append(self._average / (1 - SMOOTHING ** len(self.run.losses)))
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
