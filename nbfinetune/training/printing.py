"""Printing: runs of methods shown as lines of text, where no screens are put in."""

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature

from nbfinetune.history import screens
from nbfinetune.history.recorder import FitResult
from nbfinetune.history.report import format_value
from nbfinetune.history.runs import Run
from nbfinetune.rendering.names import printable
from nbfinetune.rendering.numbers import counted
from nbfinetune.runtime.cpu_contention import one_thread_if_busy
from nbfinetune.runtime.interrupts import defers_interrupts
from nbfinetune.training.state import Callback, LearnerState, as_callbacks

_WIDTH = 10  # of a column, at least


class PrintedTable(Callback):
    """Prints epoch, train_loss, valid_loss, metrics and time of each epoch, line by line.

    One instance shows all stages of a `fine_tune` as one table.
    """

    runs_on = "console"

    def __init__(self) -> None:
        self.columns: list[str] = []
        self.runs: list[Run] = []

    @property
    def began(self) -> bool:
        """Whether a run got so far that it was shown."""
        return bool(self.columns)

    def before_fit(self, learn: LearnerState) -> None:
        self.runs += stages_so_far(learn, self.runs)
        if not self.columns:
            self.columns = list(learn.recorder.run.names)
            if learn.rate_note:
                self._print([learn.rate_note])
            self._print(self.columns)
        if stage := learn.recorder.run.stage:
            self._print([f"{stage}, {counted(learn.n_epoch, 'epoch')}"])

    def after_epoch(self, learn: LearnerState) -> None:
        row = learn.recorder.run.rows[-1]
        self._print([format_value(name, row[name]) for name in self.columns])

    def _print(self, row: list[str]) -> None:
        widths = [max(_WIDTH, len(name)) for name in self.columns]
        print("  ".join(row if len(row) == 1 else map(str.rjust, row, widths)), flush=True)

    def close(self, text: str = "") -> None:
        """Say how all of it ended."""
        if self.began and text:
            print(text, flush=True)


def stages_so_far(learn: LearnerState, shown: Sequence[Run]) -> list[Run]:
    """The run that begins, after the stages of a call that goes on, where none is shown yet."""
    before = learn.keeper.stages if learn.keeper is not None and not shown else []
    return [*before, learn.recorder.run]


class PrintedRuns:
    """Shows the runs of methods as text."""

    def fit(self, learn: LearnerState, run: Callable[[list[Callback]], FitResult]) -> FitResult:
        """Do a run with its table, and say how it ended if not as planned."""
        table = PrintedTable()
        with one_thread_if_busy(learn.device) as text:
            say(text)
            result = run([table])
        table.close(ended_text(learn, result))
        return result

    def search(self, learn: LearnerState, run: Callable, options: dict) -> object:
        """Do a search, and say what the next run uses."""
        with one_thread_if_busy(learn.device) as text:
            say(text)
            found = run([])
        print(learn.rate_note, flush=True)
        return found

    def infer(self, learn: LearnerState, run: Callable, options: dict) -> object:
        """Do a pass, of which a script shows nothing."""
        with one_thread_if_busy(learn.device) as text:
            say(text)
            return run([])

    def hide(self, result: object) -> None:
        """Nothing: a script shows no values."""


def say(line: str) -> None:
    """Print a line, if there is one."""
    if line:
        print(line, flush=True)


def ended_text(learn: LearnerState, result: FitResult) -> str:
    """How a run ended if not as planned, which epoch was kept if not the last, and the verdict."""
    text = ""
    if result.status == "stopped":
        text = stopped_text(learn)
    elif result.rows and result.kept is not result.rows[-1]:
        text = result.summary
    return "\n".join(filter(None, [text, printable(result.verdict)]))


def stopped_text(learn: LearnerState) -> str:
    """How a run ended that did not go on to its end, in one line."""
    where = f"in epoch {learn.epoch + 1} of {learn.n_epoch}"
    steps = counted(len(learn.recorder.run.lrs), "step")
    why = learn.recorder.run.ended
    if learn.status == "interrupted":
        why = learn.recorder.run.kept_why or "the weights are those of the last step"
    return f"{learn.status} {where} after {steps}{why and '; ' + why}"


def shows(how: str) -> Callable:
    """Makes a method show what it does, unless `show=False` or `learn.quiet()` says otherwise.

    Parameters
    ----------
    how : the method of `history.screens.Screens` that shows it: "fit", "search" or "infer"
    """

    def decorate(method: Callable) -> Callable:
        arguments = signature(method)

        @wraps(method)
        @defers_interrupts
        def call(learn: LearnerState, *args, show: bool = True, cbs=(), **kwargs) -> object:
            given = as_callbacks(cbs)

            def run(cbs: list[Callback]) -> object:
                return method(learn, *args, cbs=[*cbs, *given], **kwargs)

            has_table = any(isinstance(cb, PrintedTable) for cb in (*learn.cbs, *given))
            shower = screens.make_screens() if screens.make_screens else PrintedRuns()
            if has_table or learn.is_quiet or (how == "infer" and not show):
                return run([])  # what a pass gives is the value of its cell in any case
            if not show:
                result = run([])
                shower.hide(result)
                return result
            if how == "fit":
                return shower.fit(learn, run)
            try:
                options = arguments.bind(learn, *args, **kwargs)
            except TypeError:
                return run([])  # which says what is wrong
            options.apply_defaults()
            return getattr(shower, how)(learn, run, options.arguments)

        return call

    return decorate
