"""Watched: a pass over some data, of a magic or a method, with progress and a button to stop it."""

from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError

from nbfinetune.learner import Learner
from nbfinetune.live.cell_errors import Interrupted
from nbfinetune.live.progress import InferenceProgress, kernel_runs, static
from nbfinetune.live.screens import LiveInference, pumping_events
from nbfinetune.rendering.names import printable
from nbfinetune.runtime.cpu_contention import one_thread_if_busy
from nbfinetune.training.printing import say
from nbfinetune.training.state import Callback

Screen = InferenceProgress | LiveInference


def call(screen: Callback, run: Callable, *, one_line: bool = True) -> Any:
    """Do `run(cbs=[screen])`; bad arguments end the cell with one line.

    An error of the run itself, after the screen saw it begin, keeps its traceback.

    Parameters
    ----------
    one_line : False for methods, which raise what they raise in any Python
    """
    try:
        return run(cbs=[screen])
    except (ValueError, TypeError, RuntimeError) as error:
        if screen.began or not one_line:
            raise
        raise UsageError(printable(str(error))) from None


def watched(learn: Learner, run: Callable, n_batches: int, *, one_line: bool) -> Any:
    """Do `run(cbs=...)`, a pass of so many batches, 0 = not known; see `call` for `one_line`."""
    live = kernel_runs() and not static()
    screen = LiveInference(n_batches) if live else InferenceProgress(n_batches)
    try:
        with pumping_events(learn), one_thread_if_busy(learn.device) as text:
            say(text)
            return call(screen, run, one_line=one_line)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing was changed") from None
    finally:
        screen.close()
