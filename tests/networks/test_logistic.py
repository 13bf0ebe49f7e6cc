"""The linear layer that fits features best: known minima, and what must not matter."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nbfinetune.networks import logistic
from nbfinetune.networks.logistic import fit_logistic, fit_penalised


def classes(n: int, d: int, c: int, spread: float) -> tuple[Tensor, Tensor]:
    """Features of c classes around centres of their own, and one-hot targets."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(n) % c
    centres = torch.randn(c, d, generator=generator)
    x = centres[targets] + spread * torch.randn(n, d, generator=generator)
    return x, F.one_hot(targets, c).float()


@pytest.fixture
def one_penalty(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(logistic, "_PENALTIES", (0.1,))
    monkeypatch.setattr(logistic, "_ENOUGH", 1e-12)
    monkeypatch.setattr(logistic, "_STEPS", 3000)
    return 0.1


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 40)])
def test_at_the_minimum_the_gradient_of_the_penalised_loss_is_zero(n, d, one_penalty) -> None:
    x, y = classes(n, d, 3, 2.0)
    fit = fit_logistic(x, y)
    centred = (x - x.mean(0)).double()
    scale = centred.square().mean().sqrt()
    z, w = centred / scale, (fit.weight * scale).double()
    b = (fit.bias + fit.weight @ x.mean(0)).double()
    errors = (z @ w.T + b).softmax(1) - y
    assert (errors.T @ z / n + one_penalty * w).abs().max() < 1e-5
    assert errors.mean(0).abs().max() < 1e-5  # the bias is not penalised


def test_two_points_have_the_weight_that_solves_its_equation(one_penalty) -> None:
    x, y = torch.tensor([[-1.0], [1.0]] * 6), torch.eye(2).repeat(6, 1)
    # Weights are (-w, w): the mean loss log(1 + exp(-2 w)) + penalty w^2 is least where
    # 2 / (1 + exp(2 w)) = 2 penalty w.
    low, high = 0.0, 10.0
    for _ in range(60):
        w = (low + high) / 2
        low, high = (w, high) if 1 / (1 + math.exp(2 * w)) > one_penalty * w else (low, w)
    assert fit_logistic(x, y).weight.flatten().tolist() == pytest.approx([-w, w], abs=1e-4)


def test_features_that_tell_nothing_leave_the_shares_of_the_classes() -> None:
    y = F.one_hot(torch.tensor([0] * 6 + [1] * 3 + [2] * 3), 3).float()
    fit = fit_logistic(torch.ones(12, 4), y)
    assert fit.bias.softmax(0).tolist() == pytest.approx([0.5, 0.25, 0.25], abs=1e-3)
    assert (fit.weight == 0).all()


def test_noise_gets_the_strongest_penalty_and_clear_classes_a_weak_one() -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(90, 20, generator=generator)
    x, y = classes(90, 20, 3, 0.3)
    assert fit_logistic(noise, y).penalty == 1
    assert fit_logistic(noise, y).loss == pytest.approx(math.log(3), abs=0.15)
    assert fit_logistic(x, y).penalty <= 2e-3
    assert fit_logistic(x, y).loss < 0.05


def test_shift_and_scale_of_the_features_do_not_matter() -> None:
    x, y = classes(60, 8, 3, 2.0)
    plain, changed = fit_logistic(x, y), fit_logistic(100 * x + 7, y)
    assert changed.penalty == plain.penalty
    logits = (100 * x + 7) @ changed.weight.T + changed.bias
    assert logits.softmax(1).allclose((x @ plain.weight.T + plain.bias).softmax(1), atol=1e-2)


def test_an_item_of_weight_two_counts_as_the_item_twice(one_penalty) -> None:
    x, y = classes(40, 3, 2, 2.0)
    x = x - x[::2].mean(0)  # so that the twice and the weighted items have almost the same centre
    weights = torch.ones(40)
    weights[::2] = 2
    twice = torch.cat([torch.arange(40), torch.arange(0, 40, 2)])
    once = fit_logistic(x, y, weights)
    both = fit_logistic(x[twice], y[twice])
    predicted = (x @ once.weight.T + once.bias).softmax(1)
    assert predicted.allclose((x @ both.weight.T + both.bias).softmax(1), atol=0.02)
    plain = fit_logistic(x, y)
    assert not predicted.allclose((x @ plain.weight.T + plain.bias).softmax(1), atol=0.02)


def test_folds_hold_each_class_in_turn() -> None:
    folds = logistic._even_folds(torch.tensor([1, 0, 1, 0, 1, 0, 2]))
    assert folds.tolist() == [0, 0, 1, 1, 2, 2, 0]


def test_classes_of_one_item_each_are_fitted_though_nothing_can_be_left_out() -> None:
    x, y = classes(4, 6, 4, 0.1)
    fit = fit_logistic(x, y)
    assert (x @ fit.weight.T + fit.bias).argmax(1).tolist() == [0, 1, 2, 3]
    assert (fit.penalty, math.isnan(fit.loss)) == (1, True)


def test_the_only_item_of_a_class_does_not_count_where_it_is_left_out() -> None:
    x, y = classes(60, 4, 2, 0.2)
    alone = torch.cat([y, torch.zeros(60, 1)], 1), torch.tensor([[0.0, 0.0, 1.0]])
    assert fit_logistic(torch.cat([x, 9 * torch.ones(1, 4)]), torch.cat(alone)).loss < 0.1


def test_a_given_penalty_is_that_of_the_features_as_they_are() -> None:
    x, y = classes(60, 5, 3, 2.0)
    weight, bias = fit_penalised(x, y, 0.3)
    errors = ((x @ weight.T + bias).softmax(1) - y) / 60
    assert (errors.T @ x + 0.3 * weight).abs().max() < 0.01
