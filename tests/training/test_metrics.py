from functools import partial

import pytest
import torch

from nbfinetune import accuracy, error_rate, top_k_accuracy
from nbfinetune.training.metrics import metric_name, smaller_is_better

PREDS = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
TARGETS = torch.tensor([0, 2, 2, 2])


def test_two_of_four_are_right() -> None:
    assert accuracy(PREDS, TARGETS) == 0.5
    assert error_rate(PREDS, TARGETS) == 0.5


@pytest.mark.parametrize(("k", "expected"), [(1, 0.5), (2, 0.75), (3, 1.0), (99, 1.0)])
def test_top_k_accuracy_counts_the_k_best(k: int, expected: float) -> None:
    assert top_k_accuracy(PREDS, TARGETS, k=k) == expected


def test_a_partial_metric_is_named_with_its_arguments() -> None:
    assert metric_name(partial(top_k_accuracy, k=3)) == "top_k_accuracy_3"


def test_an_object_that_is_called_is_named_by_its_class() -> None:
    class Brier:
        def __call__(self, preds, targets) -> float:
            return 0.0

    assert metric_name(Brier()) == "Brier"


@pytest.mark.parametrize(
    ("name", "smaller"), [("valid_loss", True), ("error_rate", True), ("accuracy", False)]
)
def test_losses_and_errors_should_fall(name: str, smaller: bool) -> None:
    assert smaller_is_better(name) is smaller
