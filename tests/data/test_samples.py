import csv
from pathlib import Path

import pytest
from PIL import Image

from nbfinetune import ImageDataLoaders, samples


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_dozen_classes_are_drawn_alike_by_the_same_seed(tmp_path: Path) -> None:
    one, two, other = (
        samples.draw_shapes(tmp_path / name, n=3, size=32, seed=seed)
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert len(samples.SHAPES) == 12
    assert sorted(f.name for f in one.iterdir() if f.is_dir()) == sorted(samples.SHAPES)
    assert _bytes(one) == _bytes(two)
    assert _bytes(one) != _bytes(other)
    assert len(list(one.rglob("*.png"))) == 36


def test_some_of_the_shapes_are_drawn_and_wrong_labels_are_of_them(tmp_path: Path) -> None:
    chosen = ["ring", "circle", "star_5"]
    folder = samples.draw_shapes(tmp_path / "s", n=4, size=16, wrong=0.5, shapes=chosen)
    assert {f.name for f in folder.iterdir() if f.is_dir()} == set(chosen)
    assert set(samples.wrong_labels(folder).values()) <= set(chosen)
    assert len(samples.wrong_labels(folder)) == 6
    with pytest.raises(FileExistsError, match="holds shapes drawn otherwise"):
        samples.draw_shapes(tmp_path / "s", n=4, size=16, wrong=0.5, shapes=chosen[:2])


@pytest.mark.parametrize("shapes", [["ring"], ["ring", "ring"], ["ring", "cube"], "ring"])
def test_shapes_that_make_no_data_set_are_refused(shapes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shapes"):
        samples.draw_shapes(tmp_path / "s", n=2, size=16, shapes=shapes)


def test_two_percent_of_the_labels_are_wrong_and_listed(tmp_path: Path) -> None:
    folder = samples.draw_shapes(tmp_path / "s", n=25, size=16)
    with open(folder / "wrong_labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6  # 2 % of 300
    for row in rows:
        assert (folder / row["file"]).is_file()
        assert row["file"].startswith(row["label"] + "/")
        assert row["label"] != row["true_label"]
    for shape in samples.SHAPES:
        wrong = sum((r["label"] == shape) - (r["true_label"] == shape) for r in rows)
        assert len(list((folder / shape).iterdir())) == 25 + wrong


def test_a_drawn_folder_is_used_again_but_nothing_else_is_touched(tmp_path: Path) -> None:
    folder = samples.draw_shapes(tmp_path / "s", n=2, size=16)
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("*")}
    assert samples.draw_shapes(tmp_path / "s", n=2, size=16) == folder
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("*")} == before
    with pytest.raises(FileExistsError, match="holds shapes drawn otherwise; give another path"):
        samples.draw_shapes(tmp_path / "s", n=3, size=16)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty; give a new folder"):
        samples.draw_shapes(tmp_path / "mine", n=2, size=16)
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_interrupted_drawing_leaves_no_half_data_set(tmp_path: Path, monkeypatch) -> None:
    def interrupt(*args) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        samples.draw_shapes(tmp_path / "s", n=2, size=16)
    assert list(tmp_path.iterdir()) == []


def test_shapes_go_to_the_cache_folder_by_default(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = samples.draw_shapes(n=2, size=16)
    assert folder.parent == tmp_path / "nbfinetune"
    assert len(ImageDataLoaders.from_folder(folder, size=16).vocab) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n is 1; it must be a whole number from 2 up"),
        ({"size": 8}, "size is 8; it must be a whole number from 16 to"),
        ({"wrong": 1}, "wrong is 1; it must be a number from 0 to below 1"),
    ],
    ids=str,
)
def test_shapes_that_cannot_be_drawn_are_refused(options: dict, message, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        samples.draw_shapes(tmp_path / "s", **options)


def test_pets_are_taken_from_the_folder_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("NBFINETUNE_PETS", str(tmp_path))
    assert samples.pets() == tmp_path
    monkeypatch.setenv("NBFINETUNE_PETS", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="gone, which is not a folder"):
        samples.pets()


def test_pets_that_cannot_be_downloaded_say_so_in_one_line(tmp_path: Path, monkeypatch) -> None:
    def offline(*args, **kwargs) -> None:
        raise OSError("Name or service not known")

    monkeypatch.delenv("NBFINETUNE_PETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", offline)
    with pytest.raises(RuntimeError, match=r"cannot be downloaded .*; set NBFINETUNE_PETS to"):
        samples.pets()
