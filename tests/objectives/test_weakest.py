import math

import pytest
import torch
from torch import Tensor

from nbfinetune.objectives.chance import hypergeometric_tail
from nbfinetune.objectives.weakest import weakest_classes

SHAPES = ["disc", "ring", "square", "star"]


def predicted(rights: dict[int, tuple[int, int]], c: int = 4) -> tuple[Tensor, Tensor]:
    """Predictions and targets: of each class how many are right, of how many."""
    targets = [t for t, (_, n) in rights.items() for _ in range(n)]
    classes = [t if i < k else (t + 1) % c for t, (k, n) in rights.items() for i in range(n)]
    return torch.eye(c)[classes], torch.tensor(targets)


def test_weak_classes_are_named_with_their_counts_the_worst_first() -> None:
    preds, targets = predicted({0: (40, 40), 1: (4, 9), 2: (38, 40), 3: (3, 8)})
    assert (
        weakest_classes(preds, targets, SHAPES) == "weakest classes: star 3 of 8 right, ring 4 of 9"
    )


def test_one_weak_class_is_named_alone() -> None:
    preds, targets = predicted({0: (40, 40), 1: (3, 8), 2: (38, 40), 3: (9, 9)})
    assert weakest_classes(preds, targets, SHAPES) == "weakest class: ring 3 of 8 right"


@pytest.mark.parametrize(
    "rights",
    [
        {0: (10, 10), 1: (10, 10), 2: (10, 10), 3: (10, 10)},  # nothing is wrong
        {0: (0, 10), 1: (0, 10), 2: (0, 10), 3: (0, 10)},  # nothing is right
        {0: (6, 10), 1: (6, 10), 2: (5, 10), 3: (7, 10)},  # all are alike
        {0: (20, 20), 1: (19, 20), 2: (20, 20), 3: (20, 20)},  # a single error
        {0: (2, 2), 1: (2, 2), 2: (2, 2), 3: (0, 2)},  # 1 in 28 by chance, with four classes to see
        {1: (3, 20)},  # no other to compare with
        {},
    ],
    ids=str,
)
def test_what_chance_may_have_done_is_not_told(rights: dict) -> None:
    targets = torch.tensor([], dtype=torch.long)
    preds, targets = predicted(rights) if rights else (torch.zeros(0, 4), targets)
    assert weakest_classes(preds, targets, SHAPES) == ""


@pytest.mark.parametrize(("n", "told"), [(3, False), (4, True)])
def test_the_level_is_a_twentieth_over_the_number_of_classes(n: int, told: bool) -> None:
    """n of n wrong, and none of the n others: by chance in 1 of 20 cases, and in 1 of 70."""
    preds, targets = predicted({0: (n, n), 1: (0, n)}, c=2)
    text = f"weakest class: ring 0 of {n} right" if told else ""
    assert weakest_classes(preds, targets, ["disc", "ring"]) == text


def test_where_all_classes_are_equally_hard_one_is_named_in_a_twentieth_of_cases_at_most() -> None:
    rng = torch.Generator().manual_seed(0)
    targets = torch.arange(10).repeat(20)
    named = 0
    for _ in range(400):
        wrong = torch.rand(200, generator=rng) < 0.3
        preds = torch.eye(10)[(targets + wrong) % 10]
        named += bool(weakest_classes(preds, targets, list("abcdefghij")))
    assert named <= 400 * 0.05


def test_labels_and_ignored_targets_are_of_no_account() -> None:
    preds, targets = predicted({0: (40, 40), 1: (3, 8)})
    more = torch.cat([preds, preds[:40]]), torch.cat([targets, torch.full((40,), -100)])
    text = "weakest class: ring 3 of 8 right"
    assert weakest_classes(preds, targets, SHAPES) == weakest_classes(*more, SHAPES) == text
    assert weakest_classes(preds, torch.eye(4)[targets], SHAPES) == ""


def test_many_weak_classes_are_not_all_named() -> None:
    rights = {t: (0, 20) if t < 8 else (20, 20) for t in range(40)}
    names = [f"c{t}" for t in range(40)]
    assert weakest_classes(*predicted(rights, 40), names) == (
        "weakest classes: c0 0 of 20 right, c1 0 of 20, c2 0 of 20, c3 0 of 20, c4 0 of 20 "
        "and 3 more"
    )


def test_names_of_classes_are_shown_in_one_line() -> None:
    preds, targets = predicted({0: (40, 40), 1: (3, 8)}, c=2)
    assert weakest_classes(preds, targets, ["disc", "a\nring"]) == (
        "weakest class: a\\nring 3 of 8 right"
    )


def test_the_tail_is_that_of_counted_ways() -> None:
    ways = [math.comb(5, i) * math.comb(8, 6 - i) for i in range(6)]
    for k in range(6):
        assert hypergeometric_tail(k, 6, 5, 13) == pytest.approx(sum(ways[k:]) / math.comb(13, 6))
    assert hypergeometric_tail(6, 6, 5, 13) == 0  # only five are marked
    assert hypergeometric_tail(0, 9, 9, 10) == pytest.approx(1)  # eight are certain
    assert hypergeometric_tail(300, 1000, 30_000, 100_000) == pytest.approx(0.51, abs=0.02)
