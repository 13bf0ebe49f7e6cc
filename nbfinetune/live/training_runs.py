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
from nbfinetune.learner import Learner
from nbfinetune.live.background import BackgroundRun, wait_until_idle
from nbfinetune.live.cell_errors import Interrupted, interrupted_as
from nbfinetune.live.display_hook import DisplayHook
from nbfinetune.live.progress import EpochTable, SearchProgress, ended_text, kernel_runs, static
from nbfinetune.live.screens import LiveSearch, LiveTraining, pumping_events
from nbfinetune.lr_finder.results import LRFindComparison, LRFindResult
from nbfinetune.lr_finder.search import search_cost
from nbfinetune.networks.layer_groups import LearningRate, lr_per_group, lr_text
from nbfinetune.rendering.names import printable
from nbfinetune.training.fitting import BASE_LR
from nbfinetune.training.state import Callback

_START_LR, _END_LR = 1e-7, 10.0  # the axis of a search that is not told another (lr_find's)

Screen = EpochTable | SearchProgress | LiveTraining | LiveSearch


class TrainingRuns:
    """The runs of the magics, and the learning rates that searches found.

    Attributes
    ----------
    found : learner -> its last search
    chosen : learner -> the rate that a search found or that was picked in its plot, and which
    plots : learner -> the plot of that search
    display_hook : gets each result that is on the screen already
    """

    def __init__(self, display_hook: DisplayHook) -> None:
        self.display_hook = display_hook
        self.found: WeakKeyDictionary[Learner, LRFindResult | LRFindComparison] = (
            WeakKeyDictionary()
        )
        self.chosen: WeakKeyDictionary[Learner, tuple[LearningRate, str]] = WeakKeyDictionary()
        self.plots: WeakKeyDictionary[Learner, LiveSearch] = WeakKeyDictionary()

    def rate_found(self, learn: Learner) -> str | None:
        """`learn.lr` and where it comes from if it was found or picked, else None."""
        where = self._where(learn)
        return where and f"{lr_text(learn.lr)}, {where}"

    def _where(self, learn: Learner) -> str | None:
        lr, where = self.chosen.get(learn, (None, ""))
        return where if lr is not None and lr == learn.lr else None

    def fit(
        self, learn: Learner, fit: Callable[..., FitResult], *, no_widgets: bool, bg: bool
    ) -> FitResult | None:
        """Run `fit(cbs=...)` of the learner with a screen."""
        if not bg:
            wait_until_idle(learn)
        elif learn.control.running:
            raise UsageError("this learner trains in the background already; %stop ends that")
        screen = LiveTraining() if shows_widgets(no_widgets) else EpochTable()
        if bg:
            return _in_background(learn, fit, screen)
        with pumping_events(learn) as pump:
            if isinstance(screen, LiveTraining) and not pump.works:
                screen.hint = "buttons act after the cell here; interrupt it to stop the run"
            try:
                result = call(screen, fit)
            except KeyboardInterrupt:
                text = ended_text(learn) if screen.began else "interrupted before it began"
                screen.close()
                raise Interrupted(text) from None
            except BaseException:
                screen.close()
                raise
        screen.close(_ended(learn, result))
        return result

    def search(
        self, learn: Learner, args: dict[str, Any], *, no_widgets: bool
    ) -> LRFindResult | LRFindComparison:
        """Run `learn.lr_find(**args)` with a screen; the next run uses the rate it finds."""
        wait_until_idle(learn)
        try:
            lr_per_group(learn.lr, len(learn.groups))  # shown where nothing is found
        except ValueError as error:
            raise UsageError(f"learn.lr: {error}") from None
        repeats = {k: args[k] for k in ("num_it", "seeds", "groups", "verify")}
        n_steps, what = search_cost(learn, **repeats)
        cost = f"{what}: {n_steps} steps at most" if n_steps > args["num_it"] else ""
        live = shows_widgets(no_widgets) and not args["groups"]
        ends = args.get("start_lr", _START_LR), args.get("end_lr", _END_LR)
        screen = LiveSearch(*ends, n_steps, cost) if live else SearchProgress(n_steps, cost)
        with pumping_events(learn) as pump:
            found = self._call_search(screen, learn, args)
            self.found[learn] = found
            if found.lr is not None:
                learn.lr = found.lr
                self.chosen[learn] = found.lr, "as %lr_find found"
            how = self._how(learn, found)
            if not live:
                screen.close(f"next run: {lr_text(learn.lr)} ({how})", found)
                if kernel_runs():
                    self.display_hook.note(found)
                return found
            # The plot must not keep the learner, nor its network, in memory.
            observed = ref(learn)
            self.plots[learn] = screen
            self.display_hook.note(found)
            with interrupted_as("interrupted; the learning rate was found before"):
                lr = lr_per_group(learn.lr, len(learn.groups))[-1]
                screen.show(found, lr, how, pump, lambda lr: self._pick(observed(), lr))
        return found

    def _how(self, learn: Learner, found: LRFindResult | LRFindComparison) -> str:
        """Where the rate of the next run comes from."""
        if found.lr is not None:
            return found.chosen
        if where := self._where(learn):
            return f"no suggestion; {where} before"
        return f"no suggestion; the default, of %fine_tune {lr_text(BASE_LR)}"

    def _call_search(
        self, screen: LiveSearch | SearchProgress, learn: Learner, args: dict[str, Any]
    ) -> LRFindResult | LRFindComparison:
        begun = _OnBegin(lambda: self._retire(learn))
        try:
            return call(screen, lambda cbs: learn.lr_find(**args, cbs=[begun, *cbs]))
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

    def _pick(self, learn: Learner | None, lr: float) -> None:
        if learn is not None:
            learn.lr = lr
            self.chosen[learn] = lr, "as picked in its plot"


def shows_widgets(no_widgets: bool) -> bool:
    """Whether screens are widgets: in a kernel, unless an option or the environment says no."""
    return kernel_runs() and not no_widgets and not static()


def call(screen: Screen, method: Callable) -> Any:
    """Call a method of the learner; bad arguments end the cell with one line.

    An error of the training itself, after the screen saw it begin, keeps its traceback.
    """
    try:
        return method(cbs=[screen])
    except (ValueError, TypeError, RuntimeError) as error:
        if screen.began:
            raise
        raise UsageError(printable(str(error))) from None


class _OnBegin(Callback):
    """Calls a function when a run begins."""

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
            text = _ended(learn, fit(cbs=[screen, _OnBegin(begun.set)]))
        except BaseException as error:
            errors.append(error)
            text = f"failed: {type(error).__name__}: {error}"
            if screen.began:  # nobody waits for it any more
                traceback.print_exception(error)
        finally:
            screen.close(text)
            begun.set()

    # The context knows the cell in which the thread's output belongs.
    thread = BackgroundRun(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    begun.wait()
    if errors and not screen.began:
        call(screen, partial(_raise, errors[0]))
    print("training in the background: %pause, %resume, %stop")


def _raise(error: BaseException, cbs: list[Callback]) -> None:
    raise error


def _ended(learn: Learner, result: FitResult) -> str:
    """How a run ended by hand."""
    return ended_text(learn) if result.status == "stopped" else ""
