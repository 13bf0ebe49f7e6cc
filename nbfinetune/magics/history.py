"""History magics: what was trained, in this kernel and in others, and going on with it."""

from functools import partial
from typing import TYPE_CHECKING

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class, needs_local_scope
from IPython.core.magic_arguments import argument, magic_arguments

from nbfinetune.live.background import wait_until_idle
from nbfinetune.magics.lines import (
    cluster_arg,
    learner_arg,
    option,
    parse_line,
    scope_of,
    static_arg,
    workers_arg,
    workers_of,
)
from nbfinetune.magics.training import TrainingMagics, bg_arg

if TYPE_CHECKING:
    from nbfinetune.history.recorder import FitResult
    from nbfinetune.rendering.tables import Table


@magics_class
class HistoryMagics(Magics):
    """The magics that list runs, show them again, follow them and go on with them.

    Parameters
    ----------
    training : whose screens a run that goes on has
    """

    def __init__(self, shell: InteractiveShell, training: TrainingMagics) -> None:
        super().__init__(shell)
        self._training = training

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @argument("n", nargs="*", help="numbers of runs: one is shown, several are laid over another")
    @learner_arg
    def runs(self, line: str, local_ns: dict | None = None) -> object:
        """List all searches and fits, those of killed kernels too, or show some of them again.

        Examples
        --------
        %runs
        %runs 2 5
        """
        learn, args, quiet = parse_line(self.runs, line, scope_of(self.shell, local_ns))
        try:
            shown = learn.ledger(*args["n"])
        except ValueError as error:
            raise UsageError(str(error)) from None
        return None if quiet else shown

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @argument("number", type=int, nargs="?", help="of --list; default: the newest that fits")
    @option("list", action="store_true", help="list the runs that could go on")
    @workers_arg
    @cluster_arg
    @bg_arg
    @static_arg
    @learner_arg
    def resume_run(self, line: str, local_ns: dict | None = None) -> "FitResult | Table | None":
        """Go on with a run whose kernel was killed, after data and learner were made as before.

        Examples
        --------
        %resume_run
        %resume_run --list
        """
        learn, args, quiet = parse_line(self.resume_run, line, scope_of(self.shell, local_ns))
        if args.pop("list"):
            return None if quiet else learn.left_runs()
        how = {"no_widgets": args.pop("no_widgets"), "bg": args.pop("bg"), "one_line": True}
        run = partial(learn.resume_run, args.get("number"), **workers_of(args), show=False)
        result = self._training.training_runs.fit(learn, run, **how)
        return None if quiet else result

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @cluster_arg
    @bg_arg
    @static_arg
    @learner_arg
    def attach(self, line: str, local_ns: dict | None = None) -> "FitResult | None":
        """Follow a fit that workers do for a kernel that is gone; make data and learner as before.

        Examples
        --------
        %attach
        %attach --cluster slurm
        """
        learn, args, quiet = parse_line(self.attach, line, scope_of(self.shell, local_ns))
        how = {"no_widgets": args.pop("no_widgets"), "bg": args.pop("bg"), "one_line": True}
        run = partial(learn.attach, **args, show=False)
        result = self._training.training_runs.fit(learn, run, **how)
        return None if quiet else result

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @learner_arg
    def undo_fit(self, line: str, local_ns: dict | None = None) -> None:
        """Take the last fit back: weights, optimizer, random numbers and history, bit for bit.

        Examples
        --------
        %undo_fit
        %undo_fit -l learn
        """
        learn, _, _ = parse_line(self.undo_fit, line, scope_of(self.shell, local_ns))
        wait_until_idle(learn)
        try:
            print(learn.undo_fit())
        except ValueError as error:
            raise UsageError(str(error)) from None
