"""Logistic regression with a given penalty: known minima."""

import math

import pytest
import torch

from nbfinetune.networks import logistic
from nbfinetune.networks.logistic import fit_penalised


@pytest.fixture(autouse=True)
def to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "_ENOUGH", 1e-12)
    monkeypatch.setattr(logistic, "_STEPS", 3000)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 40)])
def test_at_the_minimum_the_gradient_of_the_penalised_loss_is_zero(n: int, d: int, classes) -> None:
    x, y = classes(n, d, 3, 2.0)
    weight, bias = fit_penalised(x, y, 0.1)
    errors = ((x @ weight.T + bias).softmax(1) - y) / n
    assert (errors.T @ x + 0.1 * weight).abs().max() < 1e-5
    assert errors.sum(0).abs().max() < 1e-5  # the bias is not penalised


def test_two_points_have_the_weight_that_solves_its_equation() -> None:
    x, y = torch.tensor([[-1.0], [1.0]] * 6), torch.eye(2).repeat(6, 1)
    # Weights are (-w, w): the mean loss log(1 + exp(-2 w)) + penalty w^2 is least where
    # 2 / (1 + exp(2 w)) = 2 penalty w.
    low, high = 0.0, 10.0
    for _ in range(60):
        w = (low + high) / 2
        low, high = (w, high) if 1 / (1 + math.exp(2 * w)) > 0.1 * w else (low, w)
    weight, _ = fit_penalised(x, y, 0.1)
    assert weight.flatten().tolist() == pytest.approx([-w, w], abs=1e-4)
