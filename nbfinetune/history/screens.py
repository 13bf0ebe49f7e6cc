"""Screens: who shows the runs of methods. It is put in from outside: this knows no notebook."""

from collections.abc import Callable
from typing import Protocol


class Screens(Protocol):
    """Shows runs while they go on."""

    def fit(self, learn: object, run: Callable) -> object:
        """Do `run(callbacks)`, a fit of the learner, with callbacks that show it."""

    def search(self, learn: object, run: Callable, options: dict) -> object:
        """The same of a search; `options` are the arguments of `lr_find`."""

    def demo(self, learn: object) -> object:
        """Show a screen that predicts pictures of the user's with the learner."""

    def infer(self, learn: object, run: Callable, options: dict) -> object:
        """The same of a pass over some data; `options` are the arguments of `get_preds`."""

    def hide(self, result: object) -> None:
        """A result of the cell that runs, which is not to be shown as its value."""


# What makes them, so that loading an extension imports nothing; None prints lines of text.
make_screens: Callable[[], Screens] | None = None
