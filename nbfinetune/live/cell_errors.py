"""Cell errors: what ends a cell with one line in place of a traceback."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

from IPython.core.error import UsageError

from nbfinetune.cluster.errors import ClusterError, EngineLost
from nbfinetune.rendering.names import printable
from nbfinetune.runtime.interrupts import act_on_interrupt, interrupts_deferred


class Interrupted(KeyboardInterrupt):
    """Ends an interrupted cell with one line; cells queued behind it do not run."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@contextmanager
def interrupted_as(text: str) -> Iterator[None]:
    """An interrupt in the body ends the cell with one line."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(text) from None


def in_one_line(function: Callable) -> Callable:
    """Lets an interrupt act only where nothing is half done, and end the cell with one line.

    It wraps a magic, or what shows a run of a method.
    """

    @wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        try:
            with interrupts_deferred():
                result = function(*args, **kwargs)
                act_on_interrupt()
                return result
        except Interrupted:
            raise
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None

    return call


@contextmanager
def one_line() -> Iterator[None]:
    """Bad arguments and files, and clusters that fail, end the cell with one line."""
    try:
        yield
    except (ValueError, TypeError, OSError, csv.Error, ClusterError, EngineLost) as error:
        raise UsageError(printable(str(error))) from None


@contextmanager
def refused_in_one_line() -> Iterator[None]:
    """What this package refuses ends the cell with one line; errors of others keep a traceback."""
    try:
        yield
    except ValueError as error:
        if not _raised_here(error):
            raise
        raise UsageError(printable(str(error))) from None


def _raised_here(error: Exception) -> bool:
    """Whether the error was raised by this package's own code, not by what it called."""
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "").startswith("nbfinetune.")
