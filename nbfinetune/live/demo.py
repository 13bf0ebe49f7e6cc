"""Demo: a learner that predicts pictures from the page, in a notebook and without a server."""

from dataclasses import dataclass
from functools import partial
from weakref import ref

from IPython.display import display

from nbfinetune.interpretation.sample_predictions import TOP_K
from nbfinetune.learner import Learner
from nbfinetune.live.progress import kernel_runs, static
from nbfinetune.live.screens import show_with_static_view
from nbfinetune.rendering.names import html_text
from nbfinetune.widgets.demo.predict_demo import PredictDemo


@dataclass(frozen=True)
class _Told:
    """A demo in words."""

    words: str

    def __repr__(self) -> str:
        return self.words

    def _repr_html_(self) -> str:
        return f"<div>{html_text(self.words)}</div>"


def show_demo(learn: Learner) -> PredictDemo | None:
    """Display the demo of a learner; tell how to predict where there are no widgets.

    Raises
    ------
    ValueError
        If the learner is none of pictures, or has no names of classes.
    """
    if learn.transforms is None or not learn.vocab:
        raise ValueError("demo is for learners of pictures with a vocab; this one has none")
    title = f"{learn.config.get('arch') or type(learn.model).__name__}, "
    title += f"{len(learn.vocab)} classes"
    words = f"demo of {title}: a screen to choose, drop or paste pictures, which needs a kernel"
    if static() or not kernel_runs():
        display(_Told(f"demo of {title}: no widgets here; learn.predict(FILE) predicts a picture"))
        return None
    screen = PredictDemo(partial(_predict, ref(learn)), title)
    show_with_static_view(screen, _Told(words), screen.status)
    return screen


def _predict(of: "ref[Learner]", name: str, content: bytes) -> list[tuple[str, float]]:
    """The most probable classes of a picture file."""
    learn = of()
    if learn is None:
        raise ValueError("the learner of this screen is gone")
    try:
        _, _, probs = learn.predict(content)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    top = probs.topk(min(TOP_K, len(probs)))
    both = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [(learn.vocab[i], p) for i, p in both]
