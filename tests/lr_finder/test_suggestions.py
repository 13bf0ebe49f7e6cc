"""fastai's answers on its curves, and the verdict on five families of curves."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nbfinetune.lr_finder.suggestions import (
    SUGGESTIONS,
    Verdict,
    agree,
    contained,
    judge,
    moving_average,
    trim,
)
from nbfinetune.lr_finder.trials import candidates

CURVES = json.loads((Path(__file__).parents[1] / "fastai_suggestions.json").read_text())["curves"]


@pytest.mark.parametrize("name", SUGGESTIONS)
@pytest.mark.parametrize("k", range(len(CURVES)))
def test_suggestions_equal_fastais_on_its_curves(name: str, k: int) -> None:
    curve = CURVES[k]
    got = SUGGESTIONS[name](curve["lrs"], curve["losses"])
    assert got == pytest.approx(curve["expect"][name], rel=1e-6)


@pytest.mark.parametrize(
    ("losses", "index"),
    [
        ([5, 4, 3, 2, 1], 0),
        ([1, 2, 3], 0),
        ([3, 3, 3], 0),
        ([5, 6, 4, 7, 3, 8, 2, 9], 3),
        ([10, 9, 8, 9, 7, 6, 5, 4, 5, 6, 7, 8], 3),
        ([2.5] * 5 + [2.4, 2.2, 1.9, 1.5, 1.2, 1.0, 0.95, 0.93, 1.0, 1.5, 4.0], 7),
    ],
)
def test_valley_finds_these_points(losses: list[float], index: int) -> None:
    assert SUGGESTIONS["valley"](list(range(1, 30)), losses) == index + 1


def test_the_moving_average_has_fastais_values() -> None:
    assert moving_average([4, 3, 2, 1]) == pytest.approx([4, 3.494949, 2.986532, 2.474750])


def test_a_curve_is_trimmed_by_what_there_is_of_it() -> None:
    lrs = list(np.geomspace(1e-7, 10, 100))
    assert trim(lrs, [1.0] * 100) == (lrs[10:95], [1.0] * 85)  # as fastai
    assert trim(lrs[:40], [1.0] * 40)[0] == lrs[4:35]  # fastai would drop 10 of these
    assert trim(lrs, [1.0] * 50 + [math.nan] + [1.0] * 49)[0] == lrs[5:45]
    assert trim(lrs[:3], [1.0] * 3) == ([], [])


LRS = np.geomspace(1e-7, 10, 101)[:-1]
X = np.log10(LRS)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def good(rng: np.random.Generator) -> np.ndarray:
    """Flat at log(37), falls over two decades by a third to two thirds, then blows up."""
    middle, drop = rng.uniform(-4, -2.5), rng.uniform(1.2, 2.4)
    rise = 10 ** np.clip(2 * (X - rng.uniform(-0.5, 0.3)), -9, 2)
    return 3.6 - drop * _sigmoid(3 * (X - middle)) + rise + rng.normal(0, 0.15, len(X))


def flat(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.5, 4) + rng.normal(0, rng.uniform(0.01, 0.3), len(X))


def rising(rng: np.random.Generator) -> np.ndarray:
    rise = rng.uniform(1, 5) * _sigmoid(2 * (X - rng.uniform(-4, -1)))
    return rng.uniform(0.5, 3) + rise + rng.normal(0, 0.1, len(X))


def early_divergence(rng: np.random.Generator) -> np.ndarray:
    """Blows up within the first quarter and is stopped there."""
    n = int(rng.integers(8, 26))
    return 3.0 + np.exp(np.arange(n) / n * 4) - 1 + rng.normal(0, 0.1, n)


def noisy(rng: np.random.Generator) -> np.ndarray:
    """A dip of 0.2 to 0.8 under noise as large as it or twice that."""
    dip = rng.uniform(0.2, 0.8)
    sigma = dip * rng.uniform(1, 2)
    return 3.0 - dip * _sigmoid(3 * (X + 3)) + rng.normal(0, sigma, len(X))


@pytest.mark.parametrize(
    ("family", "trusted"),
    [(good, True), (flat, False), (rising, False), (early_divergence, False), (noisy, False)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_verdict_is_right_for_95_of_100_curves(family, trusted: bool) -> None:
    right = 0
    for seed in range(100):
        losses = family(np.random.default_rng(seed))
        right += (judge(LRS[: len(losses)], list(losses)).confidence != "none") == trusted
    assert right >= 95


def test_the_sentence_says_what_to_do() -> None:
    lrs, rng = list(LRS), np.random.default_rng(0)
    noise = rng.normal(0, 0.01, 100)
    assert "too short: 12 finite losses" in judge(lrs[:12], [1.0] * 12).sentence
    assert "already converged: use about 1/10 of the last LR" in judge(lrs, 0.05 + noise).sentence
    assert "only rises" in judge(lrs, rising(rng)).sentence
    assert "is flat" in judge(lrs, 2.0 + noise).sentence


def test_the_usable_range_holds_the_fall() -> None:
    verdict = judge(LRS, list(good(np.random.default_rng(1))))
    assert verdict.confidence == "high"
    assert 1e-5 < verdict.low < 1e-2 < verdict.high < 3


def test_losses_that_are_not_finite_end_the_curve() -> None:
    losses = list(good(np.random.default_rng(2)))
    whole = judge(LRS, losses)
    cut = judge(LRS, [*losses[:90], math.inf, *losses[91:]])
    assert (whole.confidence, cut.confidence) == ("high", "high")
    assert cut.high == pytest.approx(whole.high, rel=0.3)


def test_candidates_lie_evenly_within_the_usable_range() -> None:
    assert candidates([], [], (1e-4, 1e-2), 3) == pytest.approx([10**-3.5, 1e-3, 10**-2.5])


def test_candidates_of_a_refused_curve_lie_below_its_rise() -> None:
    losses = [1.0] * 60 + [1.0 + 0.2 * i for i in range(40)]  # it rises from 1e-7 * 10**4.8 on
    rates = candidates(list(LRS), losses, None, 2)
    assert rates[1] == pytest.approx(rates[0] * 10)
    assert 10**-4.4 < rates[1] < 10**-3  # a decade below


def test_sweeps_that_disagree_lower_the_confidence() -> None:
    losses = list(good(np.random.default_rng(3)))
    verdict = judge(LRS, losses)
    alike = agree(LRS, [losses, losses, losses], verdict)
    assert (alike.confidence, alike.high) == ("high", verdict.high)
    assert alike.sentence.endswith("; 3 sweeps agree within 0.0 decades")
    earlier = losses[20:] + [losses[-1]] * 20  # 20 of 100 steps over 8 decades
    apart = agree(LRS, [losses, earlier], verdict)
    assert apart.confidence == "low"
    assert (
        apart.sentence == "2 sweeps have their lowest losses 1.6 decades apart; raise num_it or bs"
    )


def test_a_suggestion_outside_the_usable_range_lowers_the_confidence() -> None:
    verdict = Verdict("high", "the loss falls", 1e-4, 1e-2)
    assert contained({"bracket": 1e-3, "valley": 1e-4, "slide": math.nan}, verdict) == verdict
    lowered = contained({"bracket": 1e-3, "steep": 2e-5}, verdict)
    assert (lowered.confidence, lowered.low, lowered.high) == ("low", 1e-4, 1e-2)
    assert lowered.sentence == "the loss falls, but steep 2.0e-5 lies outside the usable range"
    both = contained({"steep": 2e-5, "slide": 0.5}, verdict).sentence
    assert both.endswith(", but steep 2.0e-5 and slide 5.0e-1 lie outside the usable range")
    refused = Verdict("none", "flat")
    assert contained({"steep": 2e-5}, refused) == refused


def test_the_usable_range_begins_where_the_loss_falls_for_good() -> None:
    losses = [2.0] * 60 + [2.0 - 0.05 * i for i in range(20)] + [1.0 + 0.5 * i for i in range(20)]
    assert judge(LRS, losses).low > LRS[55]
    losses[28:34] = [1.0] * 6  # luck
    verdict = judge(LRS, losses)
    assert LRS[55] < verdict.low < LRS[70]
