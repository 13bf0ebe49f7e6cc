"""A linear head fitted anew at the end of a fit: to the optimum, and nothing else touched."""

import pytest
import torch
from torch import nn

from nbfinetune import Callback, Learner
from nbfinetune.objectives.logit_adjustment import LogitAdjustedLoss
from nbfinetune.training.fine_tuning.refit import RefitHead, _soft_targets


def heads(learn: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in learn.model[-1].parameters()])


def test_after_steps_too_small_to_learn_the_head_is_right_all_the_same(make) -> None:
    assert make().fit(1, 1e-9).rows[-1]["error_rate"] == pytest.approx(2 / 3)
    refit = RefitHead()
    learn = make()
    result = learn.fit(1, 1e-9, cbs=refit)
    assert result.rows[-1]["error_rate"] == 0  # the row is of the head that was fitted
    assert learn.validate() == pytest.approx(
        [result.rows[-1][k] for k in ("valid_loss", "error_rate")]
    )
    assert refit.head is learn.model[-1]
    assert refit.head.weight.equal(refit.fit.weight)
    [note] = result.stages[-1].notes
    assert note.startswith("at its end the head was fitted anew to 12 pictures (")
    assert note in repr(learn.recorder)


def test_the_body_stays_as_it_is(make) -> None:
    learn = make()
    before = [p.clone() for p in learn.model[:-1].parameters()]
    learn.fit(1, 1e-9, cbs=RefitHead())
    assert all(a.equal(b) for a, b in zip(before, learn.model[:-1].parameters(), strict=True))


def test_it_comes_in_the_last_epoch_only(make) -> None:
    class Heads(Callback):
        def before_fit(self, learn: Learner) -> None:
            self.seen = []

        def after_epoch(self, learn: Learner) -> None:
            self.seen.append(heads(learn).norm().item())

    seen = Heads()
    make().fit(3, 1e-9, cbs=[RefitHead(), seen])
    assert max(seen.seen[:2]) < 1e-6 < seen.seen[2]


def test_a_fit_that_is_stopped_keeps_the_head_of_its_last_step(make) -> None:
    class Stop(Callback):
        def before_batch(self, learn: Learner) -> None:
            learn.control.stop()

    learn = make()
    learn.fit(1, 1e-9, cbs=[RefitHead(), Stop()])
    assert heads(learn).abs().max() < 1e-6


def test_screens_and_requests_act_while_pictures_are_passed(make) -> None:
    class Looks(Callback):
        def before_fit(self, learn: Learner) -> None:
            self.seen = []

        def after_part(self, learn: Learner) -> None:
            self.seen.append((learn.training, learn.features.computing))
            if len(self.seen) == 2:
                learn.control.stop()

    looks, learn = Looks(), make(cbs=[])
    learn.unfreeze()  # all batches go through the body
    result = learn.fit(1, 1e-9, cbs=[RefitHead(), looks])
    assert looks.seen == [(True, (0, 12)), (True, (4, 12))]
    assert result.status == "stopped"
    assert heads(learn).abs().max() < 1e-6
    assert learn.features.computing is None


@pytest.mark.parametrize(
    "options", [{"head": "fastai"}, {"loss_func": nn.MultiMarginLoss()}], ids=["head", "loss"]
)
def test_other_heads_and_losses_are_left_as_they_are(options, make) -> None:
    refit, learn = RefitHead(), make(**options)
    result = learn.fit(1, 1e-9, cbs=refit)
    assert (refit.fit, result.stages[-1].notes) == (None, [])


def test_loaders_that_are_lists_are_left_as_they_are(learn: Learner) -> None:
    refit = RefitHead()
    learn.fit(1, cbs=refit)
    assert refit.fit is None


def test_a_head_that_is_no_longer_finite_is_left(make) -> None:
    class Spoil(Callback):
        def after_train(self, learn: Learner) -> None:
            with torch.no_grad():
                next(learn.model.parameters()).fill_(float("nan"))

    refit = RefitHead()
    with pytest.warns(match="the held-out loss is nan"):
        make().fit(1, 1e-9, cbs=[Spoil(), refit])
    assert refit.fit is None


def test_targets_are_smoothed_and_weighted_as_the_loss_does() -> None:
    loss = nn.CrossEntropyLoss(torch.tensor([1.0, 3.0]), label_smoothing=0.2)
    y, weights = _soft_targets(loss, torch.tensor([0, 1, -100]), 2)
    assert y[:2].tolist() == [pytest.approx([0.9, 0.1]), pytest.approx([0.1, 0.9])]
    assert weights.tolist() == [1, 3, 0]


def test_an_adjusted_head_favours_no_class_for_being_common(make) -> None:
    plain, adjusted = make(), make()
    adjusted.loss_func = LogitAdjustedLoss([9, 3, 1])
    for learn in (plain, adjusted):
        learn.fit(1, 1e-9, cbs=RefitHead())
    moved = plain.model[-1].bias - adjusted.model[-1].bias
    assert (moved - moved[0]).tolist() == pytest.approx([0, -1.098612, -2.197225], abs=1e-3)
