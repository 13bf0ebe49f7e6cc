"""The recipe of fine_tune: known answers of its rule, and that its parts can be set by hand."""

from math import log

import pytest
import torch
from torch import nn

from nbfinetune import Learner
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.networks.head_fit import HeadFit
from nbfinetune.training.fine_tuning.recipe import (
    batch_size,
    batches_of,
    first_layers,
    first_layers_fixed,
    second_stage,
    soften,
)


def head_of(share: float) -> HeadFit:
    """A head of four classes with this share of a guess's loss on pictures left out."""
    return HeadFit(torch.zeros(4, 2), torch.zeros(4), 0.1, 0.5, share * log(4))


@pytest.mark.parametrize(
    ("share", "rate", "scale", "words"),
    [
        (0.1, 3e-5, 1.0, "near to those"),
        (0.25, 3e-5, 1.0, "near to those"),
        (0.35, 9.486833e-5, 0.3**0.5, "not far from those"),
        (0.45, 3e-4, 0.3, "far from those"),
        (1.2, 3e-4, 0.3, "far from those"),
    ],
)
def test_the_further_the_pictures_the_faster_the_body_trains(make, share, rate, scale, words):
    stage = second_stage(make(), head_of(share))
    assert (stage.rate, stage.scale) == pytest.approx((rate, scale))
    assert f"is {share:.0%} of a guess's, so they are {words}" in stage.why


def test_without_a_fitted_head_the_body_trains_at_the_careful_rate(make) -> None:
    stage = second_stage(make(), None)
    assert (stage.rate, stage.scale, stage.why) == (3e-5, 1.0, "the body trains at 3.0e-5")


def test_where_nothing_could_be_left_out_the_body_trains_at_the_careful_rate(make) -> None:
    stage = second_stage(make(), head_of(float("nan")))
    assert (stage.rate, stage.scale, stage.why) == (3e-5, 1.0, "the body trains at 3.0e-5")


def test_networks_without_batchnorm_take_a_fifth(make) -> None:
    learn = make()
    learn.model[0] = nn.Identity()
    assert second_stage(learn, head_of(1)).rate == pytest.approx(6e-5)


def test_a_softened_head_predicts_the_same_with_less_confidence() -> None:
    torch.manual_seed(0)
    head, x = nn.Linear(5, 3), torch.randn(20, 5)
    with torch.no_grad():
        before = head(x)
        soften(head, 0.3)
        assert head(x).allclose(0.3 * before, atol=1e-6)


@pytest.mark.parametrize(("n", "bs"), [(12, 4), (400, 16), (1200, 16), (3000, 48), (60000, 64)])
def test_an_epoch_has_sixty_steps_or_more_if_batches_of_sixteen_allow_that(
    make, n: int, bs: int, monkeypatch
) -> None:
    learn = make()
    dataset = type(learn.dls.train.dataset)
    monkeypatch.setattr(dataset, "__len__", lambda self: n)
    learn.dls.bs = 64 if n > 12 else 4
    assert batch_size(learn) == bs


def test_batches_of_another_size_are_given_back_on_an_error(make) -> None:
    learn = make()
    train = learn.dls.train

    def fail() -> None:
        with batches_of(learn, 2):
            assert [len(y) for _, y in learn.dls.train] == [2] * 6
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert learn.dls.train is train


def test_layers_that_see_large_pictures_stay_fixed_and_train_again_afterwards() -> None:
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),  # a half of the picture's sides
        nn.Conv2d(4, 4, 3, stride=2, padding=1),  # a quarter
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Upsample(8)),  # one pixel
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    head = nn.Linear(4, 2)
    model, transforms = nn.Sequential(body, head), ImageTransforms(32)
    how = {"groups": [[body], [head]], "transforms": transforms, "device": "cpu"}
    learn = Learner(None, model, train_bn=False, **how)
    assert first_layers(learn) == [body[0], body[1], body[2][1]]
    with first_layers_fixed(learn):
        trains = [m.weight.requires_grad for m in (body[0], body[1], body[3], body[4], head)]
    assert trains == [False, False, True, True, True]
    assert all(p.requires_grad for p in model.parameters())
    with first_layers_fixed(Learner(None, model, train_bn=True, **how)):  # from scratch
        assert all(p.requires_grad for p in model.parameters())


def test_a_network_of_one_size_has_no_first_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Flatten(), nn.Linear(64, 2))
    groups = [[model[0]], [model[2]]]
    learn = Learner(None, model, groups=groups, transforms=ImageTransforms(32), device="cpu")
    assert first_layers(learn) == []


def test_the_second_stage_trains_by_the_rule_and_says_so(make) -> None:
    learn = make()
    head, both = learn.fine_tune(2, 1e-2, bs=3).stages
    peaks = [max(lrs) for lrs in zip(*both.lrs, strict=True)]
    assert peaks == [pytest.approx(3e-5, rel=0.1), pytest.approx(5e-3, rel=0.1)]
    assert both.n_iter == 4
    assert "the body trains at 3.0e-5: the loss of the head" in both.notes[0]
    assert head.notes[0].startswith("at its end the head was fitted anew")
    assert len(learn.dls.train) == 3  # as before


@pytest.mark.parametrize("how", [{"lr_mult": 10}, {"base_lr": slice(1e-3, 1e-2)}])
def test_a_rate_of_the_body_that_is_given_is_used(how: dict, make) -> None:
    both = make().fine_tune(1, **({"base_lr": 1e-2} | how)).stages[-1]
    first, head = (max(lrs) for lrs in zip(*both.lrs, strict=True))
    assert head / first == pytest.approx(10)
    assert not any(note.startswith("the body trains") for note in both.notes)


def test_fastais_recipe_fits_no_head_anew_and_keeps_the_last_weights(make) -> None:
    learn = make()
    result = learn.fine_tune(2, 1e-2, recipe="fastai")
    head, both = result.stages
    first, last = (max(lrs) for lrs in zip(*both.lrs, strict=True))
    assert [stage.n_epoch for stage in result.stages] == [1, 2]
    assert (head.notes, both.notes) == ([], [])
    assert last / first == pytest.approx(100)
    assert result.kept is result.rows[-1]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"recipe": "keras"}, "recipe is 'keras'; it must be one of measured, fastai"),
        ({"bs": 0}, "bs is 0; it must be a whole number from 1 up"),
        ({"bs": 1.5}, "bs is 1.5"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_changes(how, message, make) -> None:
    learn = make()
    with pytest.raises(ValueError, match=message):
        learn.fine_tune(1, **how)
    assert learn.recorder.runs == []


def test_batches_of_loaders_that_make_their_own_cannot_be_chosen(learn: Learner) -> None:
    with pytest.raises(ValueError, match="bs is 8, but these loaders make batches of their own"):
        learn.fine_tune(1, bs=8)
