"""Kept runs: what makes a method of the learner a call that is written, and can be taken back."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from inspect import BoundArguments, signature

from nbfinetune.arguments import as_whole_number
from nbfinetune.rendering.names import shown
from nbfinetune.training.resuming.keeper import Keeper
from nbfinetune.training.resuming.undo import fits_to_undo
from nbfinetune.training.state import LearnerState


def checked_interval(checkpoint: object) -> int | None:
    """Steps between two checkpoints; 0 = none are written, None = at the ends of epochs.

    Raises
    ------
    ValueError
        If it is neither None, "off" nor a number of steps.
    """
    if checkpoint is None or checkpoint == "epoch":
        return None
    if checkpoint == "off" or checkpoint is False:
        return 0
    try:
        return as_whole_number("checkpoint", checkpoint, 1)
    except (ValueError, TypeError):
        raise ValueError(
            f'checkpoint is {shown(checkpoint)}; it must be a number of steps, "epoch" or "off"'
        ) from None


def kept_run(method: Callable) -> Callable:
    """Makes a fit method write checkpoints; see `fit` for its argument `checkpoint`."""
    arguments = signature(method)

    @wraps(method)
    def call(learn: LearnerState, *args, checkpoint: object = None, **kwargs) -> object:
        every = checked_interval(checkpoint)
        if learn.keeper is not None:  # a call within a call
            return method(learn, *args, **kwargs)
        try:
            bound: BoundArguments = arguments.bind(learn, *args, **kwargs)
        except TypeError:
            return method(learn, *args, **kwargs)  # which says what is wrong
        given = dict(bound.arguments)
        given.pop(next(iter(given)))
        resumed, learn.resumed = learn.resumed, None
        if learn.dls is None:
            return method(learn, *args, **kwargs)
        name = method.__name__
        with ExitStack() as stack:
            if resumed is None:
                everything = name == "fine_tune" or bool(given.get("cbs") or learn.cbs)
                undo = fits_to_undo(learn)
                stack.enter_context(undo.watching(learn, name, everything=everything))
            stack.enter_context(keeping(learn, Keeper(learn, name, given, every, resumed)))
            return method(learn, *args, **kwargs)

    return call


@contextmanager
def keeping(learn: LearnerState, keeper: Keeper) -> Iterator[None]:
    """Inside is a call that the keeper writes."""
    learn.keeper, status = keeper, "failed"
    try:
        keeper.begin(learn)
        with keeper.termination.held():
            yield
        status = learn.status
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        learn.keeper = learn.place = None
        keeper.end(learn, status)
