"""`lr_decay`: what each layer group is trained at, in fits and searches."""

from types import SimpleNamespace

import pytest
from torch import nn

from nbfinetune import Callback, ImageDataLoaders, Learner, vision_learner


def decaying(loaders: SimpleNamespace, model: nn.Sequential, decay: float | None) -> Learner:
    groups = [[part] for part in model]
    return Learner(loaders, model, groups=groups, lr_decay=decay, device="cpu")


def test_a_fit_trains_each_group_at_its_power_of_the_decay(loaders, mlp) -> None:
    learn = decaying(loaders, mlp, 0.5)
    learn.fit(1, 8e-3, show=False)
    assert learn.recorder.run.lrs[0] == pytest.approx([2e-3, 4e-3, 8e-3])
    learn.fit(1, slice(1e-4, 1e-2), show=False)  # says its rates itself
    assert learn.recorder.run.lrs[0] == pytest.approx([1e-4, 1e-3, 1e-2])
    learn.lr_decay = None
    learn.fit(1, 8e-3, show=False)
    assert learn.recorder.run.lrs[0] == pytest.approx([8e-3] * 3)


def test_a_search_sweeps_the_rates_that_a_fit_will_have(loaders, mlp) -> None:
    learn = decaying(loaders, mlp, 0.1)
    seen = []

    class Rates(Callback):
        def after_batch(self, learn: Learner) -> None:
            seen.append([g["lr"] for g in learn.opt.param_groups if g["decays"]])

    learn.lr_find(num_it=10, verify=0, cbs=[Rates()], show=False)
    assert all(a / c == pytest.approx(0.01) and b / c == pytest.approx(0.1) for a, b, c in seen)


@pytest.mark.parametrize(
    ("recipe", "options", "expected"),
    [
        ("fastai", {}, [0.125, 0.25, 0.5]),  # of base_lr, half of it for the head
        ("fastai", {"lr_mult": 100}, [0.005, 0.05, 0.5]),
    ],
)
def test_fine_tune_decays_where_no_other_ratio_is_given(
    recipe: str, options: dict, expected: list[float], loaders, mlp
) -> None:
    learn = decaying(loaders, mlp, 0.5)
    learn.fine_tune(1, 1e-2, recipe=recipe, show=False, **options)
    highest = [max(rates) for rates in zip(*learn.recorder.run.lrs, strict=True)]
    assert highest[0] / highest[2] == pytest.approx(expected[0] / expected[2])
    assert highest[1] / highest[2] == pytest.approx(expected[1] / expected[2])


def test_the_recipe_decays_from_the_rate_that_it_finds_for_the_body(
    dls: ImageDataLoaders, small_net
) -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 8, 3, 2), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(*body, nn.Flatten(), nn.Linear(8, 3))
    groups = [[model[0]], [*model[1:4]], [model[4]]]
    learn = Learner(
        dls, model, groups=groups, lr_decay=0.5, train_bn=False, device="cpu",
        transforms=vision_learner(dls, small_net(), device="cpu").transforms,
    )  # fmt: skip
    learn.fine_tune(1, freeze_epochs=1, show=False)
    first, second, _ = (max(rates) for rates in zip(*learn.recorder.run.lrs, strict=True))
    assert first / second == pytest.approx(0.5)
    plain = learn.second_stage.rate
    assert second == pytest.approx(plain, rel=0.2)  # the highest of a few steps


@pytest.mark.parametrize("decay", [0, -0.5, 1.01, float("nan"), "0.5", True])
def test_decays_outside_0_to_1_are_refused(decay: object, loaders, mlp) -> None:
    with pytest.raises(
        ValueError, match=r"lr_decay is .*; it must be None, or above 0 and at most"
    ):
        decaying(loaders, mlp, decay)


def test_a_learner_says_its_decay(loaders, mlp) -> None:
    assert "next lr 1.0e-3, lr_decay 0.75 a group" in str(decaying(loaders, mlp, 0.75).summary())
    assert "decay" not in str(decaying(loaders, mlp, None).summary())
