"""Every odd kind of picture file, written here, comes out right or is named with its reason."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbfinetune import ImageDataLoaders, check_images, get_image_files
from nbfinetune.data.transforms import to_square
from nbfinetune.images import jpeg, rgb
from nbfinetune.images.decoding import UnreadableImage, as_image, open_image, read_pixels
from nbfinetune.images.files import image_suffixes

RED, WHITE = (255, 0, 0), (255, 255, 255)
SMALL = Image.new("RGB", (12, 10), RED)


def _palette(path: Path) -> None:
    SMALL.quantize(4).save(path, "PNG")


def _palette_transparent(path: Path) -> None:
    image = Image.new("P", (12, 10), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(path, "PNG", transparency=1)


def _alpha_half(path: Path) -> None:
    Image.new("RGBA", (12, 10), (*RED, 128)).save(path, "PNG")


def _alpha_none(path: Path) -> None:
    Image.new("RGBA", (12, 10), (0, 0, 0, 0)).save(path, "PNG")


def _grey_alpha(path: Path) -> None:
    Image.new("LA", (12, 10), (0, 0)).save(path, "PNG")


def _cmyk(path: Path) -> None:
    Image.new("CMYK", (12, 10), (0, 255, 255, 0)).save(path, "JPEG", quality=100)


def _grey(path: Path) -> None:
    Image.new("L", (12, 10), 100).save(path, "PNG")


def _grey_16(path: Path) -> None:
    Image.fromarray(np.full((10, 12), 100 * 257, np.uint16)).save(path, "PNG")


def _grey_16_tiff(path: Path) -> None:
    Image.fromarray(np.full((10, 12), 100 * 257, np.uint16)).save(path, "TIFF")


def _grey_32_tiff(path: Path) -> None:
    Image.fromarray(np.full((10, 12), 100 * 257, np.int32)).save(path, "TIFF")


def _float_tiff(path: Path) -> None:
    Image.fromarray(np.full((10, 12), 100 / 255, np.float32)).save(path, "TIFF")


def _bilevel(path: Path) -> None:
    Image.new("1", (12, 10), 1).save(path, "PNG")


def _animated(path: Path) -> None:
    later = [Image.new("RGB", (12, 10), c) for c in ("blue", "green")]
    SMALL.save(path, "GIF", save_all=True, append_images=later)


def _webp(path: Path) -> None:
    SMALL.save(path, "WEBP", lossless=True)


GREY = (100, 100, 100)
READABLE = [
    (_palette, RED),
    (_palette_transparent, WHITE),
    (_alpha_half, (255, 127, 127)),
    (_alpha_none, WHITE),
    (_grey_alpha, WHITE),
    (_cmyk, RED),
    (_grey, GREY),
    (_grey_16, GREY),
    (_grey_16_tiff, GREY),
    (_grey_32_tiff, GREY),
    (_float_tiff, GREY),
    (_bilevel, WHITE),
    (_animated, RED),
    (_webp, RED),
]


@pytest.mark.parametrize(("write", "colour"), READABLE, ids=[w.__name__ for w, _ in READABLE])
def test_every_kind_of_picture_becomes_8_bit_rgb(write, colour, tmp_path: Path) -> None:
    write(tmp_path / "picture")
    image = open_image(tmp_path / "picture")
    assert (image.mode, image.size) == ("RGB", (12, 10))
    assert np.abs(np.asarray(image).astype(int) - colour).max() <= 2
    assert np.array_equal(read_pixels(tmp_path / "picture", 8), np.asarray(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation_is_applied(orientation: int, suffix: str, tmp_path: Path) -> None:
    upright = Image.new("RGB", (32, 16), "black")
    upright.paste(RED, (0, 0, 16, 8))  # upper left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{suffix}", exif=exif, quality=100, subsampling=0)
    for pixels in (open_image(tmp_path / f"a.{suffix}"), read_pixels(tmp_path / f"a.{suffix}", 16)):
        assert np.abs(np.asarray(pixels).astype(int) - np.asarray(upright)).max() <= 3


def test_orientation_that_only_xmp_has_is_applied_by_both_decoders(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    _photo(64, 32).save(file)
    plain = file.read_bytes()
    text = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    xmp = b"http://ns.adobe.com/xap/1.0/\x00" + text
    file.write_bytes(plain[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + plain[2:])
    assert open_image(file).size == (32, 64)
    assert np.array_equal(read_pixels(file, 32), np.asarray(open_image(file)))


def _photo(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


JPEGS = {
    "colour": ("RGB", {}),
    "all chroma": ("RGB", {"subsampling": 0}),
    "progressive": ("RGB", {"progressive": True}),
    "grey": ("L", {}),
    "cmyk": ("CMYK", {}),
}


@pytest.mark.parametrize(("mode", "options"), JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("has_torchvision", [True, False])
def test_pixels_of_a_jpeg_are_those_of_pillow(
    mode: str, options: dict, has_torchvision: bool, tmp_path: Path, monkeypatch
) -> None:
    _photo(75, 50).convert(mode).save(tmp_path / "a.jpg", **options)
    if not has_torchvision:
        monkeypatch.setattr(jpeg, "decode_jpeg", None)
    pixels = read_pixels(tmp_path / "a.jpg", 40)
    assert (pixels.shape, pixels.dtype) == ((50, 75, 3), np.uint8)
    difference = pixels.astype(int) - np.asarray(open_image(tmp_path / "a.jpg"))
    assert np.abs(difference).max() <= 3


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_small_and_gives_the_same_square(
    mode: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    _photo(640, 480).convert(mode).save(tmp_path / "a.jpg", exif=exif)
    pixels = read_pixels(tmp_path / "a.jpg", 60)
    assert sorted(pixels.shape[:2]) == [120, 160]  # twice the side
    whole = to_square(open_image(tmp_path / "a.jpg"), 60).int()
    assert (to_square(pixels, 60).int() - whole).abs().max() <= 8
    assert (to_square(pixels, 60).int() - whole).float().abs().mean() <= 1
    assert sorted(read_pixels(tmp_path / "a.jpg", 121).shape[:2]) == [480, 640]


QUADRANTS = Image.new("RGB", (40, 24), "black")
QUADRANTS.paste("white", (0, 0, 20, 12))
QUADRANTS.paste("red", (20, 0, 40, 12))
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta %b/>"
ORIENTATION = {"xmp": XMP % b'tiff:Orientation="6"', "empty xmp": XMP % b""}


def _exif(
    value: bytes, *, kind: int = 3, count: int = 1, order: str = "<", first: int = 8
) -> bytes:
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", first)
    entry = struct.pack(order + "HHHI", 1, 0x0112, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0" + head + entry + bytes(4)


def _with_segments(*contents: bytes, marker: int = 0xE1) -> bytes:
    out = io.BytesIO()
    QUADRANTS.save(out, "JPEG", quality=95, subsampling=0)
    parts = [struct.pack(">BBH", 0xFF, marker, len(c) + 2) + c for c in contents]
    return out.getvalue()[:20] + b"".join(parts) + out.getvalue()[20:]  # behind JFIF


def _corners(picture: Image.Image | np.ndarray) -> list:
    """Its shape and which of red, green and blue are bright in each corner."""
    pixels = np.asarray(picture)
    return [pixels.shape, *(pixels[y, x].__gt__(128).tolist() for y in (2, -3) for x in (2, -3))]


LYING = _corners(QUADRANTS)
STANDING = _corners(QUADRANTS.transpose(Image.Transpose.ROTATE_270))
SIX = _exif(b"\6\0")
EXIFS = {
    "behind xmp": ([ORIENTATION["empty xmp"], SIX], STANDING),
    "before xmp": ([SIX, ORIENTATION["empty xmp"]], STANDING),
    "xmp alone": ([ORIENTATION["xmp"]], STANDING),
    "exif beats xmp": ([ORIENTATION["xmp"], _exif(b"\1\0")], LYING),
    "big-endian": ([_exif(b"\0\6", order=">")], STANDING),
    "LONG": ([_exif(b"\6\0\0\0", kind=4)], STANDING),
    "text": ([_exif(b"6\0", kind=2, count=2)], LYING),
    "0": ([_exif(b"\0\0")], LYING),
    "9": ([_exif(b"\11\0")], LYING),
    "of no known type": ([_exif(b"\6\0", kind=99)], LYING),
    "beyond the file": ([_exif(b"\6\0", kind=4, count=2**31)], LYING),
    "cut": ([SIX[:15]], LYING),
    "no TIFF": ([b"Exif\0\0nonsense"], LYING),
    "directory far away": ([_exif(b"\6\0", first=2**32 - 1)], LYING),
    "twice": ([SIX, SIX], STANDING),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("contents", "corners"), EXIFS.values(), ids=EXIFS)
def test_a_photo_has_one_orientation_however_it_is_written(
    contents: list[bytes], corners: list, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(_with_segments(*contents))
    assert _corners(open_image(tmp_path / "a.jpg")) == corners
    assert _corners(read_pixels(tmp_path / "a.jpg", 24)) == corners
    assert _corners(read_pixels(tmp_path / "a.jpg", 5))[1:] == corners[1:]  # decoded smaller


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_the_decoders_agree_on_any_bytes_in_the_place_of_exif(tmp_path: Path) -> None:
    numbers, file = np.random.default_rng(0), tmp_path / "a.jpg"
    turned = 0
    for _ in range(200):
        order = "<>"[numbers.integers(2)]
        value = struct.pack(order + "H", numbers.integers(10))
        kind, first = numbers.choice([1, 2, 3, 3, 3, 4, 9, 12]), numbers.choice([8, 8, 8, 0, 26])
        exif = bytearray(_exif(value, kind=kind, order=order, first=first))
        exif[numbers.integers(6, len(exif))] = numbers.integers(256)
        others = [[], [ORIENTATION["xmp"]], [b"Exif\0\0"]][numbers.integers(3)]
        file.write_bytes(_with_segments(*others, bytes(exif)))
        corners = _corners(open_image(file))
        assert _corners(read_pixels(file, 24)) == corners
        turned += corners != LYING
    assert 40 < turned < 160


@pytest.mark.parametrize("content", [b"JFIF", b"JFIF\0\1", b"JFXX"])
def test_metadata_that_cannot_be_parsed_condemn_no_photo(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(_with_segments(content, marker=0xE0))
    assert _corners(open_image(tmp_path / "a.jpg")) == LYING
    assert _corners(read_pixels(tmp_path / "a.jpg", 24)) == LYING


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_orientation_is_followed_in_other_formats(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    QUADRANTS.save(tmp_path / f"a.{suffix}", exif=exif)
    assert _corners(open_image(tmp_path / f"a.{suffix}")) == STANDING
    assert _corners(read_pixels(tmp_path / f"a.{suffix}", 24)) == STANDING


def test_a_picture_is_turned_once(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(_with_segments(SIX))
    assert _corners(as_image(open_image(tmp_path / "a.jpg"))) == STANDING
    assert _corners(as_image(Image.open(tmp_path / "a.jpg"))) == STANDING


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "jpg"),
        (b"\xc5\xd0\xd3\xc6" + bytes(26) + b"%!PS-Adobe-3.0 EPSF-3.0\n", "png"),
        (b"\0\0\1\xb3" + bytes(40), "jpg"),  # MPEG
        (b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800), "png"),  # FITS
    ],
)
def test_only_formats_of_photos_and_drawings_are_opened(
    content: bytes, suffix: str, tmp_path: Path, monkeypatch
) -> None:
    gs = tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / f"a.{suffix}").write_bytes(content)
    reason = "not a picture that Pillow knows"
    assert check_images(tmp_path) == {tmp_path / f"a.{suffix}": reason}
    assert not (tmp_path / "ran").exists()
    assert not {".eps", ".ps", ".pdf", ".wmf", ".fli", ".mpg"} & image_suffixes()


def test_pictures_are_converted_in_strips_as_at_once(tmp_path: Path, monkeypatch) -> None:
    numbers = np.random.default_rng(0)
    grey = Image.fromarray(numbers.integers(0, 2**16, (50, 30), np.uint16))
    clear = Image.fromarray(numbers.integers(0, 256, (50, 30, 4), np.uint8))
    palette = clear.convert("RGB").quantize(9)
    palette.save(tmp_path / "palette.png", transparency=3)
    for image in (grey, clear, clear.convert("LA"), Image.open(tmp_path / "palette.png")):
        whole = np.asarray(rgb.to_rgb(image))
        with monkeypatch.context() as patch:
            patch.setattr(rgb, "_STRIP", 100)
            assert np.array_equal(rgb.to_rgb(image), whole)
    assert np.array_equal(rgb.to_rgb(grey).getchannel(0), (np.asarray(grey) / 257).round())


def test_squares_are_scaled_as_pillow_scales_them() -> None:
    photo = _photo(300, 200)
    expected = photo.crop((50, 0, 250, 200)).resize((64, 64), Image.Resampling.BILINEAR)
    square = to_square(photo, 64).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(square - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 3000)])
def test_odd_sizes_can_be_trained_on(size: tuple[int, int], tmp_path: Path) -> None:
    for i in range(2):
        Image.new("RGB", size, RED).save(tmp_path / f"a_{i}.png")
    dls = ImageDataLoaders.from_name_re(tmp_path, None, "(a)", size=28)
    x, _ = next(iter(dls.train))
    assert x.shape == (1, 3, 32, 32)
    assert (x[0, 0] == 255).all()
    assert (x[0, 1:] == 0).all()


def _truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def _truncated_png(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:-5000])


def _bomb(path: Path) -> None:
    """A PNG whose header claims 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def _large(path: Path) -> None:
    Image.new("1", (9_500, 9_500)).save(path, "PNG")  # 90 million: Pillow itself only warns


BAD = [
    (lambda p: p.write_bytes(b""), r"empty file \(0 bytes\)"),
    (lambda p: p.write_text("<html>not found</html>"), "not a picture that Pillow knows"),
    (_truncated, r"damaged \(image file is truncated"),
    (_truncated_png, r"damaged \(.*(truncated|broken|incomplete)"),
    (_bomb, "more than 89,478,485 pixels"),
    (_large, "9500 x 9500 is over 89,478,485 pixels"),
]
IDS = ["zero bytes", "no picture", "truncated jpeg", "truncated png", "bomb", "large"]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("write", "reason"), BAD, ids=IDS)
def test_a_bad_file_is_named_with_its_reason(write, reason: str, tmp_path: Path) -> None:
    write(tmp_path / "bad.png")
    for read in (open_image, lambda file: read_pixels(file, 8), lambda file: read_pixels(file, 60)):
        with pytest.raises(UnreadableImage, match=f"^{reason}"):
            read(tmp_path / "bad.png")
    SMALL.save(tmp_path / "good.png")
    found = check_images(tmp_path)
    assert list(found) == [tmp_path / "bad.png"]
    assert found[tmp_path / "bad.png"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert check_images([tmp_path / "gone.png"]) == {tmp_path / "gone.png": "no such file"}


def test_bad_files_are_refused_in_one_line_before_any_epoch(photos: Path, tmp_path: Path) -> None:
    files = get_image_files(photos)
    for i, (write, _) in enumerate(BAD):
        write(tmp_path / f"bad_{i}.png")
    bad = get_image_files(tmp_path)
    labels = [f.parent.name for f in files] + ["red"] * len(bad)
    with pytest.raises(ValueError, match=r'on_bad="skip"') as caught:
        ImageDataLoaders.from_lists("/", [*files, *bad], labels, size=32)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("6 of 24 pictures cannot be read: ")
    assert f"{bad[0]}: empty file (0 bytes)" in message
    assert "and 1 more" in message  # five are named
    with pytest.warns(UserWarning, match="left out: 6 of 24 pictures cannot be read: .*bad_0.png"):
        dls = ImageDataLoaders.from_lists("/", [*files, *bad], labels, size=32, on_bad="skip")
    assert len(dls.train.dataset) + len(dls.valid.dataset) == 18


def test_hidden_files_and_other_files_are_no_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "b.JPG", ".hidden.png", "._a.png", "notes.txt", ".cache/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        SMALL.save(tmp_path / name, "PNG")
    assert [f.name for f in get_image_files(tmp_path)] == ["a.png", "b.JPG"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures below"):
        get_image_files(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        get_image_files(tmp_path / "gone")


def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    SMALL.save(tmp_path / "far" / "a.png")
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "up").symlink_to(tmp_path / "near")
    assert get_image_files(tmp_path / "near") == [tmp_path / "near" / "link" / "a.png"]


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch) -> None:
    def deny(*args, **options) -> None:
        raise PermissionError(13, "Permission denied")

    SMALL.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", deny)
    with pytest.raises(UnreadableImage, match=r"cannot be read \(Permission denied\)"):
        open_image(tmp_path / "a.png")
