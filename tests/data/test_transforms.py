import numpy as np
import pytest
import torch
from PIL import Image

from nbfinetune.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageTransforms,
    presize,
    to_square,
)


@pytest.mark.parametrize(("size", "side"), [(224, 256), (32, 37), (28, 32), (128, 146), (1, 1)])
def test_pictures_are_kept_an_eighth_larger_than_the_network_sees_them(size, side) -> None:
    assert presize(size) == side


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (100, 100)])
def test_the_middle_square_is_kept(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "red")
    width, height = size
    image.paste("blue", (width // 2 - 50, height // 2 - 50, width // 2 + 50, height // 2 + 50))
    square = to_square(image, 25)
    assert square.shape == (3, 25, 25)
    assert (square[2] == 255).all()
    assert (square[0] == 0).all()


def test_squares_lie_in_memory_as_they_are_kept() -> None:
    """By pixels: torch scales in this order only if it is told of it, and copies are quick then."""
    assert to_square(Image.new("RGB", (50, 40)), 25).stride() == (1, 75, 3)
    assert to_square(np.zeros((40, 40, 3), np.uint8), 25).stride() == (1, 75, 3)


def test_validation_takes_the_middle_and_normalises() -> None:
    x = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    x[:, :, 2:30, 2:30] = torch.tensor([255, 128, 0], dtype=torch.uint8)[:, None, None]
    out = ImageTransforms(28).valid(x)
    assert out.shape == (2, 3, 28, 28)
    for k, value in enumerate((1.0, 128 / 255, 0.0)):
        expected = (value - IMAGENET_MEAN[k]) / IMAGENET_STD[k]
        assert torch.allclose(out[:, k], torch.tensor(expected), atol=1e-6)


def test_without_augmentation_training_sees_what_validation_sees() -> None:
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tfms = ImageTransforms(28, aug=False)
    assert torch.equal(tfms.train(x), tfms.valid(x))


def test_each_picture_of_a_batch_is_augmented_on_its_own() -> None:
    picture = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    torch.manual_seed(0)
    out = ImageTransforms(56).augment(picture.repeat(8, 1, 1, 1))
    assert out.dtype == torch.uint8
    assert out.shape == (8, 3, 56, 56)
    assert len({tuple(p.flatten().tolist()) for p in out}) == 8


def test_a_transform_of_the_users_takes_the_place_of_ours() -> None:
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    out = ImageTransforms(16, aug=lambda picture: picture[:, :16, :16].flip(-1)).augment(x)
    assert torch.equal(out, x[:, :, :16, :16].flip(-1))


def test_squares_of_another_side_are_scaled() -> None:
    assert ImageTransforms(28).valid(torch.zeros(1, 3, 50, 50, dtype=torch.uint8)).shape[-1] == 28


def test_a_function_that_gives_floats_gives_values_up_to_one() -> None:
    def aug(picture: torch.Tensor) -> torch.Tensor:
        return picture[:, :8, :8] / 255

    x = torch.randint(256, (2, 3, 9, 9), dtype=torch.uint8)
    floats = ImageTransforms(8, aug=aug).train(x)
    bytes_ = ImageTransforms(8, aug=lambda picture: picture[:, :8, :8]).train(x)
    assert torch.allclose(floats, bytes_, atol=1e-5)


def test_batches_of_floats_are_seen_as_those_of_bytes() -> None:
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tfms = ImageTransforms(28)
    assert torch.equal(tfms.valid(x / 255), tfms.valid(x))
    torch.manual_seed(0)
    expected = tfms.train(x)
    torch.manual_seed(0)
    assert torch.equal(tfms.train(x / 255), expected)


def test_the_middle_square_of_an_oblong_batch_is_taken_unstretched() -> None:
    x = torch.zeros(1, 3, 20, 60, dtype=torch.uint8)
    x[..., 20:40] = 255
    assert (ImageTransforms(10).middle(x) == 255).all()


ALLOWED = r"it must give uint8, or floats in \[0, 1\], of shape \[3, 8, 8\]"
AUGMENTATIONS = {
    "another size": (lambda p: p[:, :6, :6], r"aug gives a picture of shape \[3, 6, 6\]; "),
    "one channel": (lambda p: p[:1, :8, :8], r"aug gives a picture of shape \[1, 8, 8\]; "),
    "a batch": (lambda p: p[None, :, :8, :8], r"aug gives a picture of shape \[1, 3, 8, 8\]; "),
    "normalised": (lambda p: p[:, :8, :8] / 64 - 2, "aug gives floats outside .*normalisation; "),
    "bytes as floats": (lambda p: p[:, :8, :8].float(), "as bytes are before a division by 255; "),
    "NaN": (lambda p: p[:, :8, :8] / 0 * 0, "aug gives floats of which some are NaN; "),
    "int64": (lambda p: p[:, :8, :8].long(), "aug gives values of torch.int64; "),
    "an array": (lambda p: p[:, :8, :8].numpy(), "aug gives ndarray, no tensor; "),
    "Pillow": (lambda p: Image.new("RGB", (8, 8)), "aug gives Image, no tensor; "),
    "nothing": (lambda p: None, "aug gives NoneType, no tensor; "),
}


@pytest.mark.parametrize(("aug", "found"), AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_an_augmentation_that_gives_other_than_pictures_is_refused(aug, found: str) -> None:
    x = torch.randint(200, 256, (2, 3, 9, 9), dtype=torch.uint8)
    tfms = ImageTransforms(8, aug=aug)
    for call in (lambda: tfms.train(x), lambda: tfms.try_augment(x[0])):
        with pytest.raises(ValueError, match=found + ALLOWED):
            call()


def test_an_augmentation_that_gives_two_types_is_refused() -> None:
    kinds = iter([torch.uint8, torch.float32])
    tfms = ImageTransforms(8, aug=lambda p: torch.ones(3, 8, 8, dtype=next(kinds)))
    with pytest.raises(ValueError, match=r"aug gives torch\.uint8 and torch\.float32, of"):
        tfms.train(torch.zeros(2, 3, 9, 9, dtype=torch.uint8))


def test_an_augmentation_that_takes_no_such_picture_is_refused() -> None:
    tfms = ImageTransforms(8, aug=lambda picture: picture.convert("RGB"))
    with pytest.raises(ValueError, match=r"aug fails on a picture of uint8 \[3, 9, 9\] \(Attrib"):
        tfms.try_augment(torch.zeros(3, 9, 9, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((123.7, 116.3, 103.5), IMAGENET_STD, r"mean is \(123.7, .* from 0 to 1"),
        (IMAGENET_MEAN, (58.4, 57.1, 57.4), r"std is \(58.4, .* from 0.0039 to 1"),
        (IMAGENET_MEAN, (0.2, 0.0, 0.2), r"std is \(0.2, 0.0, 0.2\); it must be three numbers"),
        ((0.5,), (0.5,), r"mean is \(0.5,\); it must be three numbers, of red"),
    ],
)
def test_mean_and_std_are_of_values_up_to_one(mean, std, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageTransforms(8, mean, std)
