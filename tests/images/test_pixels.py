"""What is taken for a picture, from arrays, tensors and batches, and what is refused and how."""

import numpy as np
import pytest
import torch
from PIL import Image

from nbfinetune.images.decoding import as_image
from nbfinetune.images.pixels import as_bytes

BYTES = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(BYTES).permute(2, 0, 1)
GREY = BYTES[..., 0]
SAME = {
    "array": BYTES,
    "floats": BYTES / 255,
    "float16": (BYTES / 255).astype(np.float16),
    "mirrored view": BYTES[:, ::-1][:, ::-1],
    "opaque": np.dstack([BYTES, np.full((6, 9), 255, np.uint8)]),
    "tensor": TENSOR,
    "float tensor": TENSOR / 255,
    "with gradient": (TENSOR / 255).requires_grad_(),
    "of Pillow": Image.fromarray(BYTES),
}


@pytest.mark.parametrize("picture", SAME.values(), ids=SAME)
def test_one_picture_may_come_in_many_forms(picture) -> None:
    assert np.array_equal(as_image(picture), BYTES)


@pytest.mark.parametrize(
    "grey", [GREY, GREY[..., None], GREY / 255, TENSOR[0], TENSOR[:1], TENSOR[:1] / 255]
)
def test_grey_pictures_have_one_channel_or_none(grey) -> None:
    assert np.array_equal(as_image(grey), np.dstack([GREY] * 3))


def test_what_is_transparent_is_laid_on_white() -> None:
    assert (np.asarray(as_image(np.zeros((4, 5, 4), np.uint8))) == 255).all()


REFUSED = {
    "None": (None, "None is no picture; give one file, Pillow picture, array"),
    "list": ([BYTES], "list is no picture; give one file"),
    "bytes": (b"\xff\xd8", "these bytes are no picture: not a picture that Pillow knows"),
    "number": (3, "int is no picture"),
    "channels first": (BYTES.transpose(2, 0, 1), r"shape \[3, 6, 9\] .*x.transpose\(1, 2, 0\)"),
    "channels last": (TENSOR.permute(1, 2, 0), r"shape \[6, 9, 3\] .*x.permute\(2, 0, 1\)"),
    "batch": (TENSOR[None], r"shape \[1, 3, 6, 9\] .*without a batch dimension, such as x\[0\]"),
    "array batch": (BYTES[None], r"shape \[1, 6, 9, 3\] .*without a batch dimension"),
    "two channels": (BYTES[..., :2], r"an array of shape \[6, 9, 2\] is no picture"),
    "a row": (GREY[0], r"an array of shape \[9\] is no picture; give \[h, w, 3\] or"),
    "nothing": (BYTES[:0], r"shape \[0, 9, 3\] is no picture"),
    "normalised": (TENSOR / 127 - 1, r"from -1 to 0.961, as after normalisation; give uint8"),
    "bytes as floats": (TENSOR.float(), r"from \d+ to 249, as bytes are before a division by 255"),
    "NaN": (np.full((2, 2, 3), np.nan), "floats of which some are NaN; give uint8"),
    "infinite": (TENSOR / 0.0, r"outside \[0, 1\], from .* to inf|some are NaN"),
    "int64": (TENSOR.long(), "values of torch.int64; give uint8, or floats in"),
    "bool": (GREY > 9, "values of torch.bool; give uint8"),
    "objects": (np.array([["a", "b"]]), "an array of <U1 is no picture; give uint8"),
}


@pytest.mark.parametrize(("picture", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_picture_is_refused_in_one_line(picture, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        as_image(picture)
    assert "\n" not in str(caught.value)


def test_batches_of_bytes_pass_as_they_are_and_floats_become_bytes() -> None:
    x = TENSOR[None]
    assert as_bytes(x) is x
    assert torch.equal(as_bytes(x / 255), x)
    assert torch.equal(as_bytes(x.double() / 255), x)
    assert as_bytes(torch.tensor([[[[1.0005]], [[-0.0005]], [[0.5]]]])).flatten().tolist() == [
        255,
        0,
        128,
    ]


BATCHES = {
    "bright and normalised": (TENSOR[None] / 255 + 1, "to 1.98, as after normalisation; give"),
    "normalised": (TENSOR[None] / 64 - 2, r"inputs are floats outside \[0, 1\], from -2 to 1.89"),
    "bytes as floats": (
        TENSOR[None].float(),
        "as bytes are before a division by 255; give",
    ),
    "NaN": (torch.full((1, 3, 2, 2), torch.nan), "inputs are floats of which some are NaN"),
    "int64": (TENSOR[None].long(), "inputs are values of torch.int64; give batches of uint8"),
    "one picture": (TENSOR, r"inputs have the shape \[3, 6, 9\]; give batches"),
    "grey": (TENSOR[None, :1], r"inputs have the shape \[1, 1, 6, 9\]; give batches"),
    "channels last": (torch.from_numpy(BYTES)[None], r"\[1, 6, 9, 3\]; .*x.permute\(0, 3, 1, 2\)"),
    "an array": (BYTES[None], "inputs are ndarray, no tensor of pictures"),
    "a dict": ({"pixels": TENSOR}, "inputs are dict, no tensor of pictures"),
}


@pytest.mark.parametrize(("batch", "message"), BATCHES.values(), ids=BATCHES)
def test_batches_of_another_kind_are_refused(batch, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_bytes(batch)
