"""Which files are pictures, and what is in those that cannot be read."""

import os
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from nbfinetune import ImageDataLoaders, check_images, get_image_files
from nbfinetune.images.decoding import read_progress
from nbfinetune.images.files import no_decoder

HEIC = b"\0\0\0\x18ftypheic" + bytes(100)


def _write(folder: Path, n: int = 3, kind: int = 0, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("RGB", (10, 8), (i, kind, 0)).save(folder / f"{i}.{suffix}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of two classes of 3 pictures."""
    for kind, name in enumerate(("cat", "dog")):
        _write(tmp_path / name, kind=kind)
    return tmp_path


# Each is a file, what it holds, and what is said of it.
NO_DECODER = {
    "HEIC": ("a.HEIC", HEIC, "a HEIC picture, .*: pip install pillow-heif"),
    "HEIC called JPEG": ("a.jpg", HEIC, "a HEIC picture, .*: pip install pillow-heif"),
    "HEIF of another brand": ("a.heif", b"\0\0\0\x18ftypmif1" + bytes(99), "a HEIC picture"),
    "HEIC without suffix": ("IMG_1", HEIC, "a HEIC picture"),
    "raw": ("a.CR2", b"II*\0" + bytes(99), "a raw photo of a camera"),
    "JPEG XL": ("a.jxl", b"\xff\x0a" + bytes(99), "a JPEG XL picture"),
    "drawing": ("a.svg", b"<?xml version='1.0'?><svg/>", "a picture in a format that Pillow does"),
    "scan": ("a.dcm", bytes(128) + b"DICM", "a picture in a format that Pillow does"),
    "pointer": (
        "a.jpg",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "Git LFS point",
    ),
    "page": ("a.jpg", b"\n<!DOCTYPE html><html>", r"a web page \(HTML\)"),
    "page without type": ("a.png", b"<html><body>404", r"a web page \(HTML\)"),
    "message": (
        "a.jpg",
        b"<?xml version='1.0'?><Error>AccessDenied</Error>",
        "XML or JSON, such as a",
    ),
    "other message": ("a.jpg", b'{"error": "not found"}', "XML or JSON, such as a"),
    "archive": ("a.jpg", b"PK\x03\x04" + bytes(99), "a zip file"),
    "document": ("a.jpg", b"%PDF-1.7", "a PDF"),
    "damaged": ("a.webp", b"nothing", "not a picture that Pillow knows$"),
}


@pytest.mark.parametrize(("name", "content", "reason"), NO_DECODER.values(), ids=NO_DECODER)
def test_pictures_without_a_decoder_are_named_not_passed_over(name, content, reason, root) -> None:
    file = root / "cat" / name
    file.write_bytes(content)
    assert file in get_image_files(root)
    [(bad, found)] = check_images(root).items()
    assert bad == file
    message = f"1 of 7 pictures cannot be read: .*{name}: .*{reason[:20]}"
    with pytest.raises(ValueError, match=message):
        ImageDataLoaders.from_folder(root, size=8)
    with pytest.warns(UserWarning, match=f"left out: {message}"):
        dls = ImageDataLoaders.from_folder(root, size=8, on_bad="skip")
    assert len(dls.train.dataset) + len(dls.valid.dataset) == 6
    assert re.search(reason, found)


def test_a_class_that_cannot_be_read_at_all_is_refused_even_if_bad_ones_are_left_out(root) -> None:
    (root / "fox").mkdir()
    for i in range(3):
        (root / "fox" / f"{i}.heic").write_bytes(HEIC + bytes([i]))
    with (
        pytest.warns(UserWarning, match="left out: 3 of 9"),
        pytest.raises(
            ValueError, match="no picture of fox can be read, so the class would be missing"
        ),
    ):
        ImageDataLoaders.from_folder(root, size=8, on_bad="skip")


def test_a_webp_that_pillow_could_decode_is_not_said_to_lack_its_decoder(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(b"RIFF\x10\0\0\0WEBPVP8 " + bytes(9))
    assert no_decoder(tmp_path / "a.webp") == "not a picture that Pillow knows"


BESIDE = (
    *(".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", ".0.heic", "0.txt", "labels.csv"),
    *("0.json", "0.xml", "clip.MOV", "0.AAE", "pipe", "readme", "0.xyz", "__MACOSX/._0.png"),
    *("__MACOSX/0.png", "@eaDir/0.png", ".cache/0.png"),
)


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.filterwarnings("error::UserWarning")
def test_what_lies_beside_pictures_is_passed_over_without_a_word(name: str, root: Path) -> None:
    for folder in (root, root / "cat"):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        if name == "pipe":
            os.mkfifo(file)
        else:
            file.write_bytes(b"\x89PNG\r\n\x1a\n" if "/" in name or name[0] == "." else b"other")
    assert len(get_image_files(root)) == 6
    assert ImageDataLoaders.from_folder(root, size=8).warnings == []
    assert check_images(root) == {}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("name", ["photo", "photo.jpg_large", "photo.1", "photo.png "])
def test_pictures_without_their_suffix_are_pictures(kind: str, name: str, root: Path) -> None:
    Image.new("RGB", (9, 9), "red").save(root / "cat" / name, kind)
    assert root / "cat" / name in get_image_files(root)


def test_a_folder_of_other_files_says_what_it_has(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.txt", "c"):
        (tmp_path / name).write_bytes(b"x")
    message = r"no pictures below .* \(it has files of: .mp4, .txt, no suffix\); expected"
    with pytest.raises(ValueError, match=message):
        get_image_files(tmp_path)


def _denied(folder: Path, monkeypatch) -> None:
    """As for a user who may not list the folder; the tests may run as root, who may."""
    scandir = os.scandir

    def deny(path):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)


@pytest.mark.parametrize("place", ["dog", "dog/old", "cat/a/b"])
def test_folders_that_cannot_be_listed_are_refused(place: str, root: Path, monkeypatch) -> None:
    _write(root / place)
    _denied(root / place, monkeypatch)
    for call in (get_image_files, check_images, ImageDataLoaders.from_folder):
        with pytest.raises(
            ValueError, match=rf"1 folders cannot be listed \(.*{place}: Permission"
        ):
            call(root)


@pytest.mark.parametrize("name", ["fox", "cat/old", "fox.v2"])
def test_links_to_folders_that_are_away_are_refused(name: str, root: Path) -> None:
    (root / name).symlink_to("/mnt/disk-that-is-away")
    with pytest.raises(ValueError, match=rf"1 links lead nowhere \(.*{name}\), perhaps to a disk"):
        ImageDataLoaders.from_folder(root, size=8)


def test_one_folder_that_two_links_lead_to_is_there_twice(root: Path) -> None:
    (root / "dog").rename(root / ".dog")
    for name in ("dog", "hound"):
        (root / name).symlink_to(root / ".dog")
    assert [f.parent.name for f in get_image_files(root)] == ["cat"] * 3 + ["dog"] * 3 + [
        "hound"
    ] * 3
    with pytest.warns(UserWarning, match="3 pictures have several labels"):
        assert len(ImageDataLoaders.from_folder(root, size=8).vocab) == 3


def test_progress_is_drawn_in_terminals_and_notebooks_alone(monkeypatch) -> None:
    class Stream:
        def __init__(self, terminal: bool) -> None:
            self.terminal = terminal

        def isatty(self) -> bool:
            return self.terminal

    monkeypatch.setattr(
        "nbfinetune.images.decoding.tqdm", lambda items, **options: options["disable"]
    )
    monkeypatch.delenv("NBFINETUNE_STATIC", raising=False)
    drawn = {}
    for name, stream in {"log": Stream(False), "terminal": Stream(True), "none": None}.items():
        monkeypatch.setattr(sys, "stderr", stream)
        drawn[name] = not read_progress([], 0)
    Stream.__module__ = "ipykernel.iostream"
    monkeypatch.setattr(sys, "stderr", Stream(False))
    drawn["notebook"] = not read_progress([], 0)
    assert drawn == {"log": False, "terminal": True, "none": False, "notebook": True}
