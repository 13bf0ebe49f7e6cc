"""Damaged, huge and foreign picture files are named in one line; files that vanish stop no run."""

import io
import random
import re
import struct
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nbfinetune import ImageDataLoaders, Learner, check_images, vision_learner
from nbfinetune.images import files as picture_files
from nbfinetune.images.decoding import UnreadableImage, open_image, read_pixels
from nbfinetune.images.seams import jumps

MB = 2**20


def scene(width: int = 300, height: int = 300, seed: int = 0) -> Image.Image:
    """Soft colours with some texture, as photos have."""
    numbers = np.random.default_rng(seed)
    soft = Image.fromarray(numbers.integers(0, 255, (7, 9, 3), dtype=np.uint8))
    soft = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    grain = numbers.normal(0, 4, (height, width, 1))
    return Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(file: Path) -> np.ndarray:
    return np.asarray(open_image(file), dtype=float)


def is_right(found: np.ndarray, good: np.ndarray) -> bool:
    """Less than a fifth of the rows is far from what it was."""
    return found.shape == good.shape and (np.abs(found - good).mean((1, 2)) > 25).mean() < 0.2


def changed(data: bytes, numbers: random.Random, n: int, first: int, last: int) -> bytes:
    damaged = bytearray(data)
    for _ in range(n):
        damaged[numbers.randrange(first, last)] = numbers.randrange(256)
    return bytes(damaged)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claimed_png(width: int, height: int, colour: int, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.fault("5 changed bytes in each of 60 JPEGs", "9 in 10 that come out wrong are named")
def test_jpegs_whose_colours_jump_are_named(tmp_path: Path, record_property) -> None:
    data = encoded(scene(), "JPEG", quality=90)
    (tmp_path / "a.jpg").write_bytes(data)
    good, seen = pixels(tmp_path / "a.jpg"), Counter()
    for seed in range(60):
        damaged = changed(data, random.Random(seed), 5, 700, len(data) // 2)
        (tmp_path / "a.jpg").write_bytes(damaged)
        if reasons := check_images([tmp_path / "a.jpg"]):
            seen["named"] += list(reasons) == [tmp_path / "a.jpg"]
        else:
            seen["right" if is_right(pixels(tmp_path / "a.jpg"), good) else "wrong"] += 1
    record_property("seen", str(dict(seen)))
    assert seen["wrong"] * 9 <= seen["named"]


GOOD = {
    "letterbox": lambda a: np.vstack([a[:96] * 0, a[96:208], a[208:] * 0]),
    "two photos": lambda a: np.vstack([a[:144], np.asarray(scene(seed=1))[:144]]),
    "half brighter": lambda a: np.vstack([a[:160], (a[160:].astype(int) + 60).clip(0, 255)]),
    "caption": lambda a: np.vstack([a[:96], a[96:160] // 2, a[160:]]),
    "stripes": lambda a: np.full_like(a, 200) * (np.arange(300)[:, None, None] // 32 % 2),
    "noise": lambda a: np.random.default_rng(0).integers(0, 255, a.shape),
}


@pytest.mark.fault("frames, captions, stripes and photos on photos", "none is taken for damage")
@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}])
def test_edges_of_a_picture_are_no_damage(make, options: dict, tmp_path: Path) -> None:
    image = Image.fromarray(make(np.asarray(scene())).astype(np.uint8))
    image.save(tmp_path / "a.jpg", quality=90, **options)
    assert check_images([tmp_path / "a.jpg"]) == {}


@pytest.mark.fault("colours that jump along a stair of blocks", "seen, and no jump along a row")
def test_a_stair_is_seen_and_an_edge_is_not() -> None:
    soft = np.asarray(scene(), dtype=int)
    stair, edge = soft.copy(), soft.copy()
    stair[128:144, 128:] += 50
    stair[144:] += 50
    edge[144:] += 50
    answers = [jumps(a.clip(0, 255).astype(np.uint8), 16, 8) for a in (soft, stair, edge)]
    assert answers == ["", "yes", "perhaps"]


@pytest.mark.fault("PNG, GIF, WebP and JPEG cut anywhere", "named as damaged")
@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG", "TIFF", "BMP"])
def test_cut_files_are_named(kind: str, tmp_path: Path) -> None:
    data = encoded(scene(90, 80), kind)
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "a.img").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(UnreadableImage, match=r"damaged|not a picture"):
            open_image(tmp_path / "a.img")


HUGE = {
    "RGBA": (claimed_png(9000, 9000, 6), "9000 x 9000 pixels of mode RGBA take 926 MB"),
    "16 bit": (claimed_png(6000, 6000, 0, 16), "6000 x 6000 pixels of mode I;16 take 343 MB"),
    "palette": (
        claimed_png(9000, 9000, 3),
        "mode P take 695 MB to decode, over 256",
    ),
    "bomb": (claimed_png(60000, 60000, 2), "more than 89,478,485 pixels"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.fault("headers of huge pictures in many modes", "refused before they are decoded")
@pytest.mark.parametrize(("data", "reason"), HUGE.values(), ids=HUGE)
def test_pictures_that_take_too_much_memory_are_refused(
    data: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "huge.png").write_bytes(data)
    for read in (open_image, lambda file: read_pixels(file, 100)):
        with pytest.raises(UnreadableImage, match=re.escape(reason)):
            read(tmp_path / "huge.png")
    with pytest.raises(ValueError, match=r"huge\.png: "):
        ImageDataLoaders.from_lists(tmp_path, [tmp_path / "huge.png"] * 2, ["a", "b"], size=8)


@pytest.mark.fault("a JPEG of 120 megapixels", "it comes smaller, within 256 MB")
def test_a_large_jpeg_comes_smaller(tmp_path: Path) -> None:
    Image.new("L", (12_000, 10_000), 90).save(tmp_path / "a.jpg", quality=20)
    image = open_image(tmp_path / "a.jpg")
    assert image.size == (3000, 2500)
    assert image.getpixel((9, 9)) == (88, 88, 88)  # of which 90 is made in steps


@pytest.mark.fault("PostScript called .jpg, and .eps", "not opened; formats are an allow-list")
def test_formats_are_an_allow_list_that_can_be_extended(tmp_path: Path, monkeypatch) -> None:
    assert not {"EPS", "PDF", "WMF", "MPEG", "SPIDER"} & set(picture_files.readable_formats())
    Image.new("F", (40, 30)).save(tmp_path / "a.spider", "SPIDER")
    with pytest.raises(UnreadableImage, match="not a picture"):
        open_image(tmp_path / "a.spider")
    monkeypatch.setattr(picture_files, "FORMATS", [*picture_files.FORMATS, "SPIDER"])
    assert open_image(tmp_path / "a.spider").size == (40, 30)


def folder(tmp_path: Path, n: int = 12) -> Path:
    for name in "ab":
        (tmp_path / "pics" / name).mkdir(parents=True)
        for i in range(n):
            scene(40, 40, seed=2 * i + (name == "b")).save(tmp_path / "pics" / name / f"{i}.png")
    return tmp_path / "pics"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def learner(root: Path, *, keeps: bool, workers: int = 0) -> Learner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dls = ImageDataLoaders.from_folder(root, size=32, bs=6, num_workers=workers)
    if not keeps:
        for loader in (dls.train, dls.valid):
            loader.dataset.cache = None
    return vision_learner(dls, net(), device="cpu", cache_features=False)


def spoil(learn: Learner) -> list[Path]:
    gone, other = learn.dls.train.dataset.items[:2]
    gone.unlink()
    other.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return [gone, other]


@pytest.mark.fault("a file vanishes and one changes during a run", "named; the rest trains on")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_goes_on_without_files_that_are_lost(tmp_path: Path, workers: int) -> None:
    learn = learner(folder(tmp_path), keeps=False, workers=workers)
    lost = spoil(learn)
    with pytest.warns(match="2 pictures could not be read any more and were left out") as said:
        result = learn.fit(2, 1e-3, show=False)
    text = next(str(w.message) for w in said if "left out" in str(w.message))
    assert all(str(file) in text for file in lost)
    assert (result.status, len(result.rows)) == ("finished", 2)
    assert result.stages[0].notes == [text]


@pytest.mark.fault("files vanish whose squares are in memory", "the run is as it would have been")
def test_squares_in_memory_need_no_files(tmp_path: Path) -> None:
    root = folder(tmp_path)
    one, other = learner(root, keeps=True), learner(root, keeps=True)
    one.fit(1, 1e-3, show=False)
    for file in root.rglob("*.png"):
        file.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.fit(1, 1e-3, show=False)
    assert one.recorder.run.losses == other.recorder.run.losses


@pytest.mark.fault("a file is gone when predictions are asked for", "refused, by its name")
def test_predictions_name_a_file_that_is_gone(tmp_path: Path) -> None:
    learn = learner(folder(tmp_path), keeps=False)
    gone = learn.dls.valid.dataset.items[0]
    gone.unlink()
    with pytest.raises(ValueError, match=re.escape(f"{gone}: ")):
        learn.get_preds()


KINDS = {
    "JPEG": {"quality": 90},
    "progressive": {"quality": 85, "progressive": True},
    "4:4:4": {"quality": 90, "subsampling": 0},
    "PNG": {},
    "GIF": {},
    "WEBP": {},
    "BMP": {},
    "TIFF": {},
    "AVIF": {},
    "PPM": {},
}
# What has no check sum, and no sign of what was lost, cannot be told from a picture. In 204 JPEGs
# of photos that damage made wrong one in five was not told.
TOLD = {"PNG": 0.99, "GIF": 0.9, "JPEG": 0.9, "4:4:4": 0.9}


def mutated(data: bytes, numbers: random.Random) -> bytes:
    kind = numbers.randrange(5)
    if kind == 0:
        return data[: numbers.randrange(len(data))]
    if kind == 1:
        return changed(data, numbers, 5, len(data) // 5, len(data))
    if kind == 2:
        return changed(data, numbers, 2, 0, min(200, len(data)))  # sizes, modes and tables
    first = numbers.randrange(len(data))
    if kind == 3:
        return data[:first] + data[first + numbers.randrange(1, 400) :]
    return data[:first] + numbers.randbytes(numbers.randrange(1, 400)) + data[first:]


def in_use() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


@pytest.mark.bulk
@pytest.mark.filterwarnings("ignore")
@pytest.mark.fault(
    "2,500 mutated pictures in 10 kinds",
    "no crash; of PNGs that come out wrong 99 % are named, of GIFs and JPEGs 90 %, each in a line",
)
def test_mutated_pictures_are_right_or_named(tmp_path: Path, record_property) -> None:
    seen: dict[str, Counter] = {kind: Counter() for kind in KINDS}
    before = in_use() if Path("/proc/self/status").exists() else 0
    for kind, options in KINDS.items():
        name = "JPEG" if kind in ("progressive", "4:4:4") else kind
        data = encoded(scene(200, 160), name, **options)
        for k in range(250):
            suffix = (".jpg", ".png", f".{name.lower()}")[k % 3]
            file = tmp_path / f"m{suffix}"
            file.write_bytes(data)
            good = pixels(file)
            file.write_bytes(mutated(data, random.Random(f"{kind} {k}")))
            if reasons := check_images([file]):
                assert "\n" not in reasons[file]
                seen[kind]["named"] += 1
            else:
                seen[kind]["right" if is_right(pixels(file), good) else "wrong"] += 1
    record_property("seen", "; ".join(f"{kind} {dict(c)}" for kind, c in seen.items()))
    for kind, share in TOLD.items():
        told = seen[kind]["named"] / (seen[kind]["named"] + seen[kind]["wrong"])
        assert told >= share, (kind, seen[kind])
    if before:
        assert in_use() - before < 600 * MB
