"""Cell errors: what ends a cell with one line in place of a traceback."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager

from IPython.core.error import UsageError

from nbfinetune.rendering.names import printable


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


@contextmanager
def one_line() -> Iterator[None]:
    """Bad arguments and files end the cell with one line."""
    try:
        yield
    except (ValueError, TypeError, OSError, csv.Error) as error:
        raise UsageError(printable(str(error))) from None
