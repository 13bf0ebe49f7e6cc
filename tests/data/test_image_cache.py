import errno
import os
from pathlib import Path

import pytest
import torch

from nbfinetune import ImageDataLoaders
from nbfinetune.data.image_cache import allocate_cache
from nbfinetune.runtime import room
from nbfinetune.runtime.memmap import cache_folder


@pytest.fixture
def no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Squares go into this folder."""
    monkeypatch.setattr(room, "_MEMORY", 0)
    monkeypatch.setenv("NBFINETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_squares_that_do_not_fit_into_memory_are_kept_in_a_file(photos, dls, no_memory) -> None:
    in_file = ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=32, bs=5)
    assert no_memory.is_dir()
    for part in ("train", "valid"):
        ours, theirs = getattr(in_file, part).dataset, getattr(dls, part).dataset
        assert torch.equal(ours.batch(range(len(ours)))[0], theirs.batch(range(len(theirs)))[0])


@pytest.mark.skipif(os.name == "nt", reason="there the file has a name until it is closed")
def test_the_file_has_no_name(no_memory: Path) -> None:
    squares = allocate_cache(100, 256)
    assert list(no_memory.iterdir()) == []
    squares[99] = 7
    assert squares[98:].float().mean() == 3.5


def test_a_disk_that_fills_up_is_told_before_anything_is_written(no_memory, monkeypatch) -> None:
    def full(*args) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.warns(UserWarning, match=r"decoded anew.*\(No space left on device\)"):
        assert allocate_cache(100, 256) is None


def test_without_fallocate_the_file_is_written_whole(no_memory, monkeypatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    squares = allocate_cache(100, 256)
    assert squares.shape == (100, 256, 256, 3)
    assert not squares.any()


def test_an_interrupt_leaves_no_file(photos: Path, no_memory: Path, monkeypatch) -> None:
    def interrupt(*args) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nbfinetune.data.sources.reading.read_pixels", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ImageDataLoaders.from_folder(photos, size=32)
    assert list(no_memory.iterdir()) == []


def test_a_full_disk_is_told_in_one_line(no_memory: Path, monkeypatch) -> None:
    monkeypatch.setattr(room, "_FREE", 2**60)
    message = r"100 pictures .* are 0.0 GB, .* in .*cache \(.* GB free.*\).*NBFINETUNE_CACHE"
    with pytest.warns(UserWarning, match=message):
        assert allocate_cache(100, 256) is None
    assert list(no_memory.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_is_told(no_memory: Path) -> None:
    no_memory.write_text("a file in its place")
    with pytest.warns(UserWarning, match=r"decoded anew.*cache \(File exists\)"):
        assert allocate_cache(100, 256) is None


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NBFINETUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "nbfinetune"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/nbfinetune")
    monkeypatch.setenv("NBFINETUNE_CACHE", "/large")
    assert cache_folder() == Path("/large")


@pytest.mark.parametrize("chosen", [None, "~nobody-of-this-name/cache"])
def test_without_a_home_folder_the_way_out_is_told(
    chosen: str | None, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(path: str) -> str:  # as of users without HOME and without an entry in passwd
        return path

    monkeypatch.setattr("os.path.expanduser", unknown)
    for name in ("NBFINETUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv("NBFINETUNE_CACHE", chosen)
    with pytest.raises(OSError, match="home folder is not known; set NBFINETUNE_CACHE to a folder"):
        cache_folder()
    monkeypatch.setattr(room, "_MEMORY", 1000)
    with pytest.warns(
        UserWarning, match="decoded anew.*home folder is not known.*NBFINETUNE_CACHE"
    ):
        dls = ImageDataLoaders.from_folder(photos, size=32)
    assert dls.train.dataset.cache is None
