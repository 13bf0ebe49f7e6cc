"""Where the training loss cannot tell, short runs do, on problems whose best rate is known."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nbfinetune import Callback, Learner, vision_learner
from nbfinetune.lr_finder.results import LRFindResult
from nbfinetune.lr_finder.sweeps import trial_steps
from nbfinetune.lr_finder.trials import MOST_RUNS, climb, is_unsure

ENDS = (1e-9, 1e3)


@pytest.mark.parametrize("start", [1e-2, 1e-1, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("curvature", [3.0, 7.0, 11.0])
def test_the_best_rate_of_gradient_descent_on_a_parabola_is_found(start, curvature) -> None:
    """Each step multiplies the distance by 1 - curvature * rate: none is left at 1 / curvature."""
    trials = climb(lambda lr: abs(1 - curvature * lr), start, ENDS)
    best, _ = min(trials, key=lambda trial: trial[1])
    assert abs(math.log10(best * curvature)) <= 0.26  # they are half a decade apart
    assert len(trials) <= 6


def test_a_side_that_is_worse_is_left_alone() -> None:
    trials = climb(lambda lr: (math.log10(lr) + 3.6) ** 2, 1e-3, ENDS)
    assert [lr for lr, _ in trials] == pytest.approx([1e-5, 1e-4, 10**-3.5, 1e-3])


def test_a_lower_rate_is_not_better_by_chance() -> None:
    """The lower losses are those after a head was fitted to Omniglot."""
    losses = {-5.0: 3.662, -4.5: 3.738, -4.0: 3.664, -3.5: 3.6, -3.0: 3.9}
    trials = climb(lambda lr: losses[round(math.log10(lr), 1)], 1e-4, ENDS)
    assert [lr for lr, _ in trials] == pytest.approx([1e-5, 10**-4.5, 1e-4, 10**-3.5, 1e-3])


def test_rates_outside_the_ends_are_not_tried() -> None:
    trials = climb(lambda lr: -lr, 1e-3, (1e-4, 2e-3))
    assert [lr for lr, _ in trials] == pytest.approx([1e-4, 10**-3.5, 1e-3])


class Distances(nn.Module):
    """Two weights at 0, of body and head, that belong at 1 and at `target`.

    The training loss hardly falls with them, as that of a head which knows its pictures: the loss
    held out is 1 more for each that is at 0. AdamW moves a weight by the rate in each step, as the
    gradient is always the same.
    """

    def __init__(self, target: float) -> None:
        super().__init__()
        self.body, self.head, self.target = nn.Linear(1, 1, False), nn.Linear(1, 1, False), target
        for layer in (self.body, self.head):
            nn.init.zeros_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        body, head = self.body.weight.sum(), self.head.weight.sum()
        flat, held_out = 10 - 0.001 * (body + head), (body - 1) ** 2 + (head / self.target - 1) ** 2
        return 0.0 * x[:, :2] + (flat if self.training else 1 + held_out)


class Noise(nn.Module):
    """A weight that no loss depends on but that of training, which is loud."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        loud = torch.randn(()) + 0.0 * self.layer.weight.sum()
        return 0.0 * x[:, :2] + 3 + (loud if self.training else 0.0 * loud)


def learner(loaders: SimpleNamespace, model: nn.Module) -> Learner:
    """What the model gives is the loss."""

    def loss(out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return out.mean()

    loss.activation = lambda out: out.softmax(1)
    groups = [[layer] for layer in model.children()]
    return Learner(loaders, model, groups=groups, loss_func=loss, wd=0, device="cpu")


def steps_in_all(learn: Learner) -> float:
    """What a short run at the rate 1 moves a weight by, if each step moves it by its rate."""
    return trial_steps(learn) * (0.25 * (1 / 25 + 1) / 2 + 0.75 / 2)


def test_a_rate_is_found_by_held_out_loss_where_the_training_loss_cannot_fall(loaders) -> None:
    learn = learner(loaders, Distances(target=1.0))
    found = learn.lr_find()
    # Rates half a decade apart, the loss being the square of 1 - rate * steps_in_all: those of
    # 0.48 and 1.52 are alike.
    assert abs(math.log10(found.lr * steps_in_all(learn))) <= 0.32
    assert (found.chosen, found.lr_mult) == ("verified", 1.0)
    assert found.confidence == "high"
    assert learn.lr == found.lr
    assert found.low <= found.lr <= found.high
    without = learn.lr_find(verify=0)
    assert (without.lr, without.trials) == (None, [])
    assert found.losses == without.losses


def test_the_rate_of_the_head_is_found_too(loaders) -> None:
    learn = learner(loaders, Distances(target=10.0))
    found = learn.lr_find()
    assert found.lr_mult == 10
    assert found.lr == slice(found.verified, 10 * found.verified)
    assert learn.rate_note.startswith("next run: ")
    learn.fit(1, show=False)
    assert learn.recorder.run.lrs[0] == pytest.approx([found.verified, 10 * found.verified])
    assert "with 10 times that rate for the head" in found.verdict
    assert ", head at 10 times the best: " in repr(found)


def test_what_the_short_runs_took_is_said(loaders) -> None:
    learn = learner(loaders, Distances(target=1.0))
    found = learn.lr_find()
    runs = len(found.trials) + len(found.mult_trials)
    assert 4 <= runs <= MOST_RUNS
    cost = rf"; {runs} short runs of {trial_steps(learn)} steps took \d+ s$"
    assert re.search(cost, found.verdict)


def test_a_search_takes_no_more_steps_than_it_says(loaders) -> None:
    steps = []

    class Count(Callback):
        def after_batch(self, learn: Learner) -> None:
            steps.append(learn.training)

    learn = learner(loaders, Distances(target=10.0))
    learn.lr_find(cbs=[Count()])
    assert sum(steps) <= 100 + MOST_RUNS * trial_steps(learn)


@pytest.mark.parametrize(("bs", "steps"), [(256, 40), (32, 40), (20, 64), (16, 80), (1, 80)])
def test_short_runs_of_small_batches_have_more_steps(bs: int, steps: int) -> None:
    train = SimpleNamespace(batch_size=bs)
    assert trial_steps(SimpleNamespace(dls=SimpleNamespace(train=train))) == steps


def test_batches_of_a_loader_that_does_not_tell_their_size_have_40_steps() -> None:
    assert trial_steps(SimpleNamespace(dls=SimpleNamespace(train=[]))) == 40


def test_a_head_on_features_that_are_kept_is_judged_by_held_out_loss(dls, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, device="cpu")
    found = learn.lr_find(end_lr=100)
    assert found.chosen == "verified"
    assert found.mult_trials == []
    learn = vision_learner(dls, tiny_net, device="cpu")
    assert learn.lr_find(end_lr=100, suggest="valley").chosen == "valley"


def test_pure_noise_gets_no_rate(loaders) -> None:
    found = learner(loaders, Noise()).lr_find()
    assert (found.lr, found.confidence) == (None, "none")
    assert "no short run lowers the held-out loss of 3.000 by 2%" in found.verdict


def test_a_loss_that_falls_at_every_rate_alike_does_not_choose_one(learn: Learner) -> None:
    """As that of moving BatchNorm statistics, which no rate changes."""
    found = learn.lr_find(1e-12, 1e-10)
    before = learn.validate()[0]
    assert max(loss for _, loss in found.trials) < 0.98 * before
    assert found.lr is None


def test_without_held_out_data_the_curve_stands(loaders) -> None:
    learn = learner(loaders, Distances(target=1.0))
    learn.dls.valid = []
    assert learn.lr_find().trials == []


@pytest.mark.parametrize(
    ("trained", "confidence", "asked", "n", "unsure"),
    [
        ("head", "high", (), 100, False),
        ("head", "low", (), 100, True),
        ("all", "high", (), 100, True),  # the training loss falls by the head alone
        ("all", "high", ("valley",), 100, False),  # what was asked for by name is kept
        ("all", "low", ("valley",), 100, False),
        ("all", "none", ("valley",), 100, True),
        ("all", "none", (), 20, False),  # too short: the verdict says what it needs
    ],
)
def test_short_runs_are_done_where_the_curve_tells_little(
    trained, confidence, asked, n, unsure, learn
) -> None:
    if trained == "head":
        learn.freeze()
    found = LRFindResult([1e-3] * n, [1.0] * n, [1.0] * n, {}, confidence, "", None, None,
                         asked=asked)  # fmt: skip
    assert is_unsure(learn, found) is unsure
