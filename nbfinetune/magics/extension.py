"""Extension: what `%load_ext nbfinetune` adds to a shell, and how it is taken away again."""

import sys

from IPython.core.interactiveshell import InteractiveShell

from nbfinetune.history import screens
from nbfinetune.live.cell_errors import in_one_line
from nbfinetune.magics.cluster import ClusterMagics
from nbfinetune.magics.history import HistoryMagics
from nbfinetune.magics.interpretation import InterpretationMagics
from nbfinetune.magics.lines import option_matcher
from nbfinetune.magics.model import ModelMagics
from nbfinetune.magics.networks import NetworkMagics
from nbfinetune.magics.training import TrainingMagics

_CLASSES = (
    TrainingMagics,
    InterpretationMagics,
    NetworkMagics,
    ModelMagics,
    HistoryMagics,
    ClusterMagics,
)


def _magic_names() -> list[str]:
    return [name for cls in _CLASSES for name in cls.magics["line"]]


def enable_widgets_in_colab() -> None:
    """Colab shows widgets that are not its own, such as the marker, only when it is asked to."""
    if "google.colab" in sys.modules:
        from google.colab import output

        output.enable_custom_widget_manager()


def load(shell: InteractiveShell) -> None:
    """Add the magics and the completion of their options to the shell."""
    enable_widgets_in_colab()
    magics = TrainingMagics(shell)
    magics.shown_by, screens.make_screens = screens.make_screens, lambda: magics.training_runs
    line_magics = shell.magics_manager.magics["line"]
    magics.replaced = {n: line_magics[n] for n in _magic_names() if n in line_magics}
    others = (InterpretationMagics, NetworkMagics, ModelMagics, HistoryMagics(shell, magics))
    shell.register_magics(magics, *others, ClusterMagics)
    for name in _magic_names():
        line_magics[name] = in_one_line(line_magics[name])
    magics.matcher = option_matcher(shell, {n: line_magics[n] for n in _magic_names()})
    shell.Completer.custom_matchers.append(magics.matcher)


def unload(shell: InteractiveShell) -> None:
    """Take out what `load` added; magics of the same names that it hid are back."""
    magics, looks, networks, *_ = (
        shell.magics_manager.registry.pop(cls.__name__) for cls in _CLASSES
    )
    screens.make_screens = magics.shown_by
    for name in _magic_names():
        del shell.magics_manager.magics["line"][name]
    shell.magics_manager.magics["line"].update(magics.replaced)
    shell.Completer.custom_matchers.remove(magics.matcher)
    magics.display_hook.unload()
    looks.display_hook.unload()
    networks.display_hook.unload()
