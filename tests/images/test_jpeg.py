"""JPEGs whose data are damaged are known, and what does no harm condemns none."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbfinetune.images.decoding import UnreadableImage, open_image, read_pixels
from nbfinetune.images.jpeg import Jpeg

EOI = b"\xff\xd9"
KINDS = {
    "4:2:0": {"quality": 75},
    "4:4:4": {"quality": 90, "subsampling": 0},
    "4:2:2": {"quality": 90, "subsampling": 1},
    "own tables": {"quality": 90, "optimize": True},
    "grey": {"quality": 90},
    "restarts": {"quality": 90, "restart_marker_rows": 1},
}
READERS = {
    "whole": open_image,
    "pixels": lambda file: read_pixels(file, 100),
    "smaller": lambda file: read_pixels(file, 10),
}


def _photo(kind: str, *, width: int = 180, height: int = 150) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (13, 17, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.convert("L" if kind == "grey" else "RGB").save(out, "JPEG", **KINDS[kind])
    return out.getvalue()


def _start(photo: bytes) -> int:
    return Jpeg.open(photo).start


def _reasons(photo: bytes, file: Path) -> list[str]:
    """Why each reader does not read a photo; empty for those that do."""
    file.write_bytes(photo)
    reasons = []
    for read in READERS.values():
        try:
            read(file)
            reasons.append("")
        except UnreadableImage as error:
            reasons.append(str(error))
    return reasons


def _cut(photo: bytes) -> bytes:
    return photo[: (_start(photo) + len(photo)) // 2] + EOI


def _without_some(photo: bytes) -> bytes:
    middle = (_start(photo) + len(photo)) // 2
    return photo[: middle - 150] + photo[middle + 150 :]


def _said_twice(photo: bytes) -> bytes:
    middle = (_start(photo) + len(photo)) // 2
    return photo[:middle] + photo[middle - 300 :]


def _restarts_in_disorder(photo: bytes) -> bytes:
    return photo.replace(b"\xff\xd1", b"\xff\xd5")


DAMAGES = [(kind, damage) for kind in KINDS for damage in (_cut, _without_some, _said_twice)]
DAMAGES.append(("restarts", _restarts_in_disorder))
DAMAGES.remove(("restarts", _said_twice))  # each restart skips what is left over before it


@pytest.mark.parametrize(("kind", "damage"), DAMAGES)
def test_data_that_are_missing_or_left_over_are_named(kind: str, damage, tmp_path: Path) -> None:
    reasons = _reasons(damage(_photo(kind)), tmp_path / "a.jpg")
    assert all(reason.startswith("damaged (") for reason in reasons), reasons


@pytest.mark.parametrize("kind", ["4:2:0", "own tables"])
def test_changed_bytes_are_named_where_the_data_do_not_end_as_they_should(
    kind: str, tmp_path: Path
) -> None:
    photo, named, disputed = _photo(kind), 0, 0
    for seed in range(40):
        numbers, damaged = random.Random(seed), bytearray(photo)
        for _ in range(5):
            damaged[numbers.randrange(_start(photo), len(photo) - 200)] = numbers.randrange(256)
        reasons = _reasons(bytes(damaged), tmp_path / "a.jpg")
        named += all(reasons)
        disputed += any(reasons) and not all(reasons)
    assert named >= 19  # others keep the count of blocks, which nothing tells
    assert disputed <= 1  # a few flat blocks too many look like the end


HARMLESS = {
    "nothing": lambda photo: photo,
    "no end": lambda photo: photo.removesuffix(EOI),
    "bytes after the end": lambda photo: photo + b"trailer" * 50,
    "a second photo after it": lambda photo: photo + photo,
    "filler before the end": lambda photo: photo.removesuffix(EOI) + b"\xff\xff" + EOI,
    "4 bytes before the end": lambda photo: photo.removesuffix(EOI) + b"\0\1\2\3" + EOI,
    "junk between segments": lambda photo: photo[:20] + b"\0\0junk" + photo[20:],
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_are_no_pixels_condemn_no_photo(kind: str, change, tmp_path: Path) -> None:
    photo = _photo(kind)
    assert _reasons(change(photo), tmp_path / "a.jpg") == ["", "", ""]
    difference = read_pixels(tmp_path / "a.jpg", 100).astype(int) - Image.open(
        io.BytesIO(photo)
    ).convert("RGB")
    assert np.abs(difference).max() <= 3


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (17, 9), (1, 1), (33, 47), (40, 64)])
@pytest.mark.parametrize("kind", KINDS)
def test_good_photos_of_any_size_are_good(kind: str, size: tuple[int, int], tmp_path: Path) -> None:
    photo = _photo(kind, width=size[0], height=size[1])
    assert _reasons(photo, tmp_path / "a.jpg") == ["", "", ""]
    expected = Image.open(io.BytesIO(photo)).convert("RGB")
    difference = read_pixels(tmp_path / "a.jpg", 100).astype(int) - expected
    assert np.abs(difference).max() <= 3


@pytest.mark.parametrize("colour", [(128, 128, 128), (0, 0, 0), (255, 255, 255)])
def test_a_photo_of_one_colour_is_good(colour: tuple[int, int, int], tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), colour).save(tmp_path / "a.jpg")
    assert (read_pixels(tmp_path / "a.jpg", 48) == colour[0]).all()


def test_common_photos_are_judged_by_the_quick_decoder(tmp_path: Path) -> None:
    for kind in ("4:4:4", "4:2:2", "own tables", "grey"):
        assert Jpeg.open(_photo(kind)).pixels() is not None


def test_progressive_photos_are_read(tmp_path: Path) -> None:
    image = Image.open(io.BytesIO(_photo("4:4:4")))
    image.save(tmp_path / "a.jpg", progressive=True)
    assert np.array_equal(read_pixels(tmp_path / "a.jpg", 100), open_image(tmp_path / "a.jpg"))
