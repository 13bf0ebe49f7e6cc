"""Verdicts on simulated curves: what is clear is said, what may be chance is not."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from nbfinetune import Learner, error_rate
from nbfinetune.history.runs import HEAD_STAGE, Run
from nbfinetune.history.verdicts import error_of, standard_error, verdict

NAMES = ["epoch", "train_loss", "valid_loss", "error_rate", "time"]
MANY = 1000  # held-out pictures, so many that chance needs no mention
FALLING = np.linspace(2.0, 0.5, 200)  # training losses
SEEDS = range(200)


def a_run(
    valid: Sequence[float],
    errors: Sequence[float],
    n: int = MANY,
    *,
    name: str = "fit",
    losses: Sequence[float] = FALLING,
    noise: float = 0.1,
    seconds: float = 1.0,
    seed: int = 0,
) -> Run:
    """A finished run with these held-out losses and errors; `noise` is a share of a step's loss."""
    losses = losses * (1 + noise * np.random.default_rng(seed).normal(size=len(losses)))
    train = np.linspace(losses[0], losses[-1], len(valid) + 1)[1:]
    run = Run(name, len(valid), len(losses) // len(valid), NAMES, status="finished")
    values = zip(range(len(valid)), train, valid, errors, strict=True)
    run.rows = [dict(zip(NAMES, map(float, (*v, seconds)), strict=True)) for v in values]
    for row in run.rows:
        row["epoch"] = int(row["epoch"])
    run.losses, run.n_valid, run.shares = losses.tolist(), n, {"error_rate": False}
    return run


def held_out(means: Sequence[float], scales: Sequence[float], n: int, seed: int = 0) -> tuple:
    """Losses and errors of epochs on the same n pictures, whose margins differ and are noisy.

    Between two epochs a picture's loss differs by 0.75 of the mean (standard deviation), as in the
    most different ones of real runs.
    """
    rng = np.random.default_rng(seed)
    own = rng.normal(size=n)
    margins = [s * (m + own + 0.3 * rng.normal(size=n)) for m, s in zip(means, scales, strict=True)]
    return [float(np.log1p(np.exp(-m)).mean()) for m in margins], [(m < 0).mean() for m in margins]


def said(text: str, n: int, **change: Sequence[float]) -> float:
    """The share of seeds whose verdict holds a text."""
    hits = 0
    for seed in SEEDS:
        losses = change.get("losses", FALLING)
        run = a_run(*held_out(change["means"], change["scales"], n, seed), n, losses=losses)
        hits += text in verdict([run])
    return hits / len(SEEDS)


@pytest.mark.parametrize("n", [74, 200, 1000])
@pytest.mark.parametrize("epochs", [2, 5, 12])
def test_noise_alone_has_no_verdict(n: int, epochs: int) -> None:
    silent = 0
    for seed in SEEDS:
        run = a_run(*held_out([1.0] * epochs, [2.0] * epochs, n, seed), n, seed=seed)
        sentences = verdict([run]).split(". ")
        silent += all(not text or "(± " in text for text in sentences)
    assert silent >= 0.95 * len(SEEDS)


@pytest.mark.parametrize("n", [200, 1000])
def test_what_still_falls_wants_more_epochs(n: int) -> None:
    how = {"means": np.linspace(0, 1.5, 6), "scales": [2.0] * 6}
    assert said("Still falling at its end: more epochs may help", n, **how) >= 0.95
    how["means"] = [0, 0.9, 1.3, 1.46, 1.49, 1.5]  # levels out
    assert said("Still falling", n, **how) <= 0.05


@pytest.mark.parametrize("n", [200, 1000])
def test_a_loss_that_rises_beside_a_steady_error_is_over_confidence(n: int) -> None:
    how = {"means": [0, 1, 1, 1, 1.05, 1.1], "scales": [1, 2, 3, 4, 6, 8]}
    text = "the error does not: over-confident, which is harmless for the error"
    assert said(text, n, **how) >= 0.9
    assert said("overfits", n, **how) <= 0.02


def test_a_loss_and_an_error_that_rise_are_overfitting() -> None:
    how = {"means": [0, 1, 0.8, 0.7, 0.6, 0.6], "scales": [1, 2, 3, 4, 6, 8]}
    assert said("The held-out loss and the error rise since epoch 1: it overfits", MANY, **how) == 1
    assert said("over-confident", MANY, **how) == 0


def test_without_an_error_the_loss_alone_is_judged() -> None:
    run = a_run([1.0, 0.5, 0.6, 0.8], [0.2] * 4)
    run.shares = {}
    assert verdict([run]) == (
        "The held-out loss rises since epoch 1: fewer epochs, or more pictures, may be better"
    )


def test_a_rate_that_is_too_high_is_told_by_the_training_loss() -> None:
    t = np.linspace(0, 1, 200)
    rises_and_falls = 1 + 4 * np.sin(np.pi * t) ** 2  # as 1cycle does
    valid, errors = held_out([1.0] * 4, [2.0] * 4, MANY)
    for losses in (rises_and_falls, np.linspace(1, 4, 200)):
        text = verdict([a_run(valid, errors, losses=losses)])
        assert text.startswith("The training loss rose from 1.")
        assert text.endswith("the rate is too high, try a tenth of it")
    gone = np.r_[np.linspace(2, 1, 60), np.full(140, math.nan)]
    text = verdict([a_run(valid, errors, losses=gone)])
    assert text.startswith("The training loss is nan from step 61 on: the rate is too high")


def test_a_spike_or_noise_in_the_training_loss_is_no_rise() -> None:
    losses = FALLING.copy()
    losses[100:103] = 30.0
    valid, errors = held_out([1.0] * 4, [2.0] * 4, MANY)
    assert verdict([a_run(valid, errors, losses=losses)]) == ""
    for seed in SEEDS:
        flat = a_run(valid, errors, losses=np.full(60, 2.0), noise=0.4, seed=seed)
        assert "too high" not in verdict([flat])


def test_losses_that_do_not_move_are_told_and_converged_ones_are_not() -> None:
    text = "Neither the training nor the held-out loss moves: the rate is too low"
    for level, told in ((2.3, True), (0.1, False)):
        run = a_run([level, level * 0.999, level * 0.998], [0.4] * 3, losses=np.full(200, level))
        assert verdict([run]).startswith(text) == told
    moves = a_run([2.3, 2.1, 2.0], [0.4] * 3, losses=np.full(200, 2.3))
    assert "moves" not in verdict([moves])


def two_stages(head: float, both: float, n: int = MANY, *, loss: float = 0.5) -> list[Run]:
    """A fine_tune with these errors after its stages, whose held-out loss was 0.5 before."""
    first = a_run([0.9, 0.5], [0.5, head], n, name=f"fine_tune: {HEAD_STAGE}", seconds=0.5)
    last = a_run([loss], [both], n, name="fine_tune: all layers", seconds=29.0)
    return [first, last]


def test_a_second_stage_that_gave_nothing_is_told_with_its_time() -> None:
    assert verdict(two_stages(0.243, 0.240)) == (
        "All layers: no better than the head alone "
        "(error_rate 0.243 after 00:01, 0.240 after 00:30)"
    )
    assert verdict(two_stages(0.2, 0.3)).startswith("All layers: worse than the head alone")
    assert "than the head" not in verdict(two_stages(0.24, 0.20))
    assert "than the head" not in verdict(two_stages(0.24, 0.24, loss=0.4))  # more certain


def test_a_second_stage_that_spoils_what_the_head_had_wants_a_lower_rate() -> None:
    first, last = two_stages(0.2, 0.3)
    worse = a_run([0.7, 0.8, 0.9], [0.3, 0.32, 0.34], name=last.name)
    assert verdict([first, worse]).startswith(
        "All layers make the held-out loss and the error rise: try a tenth of the rate. "
        "All layers: worse than the head alone"
    )


def test_the_head_alone_is_judged_when_the_other_stage_is_done() -> None:
    assert verdict(two_stages(0.24, 0.24)[:1]) == ""


def test_few_pictures_are_told_by_what_chance_does() -> None:
    run = a_run([0.5], [12 / 74], 74)
    assert verdict([run]) == (
        "12 errors of 74 (± 4): too few held-out pictures to tell small differences"
    )
    run.n_valid = 700
    assert verdict([run]) == ""
    assert verdict([a_run([0.5], [0.0], 30)]) == "No error of 30: up to 10% may be wrong"
    assert verdict([a_run([0.5], [1 / 20], 20)]).startswith("1 error of 20 (± 1): too few")


def test_the_interval_of_errors_holds_two_thirds_of_the_draws() -> None:
    rng = np.random.default_rng(0)
    spread = math.ceil(74 * standard_error(12 / 74, 74))
    inside = np.abs(rng.binomial(74, 12 / 74, 10_000) - 12) <= spread
    assert inside.mean() > 0.68


def test_the_error_is_that_of_the_first_metric_if_it_counts_pictures() -> None:
    run = a_run([0.5], [0.75])
    assert error_of(run, run.rows[0]) == 0.75
    run.shares = {"error_rate": True}
    assert error_of(run, run.rows[0]) == 0.25
    run.rows[0]["error_rate"] = 30.0  # in percent, whatever it is called
    assert error_of(run, run.rows[0]) is None
    run.shares = {"accuracy": True}
    assert error_of(run, run.rows[0]) is None


def test_the_kept_epoch_and_the_weakest_classes_are_those_of_the_weights() -> None:
    run = a_run([0.5, 0.6], [0.2, 0.21])
    run.kept, run.kept_why, run.weakest = run.rows[0], "kept epoch 0: why", ["cat 3 of 9", "none"]
    assert verdict([run]) == "Kept epoch 0: why. Cat 3 of 9"


@pytest.mark.parametrize("status", ["running", "stopped", "interrupted", "failed", "refused"])
def test_a_run_that_did_not_end_by_itself_has_no_verdict(status: str) -> None:
    run = a_run([0.5], [12 / 74], 74)
    run.status = status
    assert verdict([run]) == verdict([]) == ""
    run.ended = "valid_loss did not improve for 1 epoch"
    assert bool(verdict([run])) == (status == "stopped")


def data(n: int, *, wrong: float = 0.0, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 20 numbers whose sum has the sign of the class, with wrong labels."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 20, generator=rng)
    y = ((x.sum(1) > 0) ^ (torch.rand(n, generator=rng) < wrong)).long()
    return list(zip(x.split(10), y.split(10), strict=True))


def trained(lr: float, epochs: int, **how) -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 2))
    loaders = SimpleNamespace(
        train=data(200, **how), valid=data(2000, seed=1, **how), vocab=["a", "b"]
    )
    learn = Learner(loaders, model, metrics=error_rate, device="cpu")
    learn.fit(epochs, lr, show=False)
    return learn


@pytest.mark.parametrize(
    ("lr", "epochs", "wrong", "text"),
    [
        (1e-9, 4, 0.0, "Neither the training nor the held-out loss moves"),
        (3.0, 4, 0.3, "the rate is too high, try a tenth of it"),
        (3e-3, 15, 0.3, "it overfits"),
        (1e-3, 6, 0.0, "Still falling at its end: more epochs may help"),
    ],
)
def test_real_runs_have_the_verdict_they_were_made_for(lr, epochs, wrong, text) -> None:
    learn = trained(lr, epochs, wrong=wrong)
    assert text in verdict([learn.recorder.run])


def test_a_real_run_that_went_well_has_no_verdict() -> None:
    assert verdict([trained(1e-2, 5).recorder.run]) == ""
