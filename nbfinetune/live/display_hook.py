"""Display hook: a result that its cell has on the screen already is not displayed once more."""

from collections.abc import Callable
from weakref import ref

from IPython.core.interactiveshell import InteractiveShell


class DisplayHook:
    """Knows the newest result that was displayed, and in which cell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._kinds: set[type] = set()
        self._value: Callable[[], object] = lambda: None  # a reference that keeps nothing
        self._cell = 0

    def note(self, value: object) -> None:
        """`value` was displayed by the cell that is running."""
        self._value, self._cell = ref(value), self._shell.execution_count
        self._kinds.add(type(value))
        # This formatter is asked first, and may show a value in its own way.
        self._formatter().for_type(type(value), self._show)

    def unload(self) -> None:
        """Show all values as before."""
        for kind in self._kinds:
            self._formatter().pop(kind)

    def _formatter(self):
        return self._shell.display_formatter.ipython_display_formatter

    def _show(self, value: object) -> None:
        """Nothing, if it was; else as IPython shows any value."""
        if value is not self._value() or self._cell != self._shell.execution_count:
            raise NotImplementedError
        self._value = lambda: None
