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
