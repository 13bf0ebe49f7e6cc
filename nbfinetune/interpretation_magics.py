"""Interpretation magics: what is confused, the pictures of it, and corrections of labels."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import ipywidgets
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments
from IPython.display import display

from nbfinetune.corrections import CORRECTIONS, Corrections
from nbfinetune.interpretation import NORMALIZE, ClassificationInterpretation
from nbfinetune.label_issues import label_issues
from nbfinetune.learner import Learner
from nbfinetune.live import LivePass, pumped, show_with_twin
from nbfinetune.magic_lines import learner_arg, option, parse_line, parse_options, static_arg
from nbfinetune.magic_runs import Interrupted, call, shows_widgets, wait_for
from nbfinetune.matrix_report import ItemsReport, MatrixReport, confused_table
from nbfinetune.matrix_view import ORDERS
from nbfinetune.prediction import loader_of
from nbfinetune.progress import PassProgress, kernel_runs, static
from nbfinetune.reports import Table
from nbfinetune.shown import Shown
from nbfinetune.widgets.closing import close_widgets
from nbfinetune.widgets.confused_pairs import ConfusedPairs
from nbfinetune.widgets.confusion_matrix import ConfusionMatrix
from nbfinetune.widgets.item_gallery import ItemGallery

_SIZE, _DPI = 640, 60  # px of a matrix; fastai's usual dpi

_CORRECTIONS: WeakKeyDictionary[InteractiveShell, Corrections] = WeakKeyDictionary()

ds_arg = option("ds", choices=("valid", "train"), default="valid", help="part; default: valid")


@magics_class
class InterpretationMagics(Magics):
    """The magics that show what a learner gets wrong, and correct labels."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.shown = Shown(shell, (ConfusionMatrix, ConfusedPairs, ItemGallery))
        # Of the shell: reloading the extension or making a new learner loses no mark.
        self.corrections = _CORRECTIONS.setdefault(shell, Corrections())
        self._screens: dict[str, tuple[int, list[ipywidgets.Widget]]] = {}

    @line_magic
    @magic_arguments()
    @ds_arg
    @option("normalize", choices=NORMALIZE, default="none", help="shares of what; default: none")
    @option("top", type=int, help="classes shown at once; default: all up to 60, else 30")
    @option("order", choices=ORDERS, help="of the classes; default: vocab, above 60 error")
    @option("min-val", type=int, default=1, help="least count of an error; default: 1")
    @option("vs", metavar="RUN", help="earlier: variable of a confusion matrix or interpretation")
    @option("figsize", metavar="W,H", help="in inches, as in fastai")
    @option("dpi", type=int, default=_DPI, help=f"px of an inch; default: {_DPI}")
    @static_arg
    @learner_arg
    def confusion_matrix(self, line: str) -> ConfusionMatrix | None:
        """Show what is confused with what; a cell opens its pictures.

        Examples
        --------
        cm = %confusion_matrix
        %confusion_matrix --ds train --order cluster --vs cm
        """
        learn, args, quiet = parse_line(self.confusion_matrix, line, self.shell.user_ns)
        earlier = args.pop("vs", None)
        before = None if earlier is None else self._interpretation(earlier)
        if args.get("top", 1) < 1:
            raise UsageError(f"--top {args['top']}: give the number of classes to show, from 1 up")
        size = _size(args.pop("figsize", None), args.pop("dpi"))
        no_widgets = args.pop("no_widgets")
        interp = self._interpret(learn, args.pop("ds"))
        with _one_line():
            change = before and before.compare(interp)
            matrix = ConfusionMatrix(interp, self.corrections, size=size, change=change, **args)
        note = f"since {earlier}: {change!r}" if change else ""
        report = MatrixReport(interp, matrix.view, args["min_val"], note)
        return self._show(matrix, report, quiet=quiet, no_widgets=no_widgets)

    @line_magic
    @magic_arguments()
    @argument("min_val", nargs="?", type=int, default=1, help="least count of a pair; default: 1")
    @ds_arg
    @static_arg
    @learner_arg
    def most_confused(self, line: str) -> ConfusedPairs | None:
        """List the pairs that are confused most; each opens its pictures.

        Examples
        --------
        %most_confused
        %most_confused 3 --ds train
        """
        learn, args, quiet = parse_line(self.most_confused, line, self.shell.user_ns)
        interp = self._interpret(learn, args["ds"])
        with _one_line():
            pairs = interp.confused_cells(args["min_val"])
        widget = ConfusedPairs(interp, pairs, self.corrections)
        table = confused_table(interp, args["min_val"])
        return self._show(widget, table, quiet=quiet, no_widgets=args["no_widgets"])

    @line_magic
    @magic_arguments()
    @argument("k", nargs="?", type=int, default=36, help="pictures; default: 36")
    @option("smallest", action="store_true", help="the smallest losses instead")
    @ds_arg
    @static_arg
    @learner_arg
    def top_losses(self, line: str) -> ItemGallery | None:
        """Show the pictures with the largest losses.

        Examples
        --------
        %top_losses
        %top_losses 9 --ds train
        """
        learn, args, quiet = parse_line(self.top_losses, line, self.shell.user_ns)
        if args["k"] < 1:
            raise UsageError(f"{args['k']} pictures; give a number from 1 up")
        interp = self._interpret(learn, args["ds"])
        _, items = interp.top_losses(args["k"], largest=not args["smallest"])
        which = "smallest" if args["smallest"] else "largest"
        heading = f"the {len(items)} {which} losses of {len(interp):,} items"
        return self._gallery(interp, items.tolist(), heading, args, quiet=quiet)

    @line_magic
    @magic_arguments()
    @argument("k", nargs="?", type=int, help="pictures at most; default: all that are suspected")
    @option("ds", choices=("valid", "train", "all"), default="all", help="part; default: all")
    @static_arg
    @learner_arg
    def label_issues(self, line: str) -> ItemGallery | None:
        """Show the pictures whose labels are probably wrong, the most probable first.

        Examples
        --------
        %label_issues
        issues = %label_issues 36 --ds train
        """
        learn, args, quiet = parse_line(self.label_issues, line, self.shell.user_ns)
        parts = ("train", "valid") if args["ds"] == "all" else (args["ds"],)
        interp, items = self._pass(learn, partial(label_issues, learn, args["ds"]), parts)
        shown = items[: args.get("k", len(items))]
        heading = f"{len(items)} of {len(interp):,} labels are probably wrong"
        if len(shown) < len(items):
            heading += f", these {len(shown)} first of all"
        return self._gallery(interp, shown, heading, args, quiet=quiet)

    @line_magic
    @magic_arguments()
    @option("apply", nargs="?", const=CORRECTIONS, metavar="FILE", help="write the marks to FILE")
    @option("undo", action="store_true", help="take back the last mark, or else the last --apply")
    def clean(self, line: str) -> Table | None:
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
        with _one_line():
            if args["undo"]:
                print(corrections.undo())
                return None
            if "apply" in args:
                n = len(corrections.marks)
                file = corrections.apply(args["apply"].strip("\"'"))
                here = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
                print(f"{n} corrections written; ImageDataLoaders.from_...(corrections='{here}')")
                print("uses them, %clean --undo takes them back")
                return None
        return None if quiet else corrections.table()

    def _interpret(self, learn: Learner, ds: str) -> ClassificationInterpretation:
        predict = partial(ClassificationInterpretation.from_learner, learn, ds)
        return self._pass(learn, predict, (ds,))

    def _pass(self, learn: Learner, predict: Callable, parts: Sequence[str]) -> Any:
        """What `predict(cbs=...)` gives of these parts of the data, with progress and Stop."""
        wait_for(learn)
        try:
            n = sum(len(loader_of(learn, part)) for part in parts)
        except (ValueError, RuntimeError) as error:
            raise UsageError(str(error)) from None
        screen = LivePass(n) if kernel_runs() and not static() else PassProgress(n)
        try:
            with pumped(learn):
                return call(screen, predict)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; nothing was changed") from None
        finally:
            screen.close()

    def _interpretation(self, name: str) -> ClassificationInterpretation:
        """What a variable holds, or a widget in it shows."""
        value = self.shell.user_ns.get(name)
        interp = getattr(value, "interp", value)
        if not isinstance(interp, ClassificationInterpretation):
            raise UsageError(
                f"--vs {name}: give a variable that holds an earlier matrix, as in "
                "cm = %confusion_matrix, or a ClassificationInterpretation"
            )
        return interp

    def _gallery(
        self,
        interp: ClassificationInterpretation,
        items: Sequence[int],
        heading: str,
        args: dict[str, Any],
        *,
        quiet: bool,
    ) -> ItemGallery | None:
        gallery = ItemGallery(interp, items, heading, self.corrections)
        report = ItemsReport(interp, items, heading)
        return self._show(gallery, report, quiet=quiet, no_widgets=args["no_widgets"])

    def _show(
        self, screen: ipywidgets.Widget, report: object, *, quiet: bool, no_widgets: bool
    ) -> ipywidgets.Widget | None:
        """Show the screen and what stays of it; the latter alone where there are no widgets."""
        if shows_widgets(no_widgets):
            self._close_earlier(screen)
            show_with_twin(screen, report, screen.status)
        else:
            display(report)
        self.shown.note(screen)
        return None if quiet else screen

    def _close_earlier(self, screen: ipywidgets.Widget) -> None:
        """Close what the cell showed when it ran before: it is gone, and would keep the data."""
        cell = self.shell.get_parent().get("metadata", {}).get("cellId")
        if cell is None:
            return
        run, screens = self._screens.get(cell, (0, []))
        if run != self.shell.execution_count:  # else they are those of this run
            for earlier in screens:
                close_widgets(earlier)
            screens = []
        self._screens[cell] = self.shell.execution_count, [*screens, screen]


@contextmanager
def _one_line() -> Iterator[None]:
    """Bad arguments and files end the cell with one line."""
    try:
        yield
    except (ValueError, TypeError, OSError, csv.Error) as error:
        raise UsageError(str(error)) from None


def _size(figsize: str | None, dpi: int) -> int:
    """Px of the matrix's side."""
    if figsize is None:
        return _SIZE * dpi // _DPI
    try:
        inches = [float(part) for part in figsize.strip("()").split(",")]
    except ValueError:
        inches = []
    if len(inches) != 2 or min(inches) <= 0:
        raise UsageError(f"--figsize {figsize!r}: give two lengths in inches, such as 12,12")
    return max(int(min(inches) * dpi), 100)
