"""Inference runs: predictions that magics ask for, and the screens of what was found."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from nbfinetune.data.corrections import Corrections
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.item_list import ItemsReport
from nbfinetune.interpretation.label_issues import label_issues
from nbfinetune.interpretation.matrix_report import MatrixReport, confused_table
from nbfinetune.interpretation.prediction import loader_of
from nbfinetune.learner import Learner
from nbfinetune.live.background import wait_until_idle
from nbfinetune.live.cell_errors import one_line, refused_in_one_line
from nbfinetune.live.display_hook import DisplayHook
from nbfinetune.live.screens import show_with_static_view
from nbfinetune.live.training_runs import shows_widgets
from nbfinetune.live.watched import watched
from nbfinetune.rendering.numbers import counted
from nbfinetune.widgets.confused_pairs import ConfusedPairs
from nbfinetune.widgets.confusion_matrix import ConfusionMatrix
from nbfinetune.widgets.disposal import dispose
from nbfinetune.widgets.item_gallery import ItemGallery


class InferenceRuns:
    """What the interpretation magics show, one method for each; arguments are their options.

    Parameters
    ----------
    shell : of the cells
    corrections : the marks on pictures
    display_hook : gets each result that is on the screen already
    """

    def __init__(
        self, shell: InteractiveShell, corrections: Corrections, display_hook: DisplayHook
    ) -> None:
        self._shell, self._corrections, self._display_hook = shell, corrections, display_hook
        self._screens: dict[str, tuple[int, list[ipywidgets.Widget]]] = {}

    def confusion_matrix(
        self,
        learn: Learner,
        *,
        ds: str,
        no_widgets: bool,
        scope: Mapping[str, object],
        by: Mapping[str, object],
        vs: str | None = None,
        **options,
    ) -> ConfusionMatrix:
        """The matrix; `options` are those of the widget, and `scope` the variables for `vs`.

        Parameters
        ----------
        by : the workers that predict, as arguments of a method
        """
        before = None if vs is None else _interpretation(vs, scope)
        interp = self._interpret(learn, ds, by)
        with one_line():
            change = before and before.compare(interp)
            matrix = ConfusionMatrix(interp, self._corrections, change=change, **options)
        note = f"since {vs}: {change!r}" if change else ""
        report = MatrixReport(interp, matrix.view, options["min_val"], note)
        self._show(matrix, report, no_widgets=no_widgets)
        return matrix

    def most_confused(
        self, learn: Learner, *, ds: str, min_val: int, no_widgets: bool, by: Mapping[str, object]
    ) -> ConfusedPairs:
        """The pairs that are confused most."""
        interp = self._interpret(learn, ds, by)
        with one_line():
            pairs = interp.confused_cells(min_val)
        widget = ConfusedPairs(interp, pairs, self._corrections, min_val)
        self._show(widget, confused_table(interp, min_val), no_widgets=no_widgets)
        return widget

    def top_losses(
        self,
        learn: Learner,
        *,
        ds: str,
        k: int,
        smallest: bool,
        no_widgets: bool,
        by: Mapping[str, object],
    ) -> ItemGallery:
        """The k pictures with the largest losses, or the smallest."""
        interp = self._interpret(learn, ds, by)
        _, items = interp.top_losses(k, largest=not smallest)
        which = "smallest" if smallest else "largest"
        losses = f"{which} loss" if len(items) == 1 else f"{len(items):,} {which} losses"
        heading = f"the {losses} of {counted(len(interp), 'item')}"
        return self._gallery(interp, items.tolist(), heading, no_widgets)

    def label_issues(
        self,
        learn: Learner,
        *,
        ds: str,
        no_widgets: bool,
        by: Mapping[str, object],
        k: int | None = None,
    ) -> ItemGallery:
        """The pictures whose labels are worth a look, or the first k of the ranking."""
        parts = ("train", "valid") if ds == "all" else (ds,)
        found = self._infer(learn, partial(label_issues, learn, ds, **by), parts)
        shown, heading = found.items if k is None else found.ranking[:k], found.headline
        if len(shown) != found.n_marked:
            heading += f". Here: the first {len(shown):,} of the ranking"
        return self._gallery(found.interp, shown, heading, no_widgets)

    def _interpret(
        self, learn: Learner, ds: str, by: Mapping[str, object]
    ) -> ClassificationInterpretation:
        predict = partial(ClassificationInterpretation.from_learner, learn, ds, **by)
        return self._infer(learn, predict, (ds,))

    def _infer(self, learn: Learner, predict: Callable, parts: Sequence[str]) -> Any:
        """What `predict(cbs=...)` gives of these parts of the data, with progress and Stop."""
        wait_until_idle(learn)
        try:
            n = sum(len(loader_of(learn, part)) for part in parts)
        except (ValueError, RuntimeError) as error:
            raise UsageError(str(error)) from None
        with refused_in_one_line():
            return watched(learn, predict, n, one_line=True)

    def _gallery(
        self,
        interp: ClassificationInterpretation,
        items: Sequence[int],
        heading: str,
        no_widgets: bool,
    ) -> ItemGallery:
        gallery = ItemGallery(interp, items, heading, self._corrections)
        self._show(gallery, ItemsReport(interp, items, heading), no_widgets=no_widgets)
        return gallery

    def _show(self, screen: ipywidgets.Widget, report: object, *, no_widgets: bool) -> None:
        """Show the screen and what stays of it; the latter alone where there are no widgets."""
        if shows_widgets(no_widgets):
            self._close_earlier(screen)
            show_with_static_view(screen, report, screen.status)
        else:
            display(report)
            dispose(screen)  # open, it would keep the data
        self._display_hook.note(screen)

    def _close_earlier(self, screen: ipywidgets.Widget) -> None:
        """Close what the cell showed when it ran before: it is gone, and would keep the data."""
        cell = self._shell.get_parent().get("metadata", {}).get("cellId")
        if cell is None:
            return
        run, screens = self._screens.get(cell, (0, []))
        if run != self._shell.execution_count:  # else they are those of this run
            for earlier in screens:
                dispose(earlier)
            screens = []
        self._screens[cell] = self._shell.execution_count, [*screens, screen]


def _interpretation(name: str, scope: Mapping[str, object]) -> ClassificationInterpretation:
    """What a variable holds, or a widget in it shows."""
    value = scope.get(name)
    interp = getattr(value, "interp", value)
    if not isinstance(interp, ClassificationInterpretation):
        raise UsageError(
            f"--vs {name}: give a variable that holds an earlier matrix, as in "
            "cm = %confusion_matrix, or a ClassificationInterpretation"
        )
    return interp
