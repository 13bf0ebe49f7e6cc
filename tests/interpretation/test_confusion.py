"""What is said of confused pairs, by their number."""

import pytest

from nbfinetune import ClassificationInterpretation
from nbfinetune.interpretation.confusion import confused_text

TWICE = [(0, 1), (0, 1), (1, 2), (2, 2)]  # actual, predicted
ONCE = [(0, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("items", "min_val", "text"),
    [
        (TWICE, 1, "2 pairs are confused"),
        (TWICE, 2, "1 pair is confused 2 times or more"),
        (TWICE, 3, "no pair is confused 3 times; 1 is confused 2 times: %most_confused 2"),
        (ONCE, 2, "no pair is confused 2 times; 2 are confused once: %most_confused 1"),
        ([(0, 0), (1, 1)], 1, "nothing is confused: all 2 are right"),
        ([(0, 0)], 5, "nothing is confused: the one item is right"),
        ([], 1, "nothing was predicted"),
    ],
)
def test_what_is_confused_is_said_in_words(
    items: list[tuple[int, int]], min_val: int, text: str
) -> None:
    targets, preds = [t for t, _ in items], [p for _, p in items]
    interp = ClassificationInterpretation.from_predictions(targets, preds, "abc")
    assert confused_text(interp.cells, min_val) == text
