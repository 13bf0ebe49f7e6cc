"""ViTs of torchvision: sizes that patches fill are taken, others refused with the nearest."""

import pytest

from nbfinetune.networks.backbones import load_backbone
from nbfinetune.networks.families.vits import vit_size


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [("vit_b_16", 50, "48 or 64"), ("vit_h_14", 96, "84 or 98"), ("vit_b_32", 20, "32")],
)
def test_a_size_that_patches_do_not_fill_is_refused(name: str, size: int, near: str) -> None:
    with pytest.raises(ValueError, match=rf"multiple of {name[-2:]} px.*size={near}$"):
        load_backbone(name, None, size)


def test_a_size_that_patches_fill_is_that_of_the_network() -> None:
    assert vit_size("vit_h_14", 98) == {"image_size": 98}
