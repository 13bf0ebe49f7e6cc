"""pandas frames as users have them: filtered, shuffled, merged, with and without headings."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nbfinetune import ImageDataLoaders

NAMES = [f"{name}/{i}" for name in ("cat", "dog", "emu") for i in range(4)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("animals")
    for k, name in enumerate(NAMES):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (10, 8), (k, 0, 0)).save(root / f"{name}.png")
    return root


def _frame(**columns) -> pd.DataFrame:
    own = {"file": [f"{n}.png" for n in NAMES], "label": [n[:3] for n in NAMES]}
    return pd.DataFrame(own | columns)


def _all(dls: ImageDataLoaders) -> list[str]:
    """The files of both sides together."""
    train, valid = _files(dls)
    return sorted(train + valid)


def _files(dls: ImageDataLoaders) -> tuple[list[str], list[str]]:
    """The files on both sides, each seen to have the class of its folder."""
    sides = []
    for dataset in (dls.train.dataset, dls.valid.dataset):
        paths = [dataset.path(i) for i in range(len(dataset))]
        assert [p.parent.name for p in paths] == [dls.vocab[t] for t in dataset.targets]
        sides.append(sorted(f"{p.parent.name}/{p.stem}" for p in paths))
    return tuple(sides)


FRAMES = {
    "as made": _frame(),
    "shuffled": _frame().sample(frac=1, random_state=1),
    "filtered": pd.concat([_frame(), _frame(label="x")]).query("label != 'x'"),
    "index of labels": _frame().set_axis(list("lkjihgfedcba")),
    "index twice": _frame().set_axis([0] * 12),
    "multi-index": _frame().set_index([pd.Index([1] * 12), pd.Index(range(12))]),
    "categories": _frame(label=pd.Categorical([n[:3] for n in NAMES], ["x", "emu", "dog", "cat"])),
    "objects": _frame().astype(object),
    "paths": _frame(file=[Path(f"{n}.png") for n in NAMES]),
    "other columns too": _frame(size=1.5, note=None),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("df", FRAMES.values(), ids=FRAMES)
def test_rows_go_by_their_position_whatever_the_index(df: pd.DataFrame, root: Path) -> None:
    dls = ImageDataLoaders.from_df(df, root, size=8)
    assert dls.vocab == ["cat", "dog", "emu"]
    assert _all(dls) == NAMES


def test_a_frame_and_the_file_it_was_read_from_give_the_same_loaders(root: Path) -> None:
    marks = [i % 3 == 0 for i in range(12)]
    _frame(held_out=marks).to_csv(root / "labels.csv", index=False)
    options = {"fn_col": "file", "label_col": 1, "valid_col": "held_out", "size": 8}
    by_file = ImageDataLoaders.from_csv(root, **options)
    by_frame = ImageDataLoaders.from_df(pd.read_csv(root / "labels.csv"), root, **options)
    assert _files(by_file) == _files(by_frame)
    assert _files(by_frame)[1] == NAMES[::3]


@pytest.mark.parametrize(
    "columns",
    [("file", "label"), (0, 1), (np.int64(0), "label"), ("file", 1)],
)
def test_columns_go_by_name_or_position(columns, root: Path) -> None:
    dls = ImageDataLoaders.from_df(_frame(), root, *columns, size=8)
    assert _all(dls) == NAMES


MARKS = {
    "bools": [True, False, False],
    "floats of a merge": [1.0, 0.0, 0.0],
    "words": ["valid", "train", "train"],
    "nullable": pd.array([True, False, False], dtype="boolean"),
    "categories": pd.Categorical(["val", "train", "train"]),
    "gaps where nothing is held out": [True, None, None],
    "NaN where nothing is held out": [1.0, np.nan, np.nan],
}


@pytest.mark.parametrize("marks", MARKS.values(), ids=MARKS)
def test_a_column_says_what_is_held_out(marks, root: Path) -> None:
    df = _frame(held_out=pd.concat([pd.Series(marks)] * 4, ignore_index=True))
    dls = ImageDataLoaders.from_df(df, root, valid_col="held_out", size=8)
    assert _files(dls)[1] == NAMES[::3]


def test_numbers_and_truth_values_are_classes_of_that_name(root: Path) -> None:
    numbers = [2 + 8 * (n[:3] == "cat") for n in NAMES]
    for column in (numbers, pd.array(numbers, dtype="Int64"), [float(n) for n in numbers]):
        assert ImageDataLoaders.from_df(_frame(label=column), root, size=8).vocab == ["2", "10"]
    is_cat = [n[:3] == "cat" for n in NAMES]
    assert ImageDataLoaders.from_df(_frame(label=is_cat), root, size=8).vocab == ["False", "True"]


def test_names_may_be_numbers_to_which_a_suffix_is_added(tmp_path: Path) -> None:
    for i in range(4):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    df = pd.DataFrame({"id": [0, 1, 2, 3], "label": ["a", "b"] * 2})
    dls = ImageDataLoaders.from_df(df, tmp_path, suff=".png", size=8)
    sides = dls.train.dataset, dls.valid.dataset
    found = {d.path(i).name: dls.vocab[t] for d in sides for i, t in enumerate(d.targets)}
    assert found == {"0.png": "a", "1.png": "b", "2.png": "a", "3.png": "b"}


def test_names_from_the_working_folder_are_found(root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root.parent)
    df = _frame(file=[f"{root.name}/{n}.png" for n in NAMES])
    assert _all(ImageDataLoaders.from_df(df, root.name, size=8)) == NAMES
    df = _frame(file=[str(root / f"{n}.png") for n in NAMES])
    assert _all(ImageDataLoaders.from_df(df, size=8)) == NAMES


def _with(row: int, column: str, value: object) -> pd.DataFrame:
    df = _frame().astype(object)
    df.iloc[row, df.columns.get_loc(column)] = value
    return df.iloc[1:]


REFUSED = {
    "no such column": (_frame(), {"label_col": "lable"}, r"df has no column 'lable'; it has \['fi"),
    "no such position": (_frame(), {"label_col": 2}, r"df has no column 2; it has \['file', 'la"),
    "negative": (_frame(), {"label_col": -1}, "df has no column -1"),
    "truth value": (_frame(), {"label_col": True}, "df has no column True"),
    "list of columns": (_frame(), {"label_col": ["label"]}, r"df has no column \['label'\]"),
    "column of the index": (
        _frame().set_index("file"),
        {"fn_col": "file", "label_col": "label"},
        r"'file' is its index: give df.reset_index\(\)",
    ),
    "column twice": (
        pd.concat([_frame(), _frame()], axis=1),
        {"label_col": "label"},
        "df has 2 columns 'label'; give the number of one, such as 1",
    ),
    "name or position": (_frame().set_axis([1, 0], axis=1), {}, "column 0 at place 1: either may"),
    "label missing": (
        _with(3, "label", None),
        {},
        r"df: 1 of 11 rows have no label \(df.iloc\[2\]\); give them one",
    ),
    "label NaN": (_with(3, "label", np.nan), {}, r"rows have no label \(df.iloc\[2\]\)"),
    "label NA": (_with(3, "label", pd.NA), {}, r"rows have no label \(df.iloc\[2\]\)"),
    "label blank": (_with(3, "label", " "), {}, r"rows have no label \(df.iloc\[2\]\)"),
    "label a fraction": (_frame(label=0.5), {}, "12 labels are neither names nor whole numbers"),
    "label a date": (_frame(label=pd.Timestamp("2026-01-01")), {}, "12 labels are neither names"),
    "file missing": (_with(5, "file", None), {}, r"1 of 11 rows have no file \(df.iloc\[4\]\)"),
    "file a picture": (
        _frame(file=[Image.new("L", (1, 1))] * 12),
        {},
        r"df: the file in df.iloc\[0\] is <PIL.*; it must be the name of a file",
    ),
    "file a fraction": (_frame(file=0.5), {}, r"df: the file in df.iloc\[0\] is 0.5; it must be"),
    "file gone": (_with(5, "file", "gone.png"), {}, "1 of 11 pictures cannot be read: .*gone.png"),
    "mark missing": (
        _frame(v=[True, False, None] * 4),
        {"valid_col": "v"},
        r"v in df.iloc\[2\] of df is '', which is neither held out",
    ),
    "no rows": (_frame().iloc[:0], {}, r"df has the columns \['file', 'label'\] and no rows"),
    "index written to the file": (
        _frame().reset_index(),
        {},
        "the column 'index' numbers the rows, .* such as fn_col=1, label_col=2",
    ),
    "first picture as heading": (
        _frame().set_axis(["cat/0.png", "cat"], axis=1),
        {},
        "df has the picture 'cat/0.png' as a heading, .*header=None",
    ),
}


@pytest.mark.parametrize(("df", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_with_a_frame_is_told_in_one_line(df, options, message, root: Path) -> None:
    with pytest.raises(ValueError, match=message) as told:
        ImageDataLoaders.from_df(df, root, size=8, **options)
    assert "\n" not in str(told.value)


NO_FRAMES = {
    "file": ("labels.csv", r"df is a str, no pandas DataFrame; .*from_csv\(path, csv_fname\)"),
    "series": (pd.Series(["a.png"]), "df is a Series, no pandas DataFrame; give a DataFrame with"),
    "dict": ({"file": ["a.png"]}, r"pandas.DataFrame\(df\) makes one, or use .*from_lists"),
    "rows": ([("a.png", "a")], r"df is a list, no pandas DataFrame; pandas.DataFrame\(df\)"),
    "array": (np.zeros((2, 2)), "df is a ndarray, no pandas DataFrame"),
    "None": (None, "df is a NoneType, no pandas"),
}


@pytest.mark.parametrize(("df", "message"), NO_FRAMES.values(), ids=NO_FRAMES)
def test_what_is_no_frame_says_what_to_type(df, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDataLoaders.from_df(df, ".")


def test_the_same_picture_twice_and_under_two_labels_is_warned_of(root: Path) -> None:
    df = pd.concat([_frame(), _frame(label="ape").iloc[:2]])
    with pytest.warns(UserWarning, match="2 pictures have several labels.*ape and cat"):
        ImageDataLoaders.from_df(df, root, size=8)


def test_a_column_of_marks_and_is_valid_are_one_too_many(root: Path) -> None:
    marks = [i % 3 == 0 for i in range(12)]
    with pytest.raises(ValueError, match="is_valid is given, but the data has a split of its own"):
        ImageDataLoaders.from_df(_frame(v=marks), root, valid_col="v", is_valid=marks, size=8)


def test_a_file_that_pandas_wrote_with_its_index_says_which_columns(root: Path) -> None:
    _frame().to_csv(root / "indexed.csv")
    with pytest.raises(ValueError, match=r"indexed.csv: the column '' numbers the rows, as pandas"):
        ImageDataLoaders.from_csv(root, "indexed.csv", size=8)
    dls = ImageDataLoaders.from_csv(root, "indexed.csv", fn_col=1, label_col=2, size=8)
    assert dls.vocab == ["cat", "dog", "emu"]


def test_corrections_are_for_frames_too(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "corrections.csv"
    table.write_text(f"file,action,label,was\n{root / 'cat/0.png'},relabel,dog,cat\n")
    dls = ImageDataLoaders.from_df(_frame(), root, size=8, corrections=table)
    sides = dls.train.dataset, dls.valid.dataset
    labels = {d.path(i): dls.vocab[t] for d in sides for i, t in enumerate(d.targets)}
    assert labels[root / "cat/0.png"] == "dog"


def test_an_option_of_another_name_is_refused(root: Path) -> None:
    with pytest.raises(TypeError, match=re.escape("from_df has no option 'label_delim'; did you")):
        ImageDataLoaders.from_df(_frame(), root, label_delim=" ")


def test_addresses_are_refused_as_such(root: Path) -> None:
    urls = [f"https://example.org/{name}.jpg" for name in NAMES]
    message = re.escape(f"{urls[0]} is a URL, and nothing is downloaded")
    with pytest.raises(ValueError, match=message):
        ImageDataLoaders.from_df(_frame(file=urls), root, size=8)
    with pytest.raises(ValueError, match="is a URL, and nothing is downloaded"):
        ImageDataLoaders.from_lists(root, urls, _frame().label, size=8)
