"""Pictures that are there twice: in both sides of a split, in two classes, in one."""

import os
from pathlib import Path

import pytest
from PIL import Image
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

from nbfinetune import ImageDataLoaders, check_images
from nbfinetune.images import duplicates
from nbfinetune.images.duplicates import same_files

LEAK = "pictures are the same in train and in valid"
LABELS = "pictures have several labels, twice there or under two names"
REPEAT = "pictures are there twice or more in one class on one side"


def _picture(file: Path, *colour: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 8), colour).save(file)
    return file


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two classes of 4 pictures."""
    return [
        _picture(tmp_path / name / f"{i}.png", i, kind, 0)
        for kind, name in enumerate(("cat", "dog"))
        for i in range(4)
    ]


def _said(files: list[Path], labels: list[str], is_valid: list[bool] | None = None) -> list[str]:
    with pytest.warns(UserWarning, match="pictures (are|have)") as told:
        dls = ImageDataLoaders.from_lists(
            files[0].parent, files, labels, is_valid=is_valid, size=8, valid_pct=0.5
        )
    assert [str(w.message) for w in told] == dls.warnings
    assert all(f"warning: {text}" in repr(dls.summary()) for text in dls.warnings)
    return [text.split(" ", 1)[1].split(" (")[0] for text in dls.warnings]


@pytest.fixture(params=["row", "copy", "link", "hard link", "other spelling"])
def again(request, files: list[Path]) -> Path:
    """The first picture of dogs once more."""
    file, copy = files[4], files[4].with_name("again.png")
    if request.param == "copy":
        copy.write_bytes(file.read_bytes())
    elif request.param == "link":
        copy.symlink_to(file)
    elif request.param == "hard link":
        os.link(file, copy)
    elif request.param == "row":
        return file
    else:
        return file.parent / ".." / "dog" / file.name
    return copy


def test_a_picture_on_both_sides_is_named(files, again) -> None:
    labels = [f.parent.name for f in files]
    is_valid = [i % 2 == 1 for i in range(8)]
    assert _said([*files, again], [*labels, "dog"], [*is_valid, True]) == [LEAK]


def test_a_picture_of_two_classes_is_named(files, again) -> None:
    labels = [f.parent.name for f in files]
    is_valid = [i % 2 == 1 for i in range(8)]
    assert _said([*files, again], [*labels, "cat"], [*is_valid, False]) == [LABELS]


def test_a_picture_twice_in_one_class_on_one_side_is_named(files, again) -> None:
    labels = [f.parent.name for f in files]
    is_valid = [i % 2 == 1 for i in range(8)]
    assert _said([*files, again], [*labels, "dog"], [*is_valid, False]) == [REPEAT]


def test_a_file_twice_in_all_is_told_of_a_random_split(files) -> None:
    labels = [f.parent.name for f in files]
    assert _said(files * 2, labels * 2)[0] == LEAK


@pytest.mark.filterwarnings("error::UserWarning")
def test_pictures_of_equal_size_that_differ_anywhere_are_no_duplicates(tmp_path: Path) -> None:
    base = bytearray(range(256)) * 100
    contents = {
        "middle": len(base) // 2,
        "begin": 0,
        "end": len(base) - 1,
        "quarter": len(base) // 4,
    }
    files = [tmp_path / "same"]
    files[0].write_bytes(base)
    for name, place in contents.items():
        changed = bytearray(base)
        changed[place] ^= 1
        files.append(tmp_path / name)
        files[-1].write_bytes(changed)
    assert same_files(files) == []
    (tmp_path / "copy").write_bytes(base)
    assert same_files([*files, tmp_path / "copy"]) == [[0, 5]]


def test_empty_and_missing_files_are_no_duplicates(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"")
    names = [tmp_path / "a", tmp_path / "b", tmp_path / "gone", tmp_path / "gone", tmp_path / "\0"]
    assert same_files(names) == []


def test_three_of_a_kind_and_other_kinds_are_groups_of_their_own(tmp_path: Path) -> None:
    for name, content in zip("abcdef", ("x", "y", "x", "zz", "y", "x"), strict=True):
        (tmp_path / name).write_text(content)
    files = [tmp_path / name for name in "abcdef"]
    assert same_files([*files, files[3]]) == [[0, 2, 5], [1, 4], [3, 6]]


def test_only_files_of_equal_size_are_read(tmp_path: Path, monkeypatch) -> None:
    read = []
    for name in ("_middle", "_digest"):
        function = getattr(duplicates, name)
        monkeypatch.setattr(
            duplicates,
            name,
            lambda file, function=function: read.append(file.name) or function(file),
        )
    for n, name in enumerate("abcde"):
        (tmp_path / name).write_bytes(bytes(n + 1))
    (tmp_path / "f").write_bytes(b"x")
    same_files([tmp_path / name for name in "abcdef"])
    assert sorted(read) == ["a", "f"]


def test_check_images_names_all_but_the_first_and_other_folders(files, tmp_path: Path) -> None:
    copy = tmp_path / "cat" / "copy.png"
    copy.write_bytes(files[0].read_bytes())
    leak = tmp_path / "dog" / "leak.png"
    leak.write_bytes(files[1].read_bytes())
    assert check_images(tmp_path) == {
        copy: f"the same picture as {files[0]}",
        leak: f"the same picture as {files[1]}, which is in another folder",
    }


def test_parts_of_a_data_set_that_overlap_are_named(files, tmp_path: Path) -> None:
    data = ImageFolder(tmp_path)
    with pytest.warns(UserWarning, match=rf"1 {LEAK} \(.*/dog/0.png\)"):
        ImageDataLoaders.from_datasets(Subset(data, [0, 1, 4, 5]), Subset(data, [2, 4]), size=8)
    pictures = [(Image.new("RGB", (8, 8), (i, 0, 0)), i % 2) for i in range(6)]
    with pytest.warns(UserWarning, match=rf"1 {LEAK} \(item 3\)"):
        ImageDataLoaders.from_datasets(
            Subset(pictures, [0, 1, 3]), Subset(Subset(pictures, [5, 3]), [0, 1]), size=8
        )
    with pytest.warns(UserWarning, match=rf"2 {LEAK} \(item 2 = item 0, item 3 = item 1\)"):
        ImageDataLoaders.from_datasets(pictures[:4], pictures[2:], size=8)
    with pytest.warns(UserWarning, match=f"6 {LEAK}"):
        ImageDataLoaders.from_datasets(pictures, pictures, size=8)
