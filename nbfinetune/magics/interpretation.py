"""Interpretation magics: what is confused, the pictures of it, and corrections of labels."""

from functools import cached_property
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class, needs_local_scope
from IPython.core.magic_arguments import argument, magic_arguments

from nbfinetune.data.corrections import CORRECTIONS, Corrections
from nbfinetune.interpretation.matrix_options import NORMALIZE, ORDERS
from nbfinetune.live.cell_errors import one_line
from nbfinetune.live.display_hook import DisplayHook
from nbfinetune.magics.lines import (
    cluster_arg,
    learner_arg,
    option,
    parse_line,
    parse_options,
    scope_of,
    static_arg,
    workers_arg,
    workers_of,
)
from nbfinetune.rendering.names import printable

if TYPE_CHECKING:
    from nbfinetune.live.inference_runs import InferenceRuns
    from nbfinetune.rendering.tables import Table
    from nbfinetune.widgets.confused_pairs import ConfusedPairs
    from nbfinetune.widgets.confusion_matrix import ConfusionMatrix
    from nbfinetune.widgets.item_gallery import ItemGallery

_DPI, _SMALLEST = 96, 100  # px of an inch in CSS, and of a matrix

_CORRECTIONS: WeakKeyDictionary[InteractiveShell, Corrections] = WeakKeyDictionary()

ds_arg = option("ds", choices=("valid", "train"), default="valid", help="part; default: valid")


@magics_class
class InterpretationMagics(Magics):
    """The magics that show what a learner gets wrong, and correct labels."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.display_hook = DisplayHook(shell)
        # Of the shell: reloading the extension or making a new learner loses no mark.
        self.corrections = _CORRECTIONS.setdefault(shell, Corrections())

    @cached_property
    def inference(self) -> "InferenceRuns":
        """What predicts; with it come torch and widgets, which loading does not import."""
        from nbfinetune.live.inference_runs import InferenceRuns

        return InferenceRuns(self.shell, self.corrections, self.display_hook)

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @ds_arg
    @option("normalize", choices=NORMALIZE, default="none", help="shares of what; default: none")
    @option("top", type=int, help="classes shown at once; default: all up to 60, else 30")
    @option("order", choices=ORDERS, help="of the classes; default: vocab, above 60 error")
    @option("min-val", type=int, default=1, help="least count of an error; default: 1")
    @option("vs", metavar="RUN", help="earlier: variable of a confusion matrix or interpretation")
    @option("figsize", metavar="W,H", help="in inches, such as 10,10; default: fits the window")
    @option("dpi", type=int, help=f"px of an inch of figsize; default: {_DPI}")
    @workers_arg
    @cluster_arg
    @static_arg
    @learner_arg
    def confusion_matrix(self, line: str, local_ns: dict | None = None) -> "ConfusionMatrix | None":
        """Show what is confused with what; a cell opens its pictures.

        Examples
        --------
        cm = %confusion_matrix
        %confusion_matrix --ds train --order cluster --vs cm
        """
        scope = scope_of(self.shell, local_ns)
        learn, args, quiet = parse_line(self.confusion_matrix, line, scope)
        if args.get("top", 1) < 1:
            raise UsageError(f"--top {args['top']}: give the number of classes to show, from 1 up")
        args["by"] = workers_of(args)
        args["size"] = _size(args.pop("figsize", None), args.pop("dpi", None))
        matrix = self.inference.confusion_matrix(learn, scope=scope, **args)
        return None if quiet else matrix

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @argument("min_val", nargs="?", type=int, default=1, help="least count of a pair; default: 1")
    @ds_arg
    @workers_arg
    @cluster_arg
    @static_arg
    @learner_arg
    def most_confused(self, line: str, local_ns: dict | None = None) -> "ConfusedPairs | None":
        """List the pairs that are confused most; each opens its pictures.

        Examples
        --------
        %most_confused
        %most_confused 3 --ds train
        """
        learn, args, quiet = parse_line(self.most_confused, line, scope_of(self.shell, local_ns))
        pairs = self.inference.most_confused(learn, by=workers_of(args), **args)
        return None if quiet else pairs

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @argument("k", nargs="?", type=int, default=36, help="pictures; default: 36")
    @option("smallest", action="store_true", help="the smallest losses instead")
    @ds_arg
    @workers_arg
    @cluster_arg
    @static_arg
    @learner_arg
    def top_losses(self, line: str, local_ns: dict | None = None) -> "ItemGallery | None":
        """Show the pictures with the largest losses.

        Examples
        --------
        %top_losses
        %top_losses 9 --ds train
        """
        learn, args, quiet = parse_line(self.top_losses, line, scope_of(self.shell, local_ns))
        if args["k"] < 1:
            raise UsageError(f"{args['k']} pictures; give a number from 1 up")
        gallery = self.inference.top_losses(learn, by=workers_of(args), **args)
        return None if quiet else gallery

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @argument("k", nargs="?", type=int, help="how many pictures; default: those worth a look")
    @option("ds", choices=("valid", "train", "all"), default="all", help="part; default: all")
    @workers_arg
    @cluster_arg
    @static_arg
    @learner_arg
    def label_issues(self, line: str, local_ns: dict | None = None) -> "ItemGallery | None":
        """Show the pictures whose labels are worth a look, or the first k, least probable first.

        Examples
        --------
        %label_issues
        issues = %label_issues 36 --ds train
        """
        learn, args, quiet = parse_line(self.label_issues, line, scope_of(self.shell, local_ns))
        gallery = self.inference.label_issues(learn, by=workers_of(args), **args)
        return None if quiet else gallery

    @line_magic
    @magic_arguments()
    @option("apply", nargs="?", const=CORRECTIONS, metavar="FILE", help="write the marks to FILE")
    @option("undo", action="store_true", help="take back the last mark, or else the last --apply")
    def clean(self, line: str) -> "Table | None":
        """List the marks on pictures, or write them to a CSV file that ImageDataLoaders reads.

        Examples
        --------
        %clean
        %clean --apply corrections.csv
        """
        args, quiet = parse_options(self.clean, line)
        corrections = self.corrections
        if args["undo"] and "apply" in args:
            raise UsageError("--apply and --undo; give one of them")
        with one_line():
            if args["undo"]:
                print(printable(corrections.undo()))
                return None
            if "apply" in args:
                file = corrections.apply(args["apply"].strip("\"'"))
                here = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
                print(printable(corrections.said))
                print(f"ImageDataLoaders.from_...(corrections={str(here)!r}) uses the file")
                print("%clean --undo takes back what was written")
                return None
        return None if quiet else corrections.table()


def _size(figsize: str | None, dpi: int | None) -> int:
    """Px of the matrix's side, 0 if none is given."""
    if figsize is None:
        if dpi is not None:
            raise UsageError(f"--dpi {dpi} is for --figsize; give both, such as --figsize 10,10")
        return 0
    try:
        inches = [float(part) for part in figsize.strip("()").split(",")]
    except ValueError:
        inches = []
    if len(inches) not in (1, 2) or not all(0 < side < inf for side in inches):
        raise UsageError(f"--figsize {figsize!r}: give one or two lengths in inches, such as 10,10")
    dpi = _DPI if dpi is None else dpi
    if dpi < 1:
        raise UsageError(f"--dpi {dpi}: give px of an inch, from 1 up; default: {_DPI}")
    return max(round(min(inches) * dpi), _SMALLEST)
