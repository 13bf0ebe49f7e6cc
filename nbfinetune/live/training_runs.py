"""Training runs that magics start, in the cell or in the background, and the rates found."""

import threading
import traceback
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

from IPython.core.error import UsageError

from nbfinetune.history.recorder import FitResult
from nbfinetune.interpretation.prediction import n_batches
from nbfinetune.learner import Learner
from nbfinetune.live.background import GOES_ON, LOOK, BackgroundRun, wait_until_idle
from nbfinetune.live.cell_errors import Interrupted, in_one_line, interrupted_as
from nbfinetune.live.demo import show_demo
from nbfinetune.live.display_hook import DisplayHook
from nbfinetune.live.progress import EpochTable, SearchProgress, kernel_runs, static
from nbfinetune.live.screens import LiveSearch, LiveTraining, pumping_events
from nbfinetune.live.watched import call, watched
from nbfinetune.lr_finder.arguments import check_search, search_cost
from nbfinetune.lr_finder.results import LRFindComparison, LRFindResult
from nbfinetune.networks.layer_groups import lr_per_group
from nbfinetune.rendering.names import printable
from nbfinetune.runtime.cpu_contention import one_thread_if_busy
from nbfinetune.runtime.interrupts import act_on_interrupt
from nbfinetune.training.monitors import EarlyStopping
from nbfinetune.training.printing import say, stopped_text
from nbfinetune.training.resuming.termination import tell_runs_elsewhere
from nbfinetune.training.state import Callback
from nbfinetune.widgets.demo.predict_demo import PredictDemo

Screen = EpochTable | SearchProgress | LiveTraining | LiveSearch


class TrainingRuns:
    """The runs of magics and methods, with their screens.

    Attributes
    ----------
    plots : learner -> the plot of its newest search
    display_hook : gets each result that is on the screen already
    """

    def __init__(self, display_hook: DisplayHook) -> None:
        self.display_hook = display_hook
        self.plots: WeakKeyDictionary[Learner, LiveSearch] = WeakKeyDictionary()

    @in_one_line
    def fit(
        self,
        learn: Learner,
        run: Callable[[list[Callback]], FitResult],
        *,
        no_widgets: bool = False,
        bg: bool = False,
        patience: int | None = None,
        one_line: bool = False,
    ) -> FitResult | None:
        """Do `run(cbs=...)`, a fit of the learner, with a screen; see `call` for `one_line`.

        Parameters
        ----------
        patience : of `EarlyStopping` by the validation loss, in epochs; None = none
        """
        if patience is not None:
            if patience < 1:
                raise UsageError(f"early-stopping is {patience}; give epochs to wait, from 1 up")
            run = partial(_stopping_early, run, patience)
        if not bg:
            wait_until_idle(learn)
        elif learn.control.running:
            raise UsageError("this learner trains in the background already; %stop ends that")
        screen = LiveTraining() if shows_widgets(no_widgets) else EpochTable()
        if bg:
            return _in_background(learn, run, screen)
        with pumping_events(learn) as pump:
            if isinstance(screen, LiveTraining) and not pump.works:
                screen.hint = "buttons act after the cell here; interrupt it to stop the run"
            try:
                with one_thread_if_busy(learn.device) as text:
                    say(text)
                    result = call(screen, run, one_line=one_line)
            except KeyboardInterrupt:
                text = stopped_text(learn) if screen.began else "interrupted before it began"
                screen.close()
                raise Interrupted(text) from None
            except BaseException:
                screen.close()
                raise
        screen.close(_line(learn, result))
        if kernel_runs():
            self.display_hook.note(result)
        return result

    @in_one_line
    def search(
        self,
        learn: Learner,
        run: Callable[[list[Callback]], LRFindResult | LRFindComparison],
        options: dict[str, Any],
        *,
        no_widgets: bool = False,
        one_line: bool = False,
    ) -> LRFindResult | LRFindComparison:
        """Do `run(cbs=...)`, a search of the learner, with a screen; see `call` for `one_line`.

        Parameters
        ----------
        options : the arguments of `lr_find`
        """
        wait_until_idle(learn)
        try:
            check_search(learn, options)
            # The rate that there is, is shown where nothing is found.
            lr_per_group(learn.lr, len(learn.groups), what="learn.lr")
        except (ValueError, TypeError) as error:
            if not one_line:
                raise
            raise UsageError(printable(str(error))) from None
        n_steps, what = search_cost(learn, options)
        cost = what and f"{what}: {n_steps} steps at most"
        live = shows_widgets(no_widgets) and not options["groups"]
        ends = options["start_lr"], options["end_lr"]
        screen = LiveSearch(*ends, n_steps, cost) if live else SearchProgress(n_steps, cost)
        with pumping_events(learn) as pump:
            found = self._searched(screen, learn, run, one_line)
            if not live:
                screen.close(learn.rate_note, found)
                if kernel_runs():
                    self.display_hook.note(found)
                return found
            # The plot must not keep the learner, nor its network, in memory.
            observed, trained = ref(learn), learn.trained_text()
            self.plots[learn] = screen
            self.display_hook.note(found)
            with interrupted_as("interrupted; the learning rate was found before"):
                lr, mult = lr_per_group(learn.lr, len(learn.groups))[-1], 1.0
                if found.lr is not None:  # the marker is at the first group's rate
                    mult, lr = found.lr_mult, found.rate(found.chosen)
                pick = partial(_pick, observed, trained, mult)
                screen.show(found, lr, learn.rate_how, pump, pick)
        return found

    def demo(self, learn: Learner) -> PredictDemo | None:
        """Show a screen that predicts pictures with the learner."""
        screen = show_demo(learn)
        if screen is not None:
            self.display_hook.note(screen)
        return screen

    @in_one_line
    def infer(self, learn: Learner, run: Callable, options: dict[str, Any]) -> Any:
        """Do `run(cbs=...)`, a pass of the learner over some data, with its progress."""
        wait_until_idle(learn)
        return watched(
            learn, run, n_batches(learn, options["ds"], options.get("dl")), one_line=False
        )

    def hide(self, result: object) -> None:
        """Let the cell that runs not show this result as its value."""
        self.display_hook.note(result)

    def _searched(
        self, screen: LiveSearch | SearchProgress, learn: Learner, run: Callable, one_line: bool
    ) -> LRFindResult | LRFindComparison:
        begun = _OnBegin(lambda: self._retire(learn))
        try:
            with one_thread_if_busy(learn.device) as text:
                say(text)
                return call(screen, lambda cbs: run(cbs=[begun, *cbs]), one_line=one_line)
        except KeyboardInterrupt:
            screen.close("lr_find was interrupted; nothing was changed")
            raise Interrupted("interrupted; nothing was changed") from None
        except BaseException:
            screen.close("lr_find ended with an error; nothing was changed")
            raise

    def _retire(self, learn: Learner) -> None:
        """The marker of an older search would no longer choose the rate."""
        if earlier := self.plots.pop(learn, None):
            earlier.retire()


def _pick(observed: "ref[Learner]", trained: str, mult: float, lr: float) -> str:
    """Take the rate of a marker; says why not, if what trains has changed since its search.

    Parameters
    ----------
    mult : times that rate for the head
    """
    learn = observed()
    if learn is None:
        return "the learner of this plot is gone"
    if learn.trained_text() != trained:
        return (
            f"not used: this plot is of {trained}, and now {learn.trained_text()} "
            f"{'train' if 'layers' in learn.trained_text() else 'trains'}; run lr_find again"
        )
    rate = slice(lr, lr * mult) if mult > 1 else lr
    learn.use_rate(rate, "as picked in its plot", "picked")
    return ""


def shows_widgets(no_widgets: bool) -> bool:
    """Whether screens are widgets: in a kernel, unless an option or the environment says no."""
    return kernel_runs() and not no_widgets and not static()


def _stopping_early(run: Callable, patience: int, cbs: list[Callback]) -> FitResult:
    return run(cbs=[*cbs, EarlyStopping(patience=patience)])


class _OnBegin(Callback):
    """Calls a function when a run begins."""

    runs_on = "console"

    def __init__(self, on_begin: Callable[[], None]) -> None:
        self.on_begin = on_begin

    def before_fit(self, learn: Learner) -> None:
        self.on_begin()


def _in_background(
    learn: Learner, fit: Callable[..., FitResult], screen: EpochTable | LiveTraining
) -> None:
    """Run `fit` in a thread; returns when it has begun. Bad arguments are raised here."""
    begun, errors = threading.Event(), []

    def work() -> None:
        text = ""
        try:
            with one_thread_if_busy(learn.device) as busy:
                say(busy)
                text = _line(learn, fit(cbs=[screen, _OnBegin(begun.set)]))
        except BaseException as error:
            errors.append(error)
            text = f"failed: {type(error).__name__}: {error}"
            if screen.began:  # nobody waits for it any more
                traceback.print_exception(error)
        finally:
            try:
                screen.close(text)
            finally:
                begun.set()

    tell_runs_elsewhere()
    # The context knows the cell in which the thread's output belongs.
    thread = BackgroundRun(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    with interrupted_as(GOES_ON):
        while not begun.wait(LOOK):
            act_on_interrupt()
    if errors and not screen.began:
        call(screen, partial(_raise, errors[0]))
    print("training in the background: %pause, %resume, %stop")


def _raise(error: BaseException, cbs: list[Callback]) -> None:
    raise error


def _line(learn: Learner, result: FitResult) -> str:
    """How a run ended, and what it gave where the cell does not show that as its value."""
    stopped = stopped_text(learn) if result.status == "stopped" else ""
    return stopped or (result.summary if kernel_runs() else "")
