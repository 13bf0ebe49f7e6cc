"""Class folders as people arrange them, and labels in file names."""

import os
from pathlib import Path

import pytest
from PIL import Image

from nbfinetune import ImageDataLoaders


def _write(folder: Path, *classes: str, n: int = 3) -> None:
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            colour = sum(os.fsencode(folder / name)) % 256, i, len(name)
            Image.new("RGB", (10, 8), colour).save(folder / name / f"{i}.png")


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        ("train", "val"),
        ("train", "validation"),
        ("training", "validation"),
        ("Train", "Val"),
        ("TRAIN", "VALID"),
    ],
)
@pytest.mark.filterwarnings("error::UserWarning")
def test_folders_of_a_split_are_found_by_their_usual_names(train, valid, tmp_path: Path) -> None:
    _write(tmp_path / train, "cat", "dog", n=4)
    _write(tmp_path / valid, "cat", "dog", n=2)
    _write(tmp_path / "test", "1", "2")
    dls = ImageDataLoaders.from_folder(tmp_path, size=8)
    assert dls.vocab == ["cat", "dog"]
    assert (len(dls.train.dataset), len(dls.valid.dataset)) == (8, 4)


def test_folders_named_otherwise_are_given_and_never_guessed(tmp_path: Path) -> None:
    _write(tmp_path / "train", "cat", "dog")
    _write(tmp_path / "test", "cat", "dog")
    with pytest.raises(
        ValueError, match=r"has a folder 'train' but none named 'valid' \(it has: test"
    ):
        ImageDataLoaders.from_folder(tmp_path, size=8)
    dls = ImageDataLoaders.from_folder(tmp_path, valid="test", size=8)
    assert len(dls.valid.dataset) == 6
    with pytest.raises(ValueError, match="none named 'fold1'"):
        ImageDataLoaders.from_folder(tmp_path, train="fold1", valid="test", size=8)


@pytest.mark.parametrize("name", ["valid", "val", "Validation"])
def test_a_folder_of_held_out_pictures_beside_classes_is_no_class(
    name: str, tmp_path: Path
) -> None:
    _write(tmp_path, "cat", "dog")
    _write(tmp_path / name, "cat", "dog")
    with pytest.raises(
        ValueError, match=rf"has a folder '{name}' but none named 'train' \(it has: c"
    ):
        ImageDataLoaders.from_folder(tmp_path, size=8)


@pytest.mark.parametrize("inside", [("cat", "dog"), ("",)])
@pytest.mark.parametrize("name", ["test", "Testing"])
def test_a_folder_of_test_pictures_beside_classes_is_no_class(name, inside, tmp_path: Path) -> None:
    _write(tmp_path, "cat", "dog")
    _write(tmp_path / name, *inside)
    with pytest.warns(UserWarning, match=rf"{3 * len(inside)} pictures in {name} are left out"):
        dls = ImageDataLoaders.from_folder(tmp_path, size=8)
    assert dls.vocab == ["cat", "dog"]
    assert len(dls.warnings) == 1


def test_training_alone_is_a_class(tmp_path: Path) -> None:
    _write(tmp_path, "training", "resting")
    assert ImageDataLoaders.from_folder(tmp_path, size=8).vocab == ["resting", "training"]


def test_a_split_of_folders_is_not_given_a_second_time(tmp_path: Path) -> None:
    _write(tmp_path / "train", "cat", "dog")
    _write(tmp_path / "valid", "cat")
    with pytest.raises(ValueError, match="is_valid is given, but the data has a split of its own"):
        ImageDataLoaders.from_folder(tmp_path, is_valid=[True, False] * 4 + [True], size=8)
    with pytest.warns(UserWarning, match=r"1 classes have no pictures held out: .* \(dog\)"):
        ImageDataLoaders.from_folder(tmp_path, size=8)


def test_folders_beside_a_split_are_named(tmp_path: Path) -> None:
    for side in ("train", "valid"):
        _write(tmp_path / side, "cat", "dog")
    _write(tmp_path, "unlabelled")
    with pytest.warns(UserWarning, match="unlabelled beside train and valid is not read"):
        ImageDataLoaders.from_folder(tmp_path, size=8)


@pytest.mark.parametrize("inner", ["images", "data set (1)"])
def test_a_folder_too_high_names_the_one_inside(inner: str, tmp_path: Path) -> None:
    _write(tmp_path / inner, "cat", "dog")
    with pytest.raises(
        ValueError, match=rf"one folder, '{inner[:6]}.*in the folders cat, dog; pass the"
    ):
        ImageDataLoaders.from_folder(tmp_path, size=8)


def test_a_folder_too_deep_names_the_one_above(tmp_path: Path) -> None:
    _write(tmp_path, "cat", "dog")
    message = f"if 'cat' is a class, pass the folder above it, '{tmp_path}'"
    with pytest.raises(ValueError, match=message):
        ImageDataLoaders.from_folder(tmp_path / "cat", size=8)


def test_the_same_folders_in_all_classes_are_perhaps_the_classes(tmp_path: Path) -> None:
    for year in ("2023", "2024"):
        _write(tmp_path / year, "cat", "dog")
    with pytest.warns(
        UserWarning, match="the classes are 2023, 2024, and each has the folders cat, d"
    ):
        assert ImageDataLoaders.from_folder(tmp_path, size=8).vocab == ["2023", "2024"]


@pytest.mark.parametrize("content", [None, "notes.txt", "clip.mp4"])
def test_folders_without_pictures_are_named(content: str | None, tmp_path: Path) -> None:
    _write(tmp_path, "cat", "dog")
    (tmp_path / "fox").mkdir()
    if content:
        (tmp_path / "fox" / content).write_text("x")
    with pytest.warns(UserWarning, match="1 folders have no pictures, and are no class: fox"):
        assert ImageDataLoaders.from_folder(tmp_path, size=8).vocab == ["cat", "dog"]


def test_one_class_alone_is_warned_of(tmp_path: Path) -> None:
    _write(tmp_path, "images", n=6)
    with pytest.warns(UserWarning, match="there is one class only, images: nothing is told apart"):
        ImageDataLoaders.from_folder(tmp_path, size=8)


def test_classes_named_by_numbers_are_in_their_order(tmp_path: Path) -> None:
    _write(tmp_path, *map(str, range(12)))
    assert ImageDataLoaders.from_folder(tmp_path, size=8).vocab == [str(i) for i in range(12)]


@pytest.mark.parametrize(
    ("pat", "message"),
    [
        ("(cat|do", "pat is '.cat|do', which is no regular expression"),
        (None, "pat is None, which is no regular expression of text"),
        (b"(.)", "pat is b'.*which is no regular expression of text"),
        (r"(x)?\d", "the group of pattern .* is empty, so there is no label, in 0.png, 1.png"),
        (r"()\d", "the group of pattern .* is empty"),
    ],
)
def test_patterns_that_give_no_labels_are_refused(pat, message: str, tmp_path: Path) -> None:
    _write(tmp_path, "cat", "dog")
    with pytest.raises(ValueError, match=message):
        ImageDataLoaders.from_name_re(tmp_path, None, pat, size=8)


@pytest.mark.parametrize(
    "name", ["caf\udce9", "a\nb", "\u05e2\u05d1", "x" * 200, "'\"<b>", "\x1b[1m", "\u202ecat"]
)
def test_class_folders_of_any_name_are_shown_in_one_line(name: str, tmp_path: Path) -> None:
    _write(tmp_path, name, "dog")
    (tmp_path / name / "bad.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"1 of 7 pictures cannot be read: ") as told:
        ImageDataLoaders.from_folder(tmp_path, size=8)
    with pytest.warns(UserWarning, match="left out: 1 of 7") as warned:
        dls = ImageDataLoaders.from_folder(tmp_path, size=8, on_bad="skip")
    assert name in dls.vocab
    texts = [str(told.value), repr(dls.show_batch()), *(str(w.message) for w in warned)]
    assert all(len(text.splitlines()) == 1 for text in texts)
    for text in (
        *texts,
        repr(dls.summary()),
        dls.summary()._repr_html_(),
        dls.show_batch()._repr_html_(),
    ):
        text.encode()


def test_pictures_of_a_folder_that_is_not_utf_8_are_checked_without_a_traceback(tmp_path) -> None:
    _write(tmp_path / "caf\udce9", "cat")
    with pytest.raises(ValueError, match=r"caf\\udce9 has one folder, 'cat'|cat") as told:
        ImageDataLoaders.from_folder(tmp_path / "caf\udce9" / "cat", size=8)
    str(told.value).encode()
