"""A rate that a search found is used while what trains is the same, and by nothing else."""

from collections.abc import Iterator

import pytest

from nbfinetune import Learner


@pytest.fixture
def learn(loaders, mlp) -> Learner:
    learn = Learner(loaders, mlp, groups=[[part] for part in mlp], device="cpu")
    learn.freeze()
    learn.use_rate(2e-2, "as lr_find found")
    return learn


def first_rates(result) -> Iterator[list[float]]:
    return [stage.lrs[0] for stage in result.stages]


def test_a_rate_found_for_the_head_is_used_for_the_head(learn: Learner) -> None:
    assert learn.fit(1).stages[0].lrs[0] == [2e-2] * 3
    assert learn.rate_note == "lr 2.0e-2, as lr_find found"


def test_a_rate_found_for_the_head_is_not_used_for_all_layers(learn: Learner) -> None:
    learn.unfreeze()
    assert learn.lr == slice(1e-5, 1e-3)  # a hundredth of the default for the first group
    result = learn.fit(1)
    assert result.stages[0].lrs[0] == pytest.approx([1e-5, 1e-4, 1e-3])
    text = "lr 1.0e-5 to 1.0e-3, the default for all layers, as the rate before was for head"
    assert learn.rate_note == text
    learn.freeze()
    assert learn.lr == 1e-3


def test_freezing_what_is_frozen_already_keeps_the_rate(learn: Learner) -> None:
    learn.freeze_to(-1, quiet=True)
    assert learn.lr == 2e-2


def test_a_rate_set_by_hand_stays_whatever_is_frozen(learn: Learner) -> None:
    learn.lr = 5e-3
    learn.unfreeze()
    assert learn.lr == 5e-3
    learn.fit(1)
    assert learn.rate_note == ""


def test_fine_tune_takes_what_was_found_for_the_head_once(learn: Learner) -> None:
    head, _ = learn.fine_tune(1, freeze_epochs=1, keep_best=False).stages
    assert max(step[-1] for step in head.lrs) == pytest.approx(2e-2, rel=0.1)
    assert learn.rate_note == "base_lr 2.0e-2, as lr_find found"
    again, _ = learn.fine_tune(1, freeze_epochs=1, keep_best=False).stages
    assert max(step[-1] for step in again.lrs) == pytest.approx(2e-3, rel=0.1)
    assert learn.rate_note == ""


def test_fine_tune_does_not_take_what_was_found_for_all_layers(learn: Learner) -> None:
    learn.unfreeze()
    learn.use_rate(3e-5, "as lr_find found")
    head, _ = learn.fine_tune(1, freeze_epochs=1, keep_best=False).stages
    assert max(step[-1] for step in head.lrs) == pytest.approx(2e-3, rel=0.1)
    learn.unfreeze()
    learn.use_rate(3e-5, "as lr_find found")
    [both] = learn.fine_tune(1, freeze_epochs=0, keep_best=False).stages
    assert max(step[-1] for step in both.lrs) <= 3e-5 / 2


def test_a_rate_given_to_a_run_is_not_remembered(learn: Learner) -> None:
    learn.fit(1, 1e-4)
    assert learn.rate_note == ""
    assert learn.lr == 2e-2
