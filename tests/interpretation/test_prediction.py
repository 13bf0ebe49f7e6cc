from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nbfinetune import Learner, accuracy, vision_learner


@pytest.fixture
def trained(dls, tiny_net) -> Learner:
    learn = vision_learner(dls, tiny_net, device="cpu", label_smoothing=0.1)
    learn.fit_one_cycle(20, 1e-1)
    return learn


def test_colours_are_learned(trained: Learner) -> None:
    assert trained.validate()[1] == 0


def test_preds_are_probabilities_in_the_order_of_the_data(trained: Learner) -> None:
    for ds in ("valid", "train"):
        preds, targets, losses = trained.get_preds(ds, with_loss=True)
        dataset = getattr(trained.dls, ds).dataset
        assert targets.tolist() == dataset.targets
        assert preds.shape == (len(dataset), 3)
        assert torch.allclose(preds.sum(1), torch.ones(len(dataset)))
        expected = nn.functional.cross_entropy(
            preds.log(), targets, reduction="none", label_smoothing=0.1
        )
        assert torch.allclose(losses, expected, atol=1e-5)


def test_training_pictures_are_predicted_without_augmentation(trained: Learner) -> None:
    first, second = (trained.get_preds("train")[0] for _ in range(2))
    assert torch.equal(first, second)


def test_any_loader_can_be_predicted(trained: Learner) -> None:
    preds, _ = trained.get_preds(trained.dls.valid)
    assert torch.equal(preds, trained.get_preds()[0])
    assert trained.validate(trained.dls.train)[1] == 0


def test_predict_takes_a_file_a_picture_or_a_tensor(trained: Learner) -> None:
    dataset = trained.dls.valid.dataset
    preds, targets = trained.get_preds()
    for i in range(len(dataset)):
        label, index, probs = trained.predict(dataset.path(i))
        assert label == trained.vocab[targets[i]]
        assert index == targets[i]
        assert torch.allclose(probs, preds[i], atol=1e-6)
        image = dataset.image(i)
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        tensor = pixels.view(image.height, image.width, 3).permute(2, 0, 1)
        assert torch.equal(trained.predict(image)[2], probs)
        assert torch.equal(trained.predict(tensor)[2], probs)


def test_validate_gives_loss_and_metrics(trained: Learner) -> None:
    preds, targets = trained.get_preds()
    loss, error = trained.validate()
    expected = nn.functional.cross_entropy(preds.log(), targets, label_smoothing=0.1)
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert error == 1 - accuracy(preds, targets)


def test_an_unknown_part_of_the_data_is_refused(trained: Learner) -> None:
    with pytest.raises(ValueError, match='ds is \'test\'; it must be "valid", "train" or a'):
        trained.get_preds("test")


def test_a_learner_without_transforms_cannot_predict_pictures(learn: Learner) -> None:
    with pytest.raises(ValueError, match="predict takes pictures; this learner has no"):
        learn.predict("a.png")


def test_a_file_that_cannot_be_decoded_says_why(trained: Learner, tmp_path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"empty file \(0 bytes\)"):
        trained.predict(tmp_path / "a.png")


def test_predict_takes_arrays_as_cameras_and_readers_give_them(trained: Learner) -> None:
    image = trained.dls.valid.dataset.image(0)
    probs = trained.predict(image)[2]
    pixels = np.array(image)
    for same in (pixels, pixels / 255, torch.from_numpy(pixels).permute(2, 0, 1) / 255):
        assert torch.equal(trained.predict(same)[2], probs)
    assert trained.predict(pixels[..., 0])[2].shape == (3,)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("no/such/cat.jpg", r"no/such/cat.jpg: no such file; pass a picture file"),
        (Path("gone.png"), r"gone.png: no such file"),
        (".", r"\.: cannot be read \(Is a directory\)"),
        ("https://example.org/cat.jpg", "cat.jpg is a URL, and nothing is downloaded; pass a file"),
        ("s3://photos/cat.jpg", "is a URL, and nothing is downloaded"),
        (None, "None is no picture; give one file"),
        ([], "there are no items; give files, a folder"),
        ({}, "dict is no picture; give one file"),
        (b"\xff\xd8\xff", r"these bytes are no picture: damaged \("),
        (b"", r"these bytes are no picture: empty file \(0 bytes\)"),
        (b"<html>not found", "these bytes are no picture: .*web page"),
        (np.zeros((3, 40, 50), np.uint8), r"x.transpose\(1, 2, 0\) makes it so"),
        (torch.zeros(1, 3, 40, 40), "one picture without a batch dimension"),
        (torch.zeros(3, 40, 40) - 2, "as after normalisation"),
    ],
)
def test_predict_says_what_is_wrong_in_one_line(trained: Learner, item, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        trained.predict(item)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["validate", "get_preds"])
def test_own_loaders_of_normalised_pictures_are_refused(trained: Learner, part: str) -> None:
    loader = [(torch.randn(4, 3, 32, 32), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(ValueError, match=r"the inputs are floats outside \[0, 1\], .* itself"):
        getattr(trained, part)(loader)


def test_own_loaders_of_floats_are_seen_as_those_of_bytes(trained: Learner) -> None:
    x, y = next(iter(trained.dls.valid))
    preds, floats = (trained.get_preds([(inputs, y)])[0] for inputs in (x, x / 255))
    assert torch.equal(preds, floats)
