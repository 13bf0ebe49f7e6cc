from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from nbfinetune.data import augmentation
from nbfinetune.data.augmentation import Changes, changed, draw_changes, normalized
from nbfinetune.data.transforms import IMAGENET_MEAN, IMAGENET_STD, ImageTransforms

CROPS = {"one by one": augmentation._one_by_one, "at once": augmentation._at_once}
GREY_LEVEL = 1 / 255


def _pictures(n: int, side: int, *, low: int = 60, high: int = 180) -> Tensor:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(low, high, (n, 3, side // 4, side // 4), dtype=torch.uint8, generator=g)
    return F.resize(x, [side, side])


def _changes(**values: list[float]) -> Changes:
    n = len(next(iter(values.values())))
    nothing = {"top": 0, "left": 0, "height": 64, "width": 64, "mirrored": False}
    nothing |= {"brightness": 1.0, "contrast": 1.0}
    return Changes(**{k: torch.tensor(values.get(k, [v] * n)) for k, v in nothing.items()})


@pytest.mark.parametrize("crops", CROPS.values(), ids=CROPS)
@pytest.mark.parametrize("size", [56, 20, 90])
def test_a_batch_is_changed_as_torchvision_changes_each_picture(crops, size: int) -> None:
    x = _pictures(4, 64)
    changes = _changes(
        top=[0, 5, 10, 20], left=[0, 14, 3, 7], height=[64, 50, 44, 44], width=[64, 40, 61, 45],
        mirrored=[False, True, False, True], brightness=[1.0, 1.2, 0.8, 0.9],
        contrast=[1.0, 0.8, 1.2, 1.1],
    )  # fmt: skip
    pixels = crops(x, changes, size)
    assert pixels.shape == (4, size, size, 3)
    out = normalized(pixels, IMAGENET_MEAN, IMAGENET_STD, changes)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert out.dtype == torch.float32
    each = zip(x, *(numbers.tolist() for numbers in vars(changes).values()), strict=True)
    for k, (picture, top, left, height, width, mirrored, brightness, contrast) in enumerate(each):
        expected = F.resized_crop(picture, top, left, height, width, [size, size], antialias=True)
        expected = F.horizontal_flip(expected) if mirrored else expected
        expected = F.to_dtype(expected, scale=True)  # as uint8 each change would be rounded
        expected = F.adjust_contrast(F.adjust_brightness(expected, brightness), contrast)
        expected = F.normalize(expected, IMAGENET_MEAN, IMAGENET_STD)
        assert (out[k] - expected).abs().max() <= 1.2 * GREY_LEVEL / min(IMAGENET_STD)


def test_both_ways_to_crop_give_the_same_pixels() -> None:
    torch.manual_seed(0)
    x = _pictures(16, 64, low=0, high=256)
    changes = draw_changes(16, 64, 64)
    one_by_one = changed(x, changes, 56)
    assert one_by_one.dtype == torch.uint8
    difference = augmentation._at_once(x, changes, 56) - one_by_one
    assert difference.abs().max() <= 1.1  # one is rounded twice, after rows and after columns


def test_the_order_of_channels_in_memory_does_not_matter() -> None:
    x, tfms = _pictures(3, 64), ImageTransforms(56)
    torch.manual_seed(0)
    expected = tfms.train(x)
    torch.manual_seed(0)
    assert torch.equal(tfms.train(x.contiguous(memory_format=torch.channels_last)), expected)


def test_lighting_is_clamped_once_to_black_and_white() -> None:
    pixels = torch.tensor([0, 100, 250], dtype=torch.uint8)[:, None, None, None].expand(3, 4, 4, 3)
    brighter = _changes(brightness=[1.2, 1.2, 1.2], contrast=[1.0, 0.8, 1.2])
    out = normalized(pixels, (0.0,) * 3, (GREY_LEVEL,) * 3, brighter)
    assert out[:, 0, 0, 0].tolist() == pytest.approx([0, 120, 255], abs=1e-3)
    # Half black, half 230: 230 x 1.2 = 276 comes back below 255 when the contrast falls.
    halves = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    halves[:, 0] = 230
    out = normalized(
        halves, (0.0,) * 3, (GREY_LEVEL,) * 3, _changes(brightness=[1.2], contrast=[0.8])
    )
    assert out[0, 0, :, 0].tolist() == pytest.approx([0.8 * 276 + 0.2 * 138, 0.2 * 138], abs=1e-2)


@pytest.mark.parametrize("channel", range(3))
def test_contrast_is_around_the_grey_that_people_see(channel: int) -> None:
    pixels = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    pixels[..., channel] = 200
    out = normalized(pixels, (0.0,) * 3, (GREY_LEVEL,) * 3, _changes(contrast=[0.5]))
    grey = 200 * (0.299, 0.587, 0.114)[channel]
    expected = [0.5 * grey + (100 if k == channel else 0) for k in range(3)]
    assert out[0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-2)


def test_random_crops_are_those_of_random_resized_crop() -> None:
    n, side = 4_000, 200
    torch.manual_seed(0)
    ours = draw_changes(n, side, side)
    crop, square = v2.RandomResizedCrop(8, scale=(0.5, 1)), [torch.empty(3, side, side)]
    drawn = [crop.make_params(square) for _ in range(n)]
    for name in ("top", "left", "height", "width"):
        theirs = torch.tensor([params[name] for params in drawn]).double()
        mine = getattr(ours, name).double()
        steps = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
        # Both are samples: a quantile of 4,000 numbers within 200 is uncertain by some 1.5.
        assert (mine.quantile(steps) - theirs.quantile(steps)).abs().max() <= 5, name
    share = ours.height * ours.width / side**2
    assert 0.49 < share.min() < 0.51
    assert 0.97 < share.max() <= 1
    assert (ours.top >= 0).all() and (ours.top + ours.height <= side).all()  # noqa: PT018
    assert (ours.left >= 0).all() and (ours.left + ours.width <= side).all()  # noqa: PT018


def test_half_of_the_pictures_are_mirrored_and_lighting_varies_by_a_fifth() -> None:
    torch.manual_seed(0)
    changes = draw_changes(10_000, 32, 32)
    assert changes.mirrored.float().mean().item() == pytest.approx(0.5, abs=0.02)
    for factors in (changes.brightness, changes.contrast):
        assert 0.8 <= factors.min() < 0.801
        assert 1.199 < factors.max() < 1.2001
        assert factors.mean().item() == pytest.approx(1, abs=0.005)


def test_where_no_crop_fits_the_whole_picture_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "_RATIOS", (9.0, 10.0))
    changes = draw_changes(50, 32, 32)
    assert changes.height.tolist() == changes.width.tolist() == [32] * 50
    assert changes.top.tolist() == changes.left.tolist() == [0] * 50


def test_the_same_seed_augments_alike_and_another_one_otherwise() -> None:
    x, outs = _pictures(4, 64), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(ImageTransforms(56).train(x))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_what_is_shown_is_what_the_network_gets() -> None:
    x, tfms = _pictures(4, 64), ImageTransforms(56)
    torch.manual_seed(0)
    shown = tfms.augment(x)
    torch.manual_seed(0)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    assert ((tfms.train(x) * std + mean) * 255 - shown).abs().max() <= 0.51


def test_many_small_pictures_are_lit_each_on_its_own() -> None:
    """They are worked on in parts of a few hundred."""
    pixels = torch.full((400, 16, 16, 3), 100, dtype=torch.uint8)
    factors = torch.linspace(0.8, 1.2, 400)
    changes = replace(_changes(contrast=[1.0] * 400), brightness=factors)
    out = normalized(pixels, (0.0,) * 3, (GREY_LEVEL,) * 3, changes)
    assert torch.allclose(out[:, 1, 5, 5], 100 * factors, atol=1e-3)
