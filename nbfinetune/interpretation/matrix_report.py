"""Matrix report: a confusion matrix and its most confused pairs as text and as a picture."""

from dataclasses import dataclass, field

from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.confusion import confused_text
from nbfinetune.interpretation.matrix_figure import matrix_figure, matrix_png, undrawable
from nbfinetune.interpretation.matrix_view import WHOLE, MatrixView, matrix_view
from nbfinetune.rendering import figures
from nbfinetune.rendering.names import html_text
from nbfinetune.rendering.tables import Table

_PAIRS = 10  # pairs in a table


def confused_table(interp: ClassificationInterpretation, min_val: int = 1) -> Table:
    """The most confused pairs, and what share of the actual class they are."""
    support = interp.scores()["support"]
    pairs = interp.confused_cells(min_val)
    rows = [
        (interp.vocab[i], interp.vocab[j], str(n), f"{n / support[i]:.1%}")
        for i, j, n in pairs[:_PAIRS]
    ]
    title = "most confused" if pairs else confused_text(interp.cells, min_val)
    left = f"and {len(pairs) - _PAIRS} pairs more" if len(pairs) > _PAIRS else ""
    return Table(title, ("actual", "predicted", "times", "of the actual class"), rows, left)


@dataclass(frozen=True)
class MatrixReport:
    """What a confusion matrix leaves in a notebook without a kernel.

    Parameters
    ----------
    interp : the predictions
    view : what is drawn; above 60 classes all of them are, a pixel each
    min_val : pairs less frequent are left out
    note : a last line
    """

    interp: ClassificationInterpretation
    view: MatrixView = field(repr=False)
    min_val: int = 1
    note: str = ""

    @property
    def headline(self) -> str:
        """Size, accuracy and errors in one line."""
        interp = self.interp
        part = f" of {interp.n_planned:,} (stopped)" if len(interp) < interp.n_planned else ""
        return (
            f"{len(interp):,}{part} items of {len(interp.vocab):,} classes, accuracy "
            f"{interp.accuracy:.4f}, {interp.n_wrong:,} wrong"
        )

    def __repr__(self) -> str:
        table = repr(confused_table(self.interp, self.min_val))
        return "\n".join(line for line in (self.headline, table, self.note) if line)

    def _repr_html_(self) -> str:
        alt = f"confusion matrix: {self.headline}"
        if len(self.interp.vocab) > WHOLE:
            view = matrix_view(self.interp, range(len(self.interp.vocab)))
            image = figures.picture_html(matrix_png(view), alt)
        else:
            names = [f"class {k + 1}: {self.view.names[k]}" for k in undrawable(self.view)]
            image = figures.figure_html(matrix_figure(self.view), alt, "; ".join(names))
        table = confused_table(self.interp, self.min_val)._repr_html_()
        above, below = (f"<div>{html_text(line)}</div>" for line in (self.headline, self.note))
        return above + image + table + below
