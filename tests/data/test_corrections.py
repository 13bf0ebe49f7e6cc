"""Marks on files, and the CSV file in which they reach the loaders."""

import csv
from pathlib import Path

import pytest

from nbfinetune import ImageDataLoaders
from nbfinetune.data.corrections import Corrections, Mark, read_corrections


@pytest.fixture
def marked(tmp_path: Path) -> Corrections:
    corrections = Corrections()
    corrections.mark(tmp_path / "a.png", "relabel", "cat", "dog")
    corrections.mark(tmp_path / "b.png", "remove", "cat")
    corrections.mark(tmp_path / "c.png", "remove", "dog")
    return corrections


def test_the_newest_mark_of_a_file_counts_and_undo_takes_steps_back(marked, tmp_path) -> None:
    marked.mark(tmp_path / "a.png", "fine", "cat")
    assert [f"{f.name} {m}" for f, m in marked.marks.items()] == [
        "b.png remove",
        "c.png remove",
        "a.png fine",
    ]
    assert marked.undo() == "mark taken back: a.png (3 marked; %clean lists them)"
    assert str(marked.marks[tmp_path / "a.png"]) == "relabel as dog"
    assert marked.undo_mark() == "mark taken back: c.png (2 marked; %clean lists them)"
    marked.undo()
    marked.undo()
    with pytest.raises(ValueError, match="there is no mark to undo"):
        marked.undo_mark()
    with pytest.raises(ValueError, match="there is nothing to undo"):
        marked.undo()


def test_applying_adds_to_the_file_and_undo_gives_it_back(marked, tmp_path: Path) -> None:
    file = marked.apply(tmp_path / "corrections.csv")
    first = file.read_bytes()
    rows = list(csv.reader(first.decode().splitlines()))
    assert rows == [
        ["file", "action", "label", "was"],
        ["a.png", "relabel", "dog", "cat"],
        ["b.png", "remove", "", "cat"],
        ["c.png", "remove", "", "dog"],
    ]
    assert marked.marks == {}
    marked.mark(tmp_path / "c.png", "fine", "dog")
    marked.apply(file)
    assert list(read_corrections(file)) == [tmp_path / f"{c}.png" for c in "abc"]
    assert read_corrections(file)[tmp_path / "c.png"] == Mark("fine", "", "dog")
    marked.undo()
    assert file.read_bytes() == first
    assert [m.action for m in marked.marks.values()] == ["fine"]
    assert [f.name for f in tmp_path.iterdir()] == ["corrections.csv"]


def test_undoing_the_first_file_removes_it_but_never_one_that_was_changed(marked, tmp_path) -> None:
    file = marked.apply(tmp_path / "corrections.csv")
    written = file.read_text()
    file.write_text(written + "d.png,remove,,cat\n")
    with pytest.raises(ValueError, match="was changed since it was written; it is left as it is"):
        marked.undo()
    file.write_bytes(written.encode())
    marked.undo()
    assert not file.exists()
    assert len(marked.marks) == 3


def test_a_file_of_something_else_is_not_overwritten(marked, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("file,label\na.png,cat\n")
    with pytest.raises(ValueError, match="is no file of corrections"):
        marked.apply(file)
    assert file.read_text() == "file,label\na.png,cat\n"
    assert len(marked.marks) == 3


@pytest.mark.parametrize("line", ["a.png,delete,,x", "a.png,relabel,,x", "a.png,fine"])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text(f"file,action,label,was\n{line}\n")
    with pytest.raises(ValueError, match="line 2 is not a correction"):
        read_corrections(file)


def test_what_is_no_mark_is_refused(tmp_path: Path) -> None:
    corrections = Corrections()
    with pytest.raises(ValueError, match="action is 'delete'; it is one of relabel, remove, fine"):
        corrections.mark(tmp_path, "delete", "x")
    with pytest.raises(ValueError, match="relabel needs one"):
        corrections.mark(tmp_path, "relabel", "x")
    with pytest.raises(ValueError, match="no picture is marked"):
        corrections.apply(tmp_path / "c.csv")
    assert list(tmp_path.iterdir()) == []


def test_loaders_read_corrections_and_leave_the_pictures_alone(photos: Path, tmp_path) -> None:
    before = sorted(photos.rglob("*"))
    corrections = Corrections()
    corrections.mark(photos / "red/red_0.png", "relabel", "red", "blue")
    corrections.mark(photos / "red/red_1.png", "remove", "red")
    corrections.mark(photos / "red/red_2.png", "fine", "red")
    file = corrections.apply(tmp_path / "corrections.csv")
    dls = ImageDataLoaders.from_folder(photos, size=16, corrections=file)
    labels = {
        dataset.path(i): dls.vocab[t]
        for dataset in (dls.train.dataset, dls.valid.dataset)
        for i, t in enumerate(dataset.targets)
    }
    assert len(labels) == 17
    assert labels[photos / "red/red_0.png"] == "blue"
    assert photos / "red/red_1.png" not in labels
    assert labels[photos / "red/red_2.png"] == "red"
    assert sorted(photos.rglob("*")) == before


def test_corrections_of_files_that_are_not_there_are_named(photos: Path, tmp_path: Path) -> None:
    corrections = Corrections()
    corrections.mark(photos / "red/gone.png", "remove", "red")
    file = corrections.apply(tmp_path / "corrections.csv")
    with pytest.warns(
        UserWarning, match=r"1 correction is of a file that is not among the pictures: gone.png"
    ):
        ImageDataLoaders.from_folder(photos, size=16, corrections=file)


def test_marks_made_together_are_taken_back_together(marked, tmp_path: Path) -> None:
    before = marked.marks
    marked.mark_all({tmp_path / "b.png": "cat", tmp_path / "d.png": "dog"}, "relabel", "cow")
    assert marked.said == "2 pictures: relabel as cow (4 marked; %clean lists them)"
    assert [m.was for m in marked.marks.values()] == ["cat", "dog", "cat", "dog"]
    assert marked.undo() == "mark taken back: 2 pictures (3 marked; %clean lists them)"
    assert marked.marks == before


def test_what_was_done_is_said_with_the_marks_there_are_then(marked, tmp_path: Path) -> None:
    heard = []

    class Panel:
        def hear(self) -> None:
            heard.append((marked.said, len(marked.marks)))

    panel = Panel()
    marked.watch(panel.hear)
    marked.apply(tmp_path / "corrections.csv")
    marked.undo()
    assert heard == [
        ("3 corrections written to corrections.csv (no picture is marked now)", 0),
        (
            "3 corrections taken out of corrections.csv; they are marks again "
            "(3 marked; %clean lists them)",
            3,
        ),
    ]


def test_the_list_of_marks_says_how_many_and_without_any_what_to_do(tmp_path: Path) -> None:
    corrections = Corrections()
    assert corrections.table().title == (
        "no picture is marked; mark some in the image panel of %confusion_matrix"
    )
    for k, title in ((1, "1 picture is marked"), (2, "2 pictures are marked")):
        corrections.mark(tmp_path / f"{k}.png", "remove", "cat")
        assert corrections.table().title == title


def test_undoing_two_files_in_a_row_loses_no_mark(tmp_path: Path) -> None:
    corrections = Corrections()
    for name in ("x.png", "y.png"):
        corrections.mark(tmp_path / name, "remove", "cat")
        corrections.apply(tmp_path / "c.csv")
    corrections.undo()
    corrections.undo()
    assert {file.name for file in corrections.marks} == {"x.png", "y.png"}
    assert not (tmp_path / "c.csv").exists()


def test_any_file_name_is_written_and_read_back(tmp_path: Path) -> None:
    corrections = Corrections()
    names = ["caf\udce9.png", 'a "b", c.png', "\u05e2\u05d1.png"]
    for name in names:
        corrections.mark(tmp_path / name, "remove", "<b>")
    assert [f.name for f in read_corrections(corrections.apply(tmp_path / "c.csv"))] == names


def test_a_relative_file_is_kept_as_an_absolute_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    corrections = Corrections()
    corrections.mark(Path("img/a.png"), "remove", "cat")
    (tmp_path / "out").mkdir()
    file = corrections.apply("out/c.csv")
    assert list(read_corrections(file)) == [tmp_path / "img/a.png"]


def test_a_correction_moves_no_other_picture_to_the_other_side(photos: Path, tmp_path) -> None:
    before = ImageDataLoaders.from_folder(photos, size=16, valid_pct=0.34)
    sides = {p: k for k, d in enumerate(_datasets(before)) for p in _paths(d)}
    corrections = Corrections()
    corrections.mark(photos / "blue/blue_1.png", "remove", "blue")
    corrections.mark(photos / "green/green_2.png", "relabel", "green", "red")
    file = corrections.apply(tmp_path / "c.csv")
    after = ImageDataLoaders.from_folder(photos, size=16, valid_pct=0.34, corrections=file)
    for k, dataset in enumerate(_datasets(after)):
        assert all(sides[path] == k for path in _paths(dataset))


def _datasets(dls: ImageDataLoaders) -> tuple:
    return dls.train.dataset, dls.valid.dataset


def _paths(dataset) -> list[Path]:
    return [dataset.path(i) for i in range(len(dataset))]


def test_labels_that_are_numbers_stay_classes_of_their_own(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    labels = [i % 3 for i in range(18)]
    corrections = Corrections()
    corrections.mark(files[1], "relabel", "1", "0")
    file = corrections.apply(tmp_path / "c.csv")
    dls = ImageDataLoaders.from_lists(photos, files, labels, size=16, corrections=file)
    assert dls.vocab == ["0", "1", "2"]
    labels = {p: d.targets[i] for d in _datasets(dls) for i, p in enumerate(_paths(d))}
    assert labels[files[1]] == 0


def test_an_unreadable_picture_can_be_removed(photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    files = [*sorted(photos.rglob("*.png")), bad]
    labels = [f.parent.name for f in files[:-1]] + ["red"]
    corrections = Corrections()
    corrections.mark(bad, "remove", "red")
    file = corrections.apply(tmp_path / "c.csv")
    dls = ImageDataLoaders.from_lists(photos, files, labels, size=16, corrections=file)
    assert sum(len(d) for d in _datasets(dls)) == 18


TEXTS = [
    "=1+1",
    "+1",
    "-x",
    "@x",
    "\tx",
    "'=x",
    "''=x",
    "'x",
    "a\rb",
    "\r=",
    "a\r\nb",
    "a\nb",
    "",
    "x",
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_is_a_formula_and_all_are_read_back(text: str, tmp_path: Path) -> None:
    corrections = Corrections()
    corrections.mark(tmp_path / f"{text}.png", "relabel", text, text or "b")
    corrections.mark(tmp_path / "second.png", "remove", text)
    marks = corrections.marks
    file = corrections.apply(tmp_path / "c.csv")
    with open(file, newline="") as lines:
        rows = list(csv.reader(lines))
    assert [len(row) for row in rows] == [4, 4, 4]
    assert not [cell for row in rows for cell in row if cell and cell[0] in "=+-@\t\r"]
    assert read_corrections(file) == marks


def test_a_formula_of_a_file_before_is_read_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file,action,label,was\n-a.png,relabel,=b,+c\n")
    assert read_corrections(tmp_path / "c.csv") == {
        tmp_path / "-a.png": Mark("relabel", "=b", "+c")
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "gone.csv is not there; give corrections a file"),
        (b"", "is no file of corrections: its columns are not"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no file of corrections"),
        (b"PK\x03\x04" + bytes(99), "is no file of corrections"),
        (b"file;action;label;was\n", "is no file of corrections"),
    ],
)
def test_a_file_of_no_corrections_is_refused_by_name(content, message, photos, tmp_path) -> None:
    if content is not None:
        (tmp_path / "gone.csv").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ImageDataLoaders.from_folder(photos, size=16, corrections=tmp_path / "gone.csv")
    with pytest.raises(ValueError, match=r"is no file of corrections: .*directory"):
        ImageDataLoaders.from_folder(photos, size=16, corrections=tmp_path)


def test_corrections_of_files_of_any_name_are_named_in_one_line(photos: Path, tmp_path) -> None:
    corrections = Corrections()
    corrections.mark(photos / "caf\udce9\n.png", "remove", "red")
    file = corrections.apply(tmp_path / "c.csv")
    with pytest.warns(UserWarning, match=r"not among the pictures: caf\\udce9\\n.png") as told:
        dls = ImageDataLoaders.from_folder(photos, size=16, corrections=file)
    assert dls.warnings == [str(told[0].message)]
