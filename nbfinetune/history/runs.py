"""Runs: what a fit did, step by step and epoch by epoch."""

from dataclasses import dataclass, field

SMOOTHING = 0.98  # fastai's AvgSmoothLoss

HEAD_STAGE = "head, body frozen"  # of fine_tune, before its last one


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
    notes : what was decided for the run, and what it did besides its steps, in words
    body_epochs : epochs that run the frozen body, whose features are kept then; None = all epochs
    kept_why : why that row, in words; "" where no best is kept
    ended : why a callback ended the run before its last epoch, in words, else ""
    diverged : whether it was ended as a loss or gradient was NaN or infinite
    n_valid : held-out pictures; None before the first epoch is done
    shares : metrics that are shares of these pictures -> whether larger is better
    weakest : for each epoch done, which classes are predicted worst, in words, or ""
    when : seconds since 1970 at which it began
    trained : which layer groups train, in words
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
    notes: list[str] = field(default_factory=list)
    kept_why: str = ""
    ended: str = ""
    diverged: bool = False
    n_valid: int | None = None
    shares: dict[str, bool] = field(default_factory=dict)
    weakest: list[str] = field(default_factory=list)
    when: float = 0.0
    trained: str = ""

    @property
    def method(self) -> str:
        """The method's part of the name."""
        return self.name.partition(": ")[0]

    @property
    def stage(self) -> str:
        """The stage's part of the name, "" for a run of one stage."""
        return self.name.partition(": ")[2]

    @property
    def features_text(self) -> str:
        """Whether features of the frozen body are kept, in one line, or ""."""
        if self.body_epochs is None:
            return ""
        if not self.body_epochs:
            return "the features of the frozen body are known from before"
        first = "first epoch" if self.body_epochs == 1 else f"first {self.body_epochs} epochs"
        return f"the frozen body runs in the {first} only, its features are kept"
