"""The linear layer that fits features best: what is chosen, and what must not matter."""

import math

import pytest
import torch
from torch.nn import functional as F

from nbfinetune.networks import head_fit, logistic
from nbfinetune.networks.discriminants import discriminants
from nbfinetune.networks.head_fit import fit_and_left_out, fit_head


def test_features_that_tell_nothing_leave_the_shares_of_the_classes() -> None:
    y = F.one_hot(torch.tensor([0] * 6 + [1] * 3 + [2] * 3), 3).float()
    fit = fit_head(torch.ones(12, 4), y)
    assert fit.bias.softmax(0).tolist() == pytest.approx([0.5, 0.25, 0.25], abs=1e-3)
    assert (fit.weight == 0).all()


def test_noise_gets_the_strongest_penalty_and_clear_classes_a_weak_one(classes) -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(90, 20, generator=generator)
    x, y = classes(90, 20, 3, 0.3)
    assert fit_head(noise, y).penalty == 1
    assert fit_head(noise, y).loss == pytest.approx(math.log(3), abs=0.15)
    assert fit_head(x, y).penalty <= 2e-3
    assert fit_head(x, y).loss < 0.05


def test_shift_and_scale_of_the_features_do_not_matter(classes) -> None:
    x, y = classes(60, 8, 3, 2.0)
    plain, changed = fit_head(x, y), fit_head(100 * x + 7, y)
    assert changed.penalty == plain.penalty
    logits = (100 * x + 7) @ changed.weight.T + changed.bias
    assert logits.softmax(1).allclose((x @ plain.weight.T + plain.bias).softmax(1), atol=1e-2)


def test_an_item_of_weight_two_counts_as_the_item_twice(monkeypatch, classes) -> None:
    monkeypatch.setattr(logistic, "_PENALTIES", (0.1,))
    monkeypatch.setattr(logistic, "_ENOUGH", 1e-12)
    monkeypatch.setattr(head_fit, "_SHRINKAGES", (0.2,))
    monkeypatch.setattr(head_fit, "_SCALES", (0.5,))
    monkeypatch.setattr(head_fit, "_SHARES", (0.5,))
    x, y = classes(40, 3, 2, 2.0)
    x = x - x[::2].mean(0)  # so that the twice and the weighted items have almost the same centre
    weights = torch.ones(40)
    weights[::2] = 2
    twice = torch.cat([torch.arange(40), torch.arange(0, 40, 2)])
    once = fit_head(x, y, weights)
    both = fit_head(x[twice], y[twice])
    predicted = (x @ once.weight.T + once.bias).softmax(1)
    assert predicted.allclose((x @ both.weight.T + both.bias).softmax(1), atol=0.02)
    plain = fit_head(x, y)
    assert not predicted.allclose((x @ plain.weight.T + plain.bias).softmax(1), atol=0.02)


def test_folds_hold_each_class_in_turn() -> None:
    folds = head_fit._even_folds(torch.tensor([1, 0, 1, 0, 1, 0, 2]), 3)
    assert folds.tolist() == [0, 0, 1, 1, 2, 2, 0]


def test_classes_of_one_item_each_are_fitted_though_nothing_can_be_left_out(classes) -> None:
    x, y = classes(4, 6, 4, 0.1)
    fit = fit_head(x, y)
    assert (x @ fit.weight.T + fit.bias).argmax(1).tolist() == [0, 1, 2, 3]
    assert (fit.penalty, math.isnan(fit.loss)) == (1, True)


def test_the_only_item_of_a_class_does_not_count_where_it_is_left_out(classes) -> None:
    x, y = classes(60, 4, 2, 0.2)
    alone = torch.cat([y, torch.zeros(60, 1)], 1), torch.tensor([[0.0, 0.0, 1.0]])
    assert fit_head(torch.cat([x, 9 * torch.ones(1, 4)]), torch.cat(alone)).loss < 0.1


@pytest.mark.parametrize("n_folds", [3, 10])
def test_logits_of_what_is_left_out_come_from_layers_that_had_not_seen_it(classes, n_folds) -> None:
    noise = torch.randn(60, 80, generator=torch.Generator().manual_seed(1))
    x, y = classes(60, 80, 2, 0.2)
    for features, least, most in ((noise, 0.35, 0.65), (x, 0.0, 0.0)):
        _, left_out, judged = fit_and_left_out(features, y, n_folds=n_folds)
        assert judged.tolist() == [1] * 60
        assert least <= (left_out.argmax(1) != y.argmax(1)).float().mean().item() <= most


def test_discriminants_are_those_of_scikit_learn(classes) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, y = classes(50, 6, 3, 2.0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(x, y.argmax(1))
    ours = discriminants(x, y, torch.ones(50), 0.3)
    ours[-1] += torch.tensor(theirs.priors_).float().log()
    decision = torch.tensor(theirs.decision_function(x.numpy())).float()
    assert logistic.logits_of(x, ours).sub(decision).abs().max() < 1e-3


def test_soft_targets_are_items_that_belong_to_several_classes(classes) -> None:
    x, y = classes(30, 4, 3, 2.0)
    split = torch.cat([y, y.roll(1, 0)])
    twice = discriminants(torch.cat([x, x]), split, torch.ones(60), 0.5)
    once = discriminants(x, (y + y.roll(1, 0)) / 2, torch.ones(30), 0.5)
    assert once.allclose(twice, atol=1e-4)


def test_a_few_items_of_normal_classes_are_for_discriminants_and_many_for_logistic(classes) -> None:
    few, of_few = classes(60, 40, 12, 1.0)
    assert fit_head(few, of_few).share > 0.5
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator).exp()  # far from normal
    line = F.one_hot((x[:, 0] > x[:, 1]).long(), 2).float()
    assert fit_head(x, line).share < 0.5


def test_mixing_never_raises_the_loss_of_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch, classes
) -> None:
    x, y = classes(60, 20, 6, 1.5)
    mixed = fit_head(x, y)
    monkeypatch.setattr(head_fit, "_SHARES", (0.0,))
    logistic_alone = fit_head(x, y)
    monkeypatch.setattr(head_fit, "_SHARES", (1.0,))
    discriminants_alone = fit_head(x, y)
    assert mixed.loss <= min(logistic_alone.loss, discriminants_alone.loss)
