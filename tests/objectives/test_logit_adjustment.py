from copy import deepcopy
from math import log
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from nbfinetune import (
    ImageDataLoaders,
    Learner,
    balanced_accuracy,
    load_learner,
    vision_learner,
)
from nbfinetune.objectives.logit_adjustment import LogitAdjustedLoss
from nbfinetune.objectives.losses import activation_of, softmax

LOGITS = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]])
TARGETS = torch.tensor([0, 2])


def test_logits_that_know_nothing_have_the_loss_of_the_class_shares() -> None:
    loss = LogitAdjustedLoss([6, 3, 1])
    for t, share in enumerate((0.6, 0.3, 0.1)):
        found = loss(torch.zeros(1, 3), torch.tensor([t])).item()
        assert found == pytest.approx(-log(share))


def test_it_is_cross_entropy_of_logits_plus_log_shares() -> None:
    """exp(logit) times the share, over the sum of these: as in equation 10 of Menon et al. 2021."""
    odds = LOGITS.double().exp() * torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    probs = odds / odds.sum(1, keepdim=True)
    expected = -probs[range(2), TARGETS].log().mean().item()
    assert LogitAdjustedLoss([6, 3, 1])(LOGITS, TARGETS).item() == pytest.approx(expected)
    smooth = -0.9 * probs[range(2), TARGETS].log().mean() - 0.1 * probs.log().mean()
    found = LogitAdjustedLoss([6, 3, 1], label_smoothing=0.1)(LOGITS, TARGETS).item()
    assert found == pytest.approx(smooth.item())


def test_with_classes_of_one_size_it_is_cross_entropy() -> None:
    found = LogitAdjustedLoss([7, 7, 7])(LOGITS, TARGETS)
    assert torch.allclose(found, nn.CrossEntropyLoss()(LOGITS, TARGETS))


def test_a_class_without_pictures_leaves_the_loss_finite() -> None:
    loss = LogitAdjustedLoss([9, 0])
    assert loss.log_prior.exp().tolist() == pytest.approx([0.9, 0.1])
    assert loss(LOGITS[:, :2], torch.tensor([0, 0])).isfinite()


def test_probabilities_are_those_of_the_logits_alone() -> None:
    assert activation_of(LogitAdjustedLoss([6, 3, 1]), 3) is softmax


@pytest.fixture
def uneven(tmp_path: Path) -> ImageDataLoaders:
    """18 + 6 grey pictures of "often" and 6 + 2 of "rare", all of which look the same."""
    for i in range(32):
        folder = tmp_path / ("often" if i < 24 else "rare")
        folder.mkdir(exist_ok=True)
        pixels = Image.new("RGB", (8, 8), (100, 100, 100))
        pixels.putpixel((0, 0), (i, 0, 0))  # not the same file twice
        pixels.save(folder / f"{i}.png")
    return ImageDataLoaders.from_folder(tmp_path, valid_pct=0.25, size=8, bs=24, aug=False)


@pytest.fixture
def adjusted(uneven, tiny_net) -> Learner:
    """A learner of these whose body gives no features: what is common is all it can learn."""
    for p in tiny_net.parameters():
        nn.init.zeros_(p)
    return vision_learner(uneven, tiny_net, logit_adjustment=True, device="cpu", wd=0.0)


def test_pictures_that_tell_nothing_get_equal_probabilities(
    adjusted: Learner, uneven, tiny_net
) -> None:
    plain = vision_learner(uneven, tiny_net, device="cpu", wd=0.0)
    for learn, expected in ((adjusted, 0.5), (plain, 0.75)):
        with torch.no_grad():
            learn.model[-1].bias[0] = 2
        learn.fit_one_cycle(60, 0.1, show=False)
        often = learn.get_preds()[0][:, 0]
        assert often.tolist() == pytest.approx([expected] * 8, abs=0.03)


def test_its_validation_loss_is_that_of_a_plain_network_that_knows_as_much(adjusted) -> None:
    """Both know how common the classes are and no more: the entropy of 3 to 1."""
    entropy = -(0.75 * log(0.75) + 0.25 * log(0.25))
    assert adjusted.validate()[0] == pytest.approx(entropy)
    assert adjusted.fit(1, 1e-6).rows[0]["valid_loss"] == pytest.approx(entropy, abs=1e-3)
    *_, losses = adjusted.get_preds(with_loss=True)
    assert losses.tolist() == pytest.approx([-log(0.75)] * 6 + [-log(0.25)] * 2, abs=1e-3)


def test_an_exported_learner_predicts_the_same_without_the_loss(
    uneven, tiny_net, tmp_path: Path
) -> None:
    learn = vision_learner(uneven, tiny_net, logit_adjustment=True, device="cpu")
    learn.fit(2, 1e-2)
    preds, _ = learn.get_preds()
    opened = load_learner(learn.export(tmp_path / "e.safetensors"), arch=tiny_net, device="cpu")
    assert type(opened.loss_func) is nn.CrossEntropyLoss
    file = uneven.valid.dataset.path(0)
    assert opened.predict(file)[2].tolist() == pytest.approx(preds[0].tolist(), abs=1e-5)
    again = vision_learner(uneven, tiny_net, device="cpu")
    again.load(learn.save(tmp_path / "s.safetensors"))
    assert torch.allclose(again.get_preds()[0], preds, atol=1e-5)


def test_features_kept_or_not_give_the_same_losses(uneven, tiny_net) -> None:
    losses = []
    for cache_features in (True, False):
        learn = vision_learner(
            *(uneven, tiny_net),
            logit_adjustment=True,
            label_smoothing=0.1,
            train_bn=False,
            cache_features=cache_features,
            device="cpu",
        )
        losses.append(learn.fit(3, 1e-2).stages[0].losses)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_search_leaves_the_loss_as_it_was(adjusted: Learner) -> None:
    before = deepcopy(adjusted.loss_func)
    adjusted.lr_find(num_it=8)
    assert torch.equal(adjusted.loss_func.log_prior, before.log_prior)
    assert adjusted.loss_func(LOGITS[:, :2], TARGETS // 2) == before(LOGITS[:, :2], TARGETS // 2)


def test_balanced_accuracy_goes_with_it_as_a_metric(uneven, tiny_net) -> None:
    learn = vision_learner(
        uneven, tiny_net, logit_adjustment=True, metrics=balanced_accuracy, device="cpu"
    )
    row = learn.fine_tune(1, freeze_epochs=1).rows[-1]
    assert 0 <= row["balanced_accuracy"] <= 1
