"""Model magics: which layer groups train, and what the learner is made of."""

import warnings
from typing import TYPE_CHECKING

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class, needs_local_scope
from IPython.core.magic_arguments import argument, magic_arguments

from nbfinetune.live.background import wait_until_idle
from nbfinetune.magics.lines import learner_arg, parse_line, scope_of

if TYPE_CHECKING:
    from nbfinetune.learner import Learner
    from nbfinetune.rendering.tables import Table


@magics_class
class ModelMagics(Magics):
    """The magics that choose what trains and show the learner."""

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @learner_arg
    def freeze(self, line: str, local_ns: dict | None = None) -> None:
        """Train only the head from now on.

        Examples
        --------
        %freeze
        %freeze -l learn
        """
        learn, _, _ = parse_line(self.freeze, line, scope_of(self.shell, local_ns))
        _freeze(learn, -1)

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @learner_arg
    def unfreeze(self, line: str, local_ns: dict | None = None) -> None:
        """Train all layers from now on.

        Examples
        --------
        %unfreeze
        %unfreeze -l learn
        """
        learn, _, _ = parse_line(self.unfreeze, line, scope_of(self.shell, local_ns))
        _freeze(learn, 0)

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @argument("n", type=int, help="first layer group that trains; -1 is the head, 0 trains all")
    @learner_arg
    def freeze_to(self, line: str, local_ns: dict | None = None) -> None:
        """Train layer groups N and above only from now on.

        Examples
        --------
        %freeze_to -2
        %freeze_to 1 -l learn
        """
        learn, args, _ = parse_line(self.freeze_to, line, scope_of(self.shell, local_ns))
        _freeze(learn, args["n"])

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @learner_arg
    def learner_summary(self, line: str, local_ns: dict | None = None) -> "Table | None":
        """Show the layer groups, their parameters and learning rates, and the device.

        Examples
        --------
        %learner_summary
        %learner_summary -l learn
        """
        learn, _, quiet = parse_line(self.learner_summary, line, scope_of(self.shell, local_ns))
        return None if quiet else learn.summary()


def _freeze(learn: "Learner", n: int) -> None:
    """Freeze to group n, and say in one line what trains now, or that nothing changed."""
    wait_until_idle(learn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            learn.freeze_to(n)
        except ValueError as error:
            raise UsageError(str(error)) from None
    print(caught[0].message if caught else learn.frozen_text())
