"""Class activation maps: the identity that defines them, and the networks that have none."""

import gc
import pickle

import pytest
import torch
from PIL import Image
from torch import nn

from nbfinetune import ClassificationInterpretation, ImageDataLoaders, Learner, vision_learner
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.interpretation.activation_map import activation_maps, overlay
from nbfinetune.interpretation.label_issues import label_issues


def tiny(*end: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(), *end)


def on_mean() -> nn.Sequential:
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 3)
    return tiny(*head)


def learner(dls, model: nn.Module) -> Learner:
    return Learner(dls, model, transforms=ImageTransforms(dls.size), device="cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_of_a_map_and_the_bias_are_the_logit(dls, dtype) -> None:
    learn = learner(dls, on_mean())
    learn.model.to(dtype)
    learn.prepare = lambda x, training: ImageTransforms(dls.size).valid(x).to(dtype)
    found = activation_maps(learn, dls.valid.dataset[0][0])
    assert found.maps.shape == (3, 8, 8)
    assert found.maps.std((1, 2)).min() > 1e-3
    assert not found.maps.requires_grad
    torch.testing.assert_close(
        found.maps.mean((1, 2)) + found.bias, found.logits, rtol=1e-4, atol=1e-4
    )


def test_that_holds_for_the_default_head_on_a_pretrained_body(photos) -> None:
    dls = ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=96, bs=5)
    learn = vision_learner(dls, "efficientnet_lite0", device="cpu")
    with torch.no_grad():
        learn.model[-1].weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        learn.model[-1].bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
    picture = dls.valid.dataset[0][0]
    found = activation_maps(learn, picture)
    torch.testing.assert_close(
        found.maps.mean((1, 2)) + found.bias, found.logits, rtol=1e-4, atol=1e-4
    )
    assert found.maps.shape == (3, 3, 3)
    assert found.maps.std((1, 2)).min() > 0.1
    out = learn.model(learn.prepare(picture[None], training=False))[0]
    torch.testing.assert_close(found.logits, out, rtol=1e-4, atol=1e-4)


def test_a_map_lies_where_what_speaks_for_the_class_is(dls) -> None:
    """Known answer: the feature is redness, and the red is at the top left."""
    model = nn.Sequential(
        nn.Conv2d(3, 1, 8, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3)
    )
    with torch.no_grad():
        model[0].weight.zero_()[0, 0] = 1 / 64
        model[0].bias.zero_()
        model[3].weight.copy_(torch.tensor([[2.0], [0.0], [-1.0]]))
        model[3].bias.zero_()
    learn = learner(dls, model)
    learn.prepare = lambda x, training: x[..., 2:-2, 2:-2] / 255
    picture = torch.zeros(3, 36, 36, dtype=torch.uint8)
    picture[0, 2:10, 2:10] = 255
    expected = torch.zeros(4, 4)
    expected[0, 0] = 1
    found = activation_maps(learn, picture)
    for k, weight in enumerate((2, 0, -1)):
        torch.testing.assert_close(found.maps[k], weight * expected)


def concat_pool_head() -> nn.Sequential:
    from nbfinetune.networks.heads import ConcatPool

    return tiny(ConcatPool(), nn.Linear(16, 3))


def norm_head() -> nn.Sequential:
    norm = nn.BatchNorm1d(8)
    norm.running_var.fill_(4)
    return tiny(nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm, nn.Linear(8, 3))


NO_MAP = [
    (lambda: tiny(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.ReLU(),
                  nn.Linear(8, 3)), "the network has 2 linear layers in a row, not one"),
    (norm_head, "more than flattening and dropout lies between"),
    (lambda: tiny(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
     "the network has no layer that takes the mean of a feature map"),
    (lambda: tiny(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)),
     "more than flattening and dropout lies between"),
    (concat_pool_head, "the network has no layer that takes the mean of a feature map"),
    (lambda: tiny(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3), nn.Tanh()),
     "no linear layer gives the network's logits"),
    (lambda: tiny(nn.Conv2d(8, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
     "no linear layer gives the network's logits"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "reason"), NO_MAP)
def test_other_heads_have_none_and_say_why(dls, model, reason: str) -> None:
    learn = learner(dls, model().eval())
    match = f"the activation map is not available because {reason}"
    with pytest.raises(ValueError, match=match):
        activation_maps(learn, dls.valid.dataset[0][0])


def test_asking_changes_nothing(dls) -> None:
    learn = learner(dls, on_mean())
    learn.model[1].train()
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    modes = [module.training for module in learn.model.modules()]
    random = torch.get_rng_state()
    activation_maps(learn, dls.valid.dataset[0][0])
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    assert [module.training for module in learn.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    for module in learn.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not learn.control.running


def test_while_a_run_is_on_the_network_is_left_alone(dls) -> None:
    learn = learner(dls, on_mean())
    picture = dls.valid.dataset[0][0]
    with (
        learn.control.claim(scales_rates=True),
        pytest.raises(RuntimeError, match="a run is on; ask for the activation map after it"),
    ):
        activation_maps(learn, picture)


@pytest.fixture
def learn(dls) -> Learner:
    return learner(dls, on_mean())


def test_an_interpretation_gives_the_map_of_a_class(learn) -> None:
    interp = ClassificationInterpretation.from_learner(learn)
    maps = activation_maps(learn, learn.dls.valid.dataset[2][0]).maps
    torch.testing.assert_close(interp.activation_map(2), maps[interp.predicted[2]])
    torch.testing.assert_close(interp.activation_map(2, "red"), maps[2])
    with pytest.raises(ValueError, match="no class 'cow'"):
        interp.activation_map(0, "cow")


def test_changed_weights_are_told_of(learn) -> None:
    interp = ClassificationInterpretation.from_learner(learn)
    assert interp.network.note == ""
    with torch.no_grad():
        learn.model[0].weight[0] = 1
    assert interp.network.note.startswith("by the weights of now, which have changed")


def test_the_heads_that_look_for_label_issues_are_not_the_learners(dls) -> None:
    learn = vision_learner(dls, "efficientnet_lite0", device="cpu")
    found = label_issues(learn)
    assert found.interp.network.note == "by the learner's own head, not by the heads of this list"
    assert found.interp.activation_map(17).shape == (1, 1)


def test_the_learner_is_not_kept_alive_and_an_interpretation_can_be_pickled(dls) -> None:
    learn = learner(dls, on_mean())
    interp = ClassificationInterpretation.from_learner(learn)
    again = pickle.loads(pickle.dumps(interp))
    with pytest.raises(ValueError, match="because the learner that predicted is gone"):
        again.activation_map(0)
    del learn
    gc.collect()
    with pytest.raises(ValueError, match="because the learner that predicted is gone"):
        interp.activation_map(0)


def test_predictions_of_no_learner_have_no_map() -> None:
    interp = ClassificationInterpretation.from_predictions([0, 1], [1, 1], "ab")
    with pytest.raises(ValueError, match="these predictions come from no learner"):
        interp.activation_map(0)


def test_what_the_network_saw_is_the_middle_of_the_picture(tmp_path, dls, learn) -> None:
    interp = ClassificationInterpretation.from_learner(learn)
    whole, seen = interp.image(0), interp.network.seen(interp.dataset, 0)
    side = round(32 / 37 * min(whole.size))
    assert seen.size == (side, side)
    left, top = ((length - side) // 2 for length in whole.size)
    assert seen.getpixel((0, 0)) == whole.getpixel((left, top))


def test_a_map_over_a_picture_is_bright_where_it_is_large_and_grey_where_it_is_not() -> None:
    activation = torch.full((2, 2), -1.0)
    activation[0, 0] = 3
    laid = overlay(Image.new("RGB", (64, 64), (40, 40, 40)), activation)
    assert laid.size == (400, 400)
    bright, faint = laid.getpixel((10, 10)), laid.getpixel((390, 390))
    assert min(bright[:2]) > 150
    assert max(faint) < 60
    nothing = overlay(Image.new("RGB", (64, 64), (40, 40, 40)), torch.full((2, 2), -1.0))
    assert nothing.getextrema() == ((40, 40),) * 3
