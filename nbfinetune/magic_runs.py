"""Runs started by magics: their screen, in the cell or in the background, and the rates found."""

import threading
import traceback
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from time import sleep
from typing import Any
from weakref import WeakKeyDictionary, ref

from IPython.core.error import UsageError

from nbfinetune.callbacks import Callback
from nbfinetune.event_pump import EventPump
from nbfinetune.layer_groups import lr_per_group, lr_text
from nbfinetune.learner import Learner
from nbfinetune.live import LiveSearch, LiveTraining, pumped
from nbfinetune.lr_finder import search_cost
from nbfinetune.lr_results import LRFindComparison, LRFindResult
from nbfinetune.progress import EpochTable, SearchProgress, ended_text, kernel_runs, static
from nbfinetune.recorder import FitResult

_LOOK = 0.05  # seconds between two looks at a run in the background
_START_LR, _END_LR = 1e-7, 10.0  # the axis of a search that is not told another (lr_find's)

Screen = EpochTable | SearchProgress | LiveTraining | LiveSearch


class Interrupted(KeyboardInterrupt):
    """Ends an interrupted cell with one line; cells queued behind it do not run."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class MagicRuns:
    """The runs of the magics, and the learning rates that searches found.

    Attributes
    ----------
    found : learner -> its last search
    picked : learner -> the rate that was picked in the plot of that search
    plots : learner -> the plot of that search
    shown : the result that is on the screen already
    """

    def __init__(self) -> None:
        self.found: WeakKeyDictionary[Learner, LRFindResult | LRFindComparison] = (
            WeakKeyDictionary()
        )
        self.picked: WeakKeyDictionary[Learner, float] = WeakKeyDictionary()
        self.plots: WeakKeyDictionary[Learner, LiveSearch] = WeakKeyDictionary()
        self.shown: LRFindResult | None = None

    def rate_found(self, learn: Learner) -> str | None:
        """Where `learn.lr` comes from if it was found or picked, else None."""
        found = self.found.get(learn)
        if found is None:
            return None
        if found.lr == learn.lr:
            return "as %lr_find found"
        return "as picked in its plot" if self.picked.get(learn) == learn.lr else None

    def fit(
        self, learn: Learner, fit: Callable[..., FitResult], *, no_widgets: bool, bg: bool
    ) -> FitResult | None:
        """Run `fit(cbs=...)` of the learner with a screen."""
        if not bg:
            wait_for(learn)
        elif learn.control.running:
            raise UsageError("this learner trains in the background already; %stop ends that")
        screen = LiveTraining() if shows_widgets(no_widgets) else EpochTable()
        if bg:
            return _in_background(learn, fit, screen)
        with pumped(learn):
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
        wait_for(learn)
        if earlier := self.plots.pop(learn, None):
            earlier.retire()
        repeats = {k: args[k] for k in ("num_it", "seeds", "groups", "verify")}
        n_steps, what = search_cost(learn, **repeats)
        cost = f"{what}: {n_steps} steps at most" if n_steps > args["num_it"] else ""
        live = shows_widgets(no_widgets) and not args["groups"]
        ends = args.get("start_lr", _START_LR), args.get("end_lr", _END_LR)
        screen = LiveSearch(*ends, n_steps, cost) if live else SearchProgress(n_steps, cost)
        with pumped(learn) as pump:
            found = self._call_search(screen, learn, args)
            self.found[learn] = found
            if found.lr is not None:
                learn.lr = found.lr
            how = "as before; no suggestion" if found.lr is None else found.chosen
            if not live:
                screen.close(f"next run: {lr_text(learn.lr)} ({how})")
                return found
            screen.show(found, lr_per_group(learn.lr, len(learn.groups))[-1], how, pump)
            self.shown = found
        # The plot must not keep the learner, nor its network, in memory.
        observed = ref(learn)
        screen.plot.observe(lambda change: self._pick(observed(), change["new"]), "lr")
        self.plots[learn] = screen
        return found

    def _call_search(
        self, screen: LiveSearch | SearchProgress, learn: Learner, args: dict[str, Any]
    ) -> LRFindResult | LRFindComparison:
        try:
            return call(screen, lambda **kwargs: learn.lr_find(**args, **kwargs))
        except KeyboardInterrupt:
            screen.close("lr_find was interrupted; nothing was changed")
            raise Interrupted("interrupted; nothing was changed") from None
        except BaseException:
            screen.close("lr_find ended with an error; nothing was changed")
            raise

    def _pick(self, learn: Learner | None, lr: float) -> None:
        if learn is not None:
            learn.lr = self.picked[learn] = lr


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
        raise UsageError(str(error)) from None


def wait_for(learn: Learner) -> None:
    """Wait for the learner's run in the background, if there is one."""
    thread = learn.control.thread
    if thread is None or thread is threading.current_thread():
        return
    print("waiting for the run in the background", flush=True)
    with EventPump() as pump:  # for clicks on any screen; the run itself must not poll it
        try:
            while thread.is_alive():  # until its screen is closed too
                sleep(_LOOK)
                pump.poll()
        except KeyboardInterrupt:
            text = "interrupted; the run in the background goes on, %stop ends it"
            raise Interrupted(text) from None


class _Begun(Callback):
    """Sets an event when the run begins."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def before_fit(self, learn: Learner) -> None:
        self.event.set()


def _in_background(
    learn: Learner, fit: Callable[..., FitResult], screen: EpochTable | LiveTraining
) -> None:
    """Run `fit` in a thread; returns when it has begun. Bad arguments are raised here."""
    begun, errors = _Begun(), []

    def work() -> None:
        text = ""
        try:
            text = _ended(learn, fit(cbs=[screen, begun]))
        except BaseException as error:
            errors.append(error)
            text = f"failed: {type(error).__name__}: {error}"
            if screen.began:  # nobody waits for it any more
                traceback.print_exception(error)
        finally:
            screen.close(text)
            begun.event.set()

    # The context knows the cell in which the thread's output belongs.
    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    begun.event.wait()
    if errors and not screen.began:
        call(screen, partial(_raise, errors[0]))
    print("training in the background: %pause, %resume, %stop")


def _raise(error: BaseException, cbs: list[Callback]) -> None:
    raise error


def _ended(learn: Learner, result: FitResult) -> str:
    """How a run ended by hand."""
    return ended_text(learn) if result.status == "stopped" else ""
