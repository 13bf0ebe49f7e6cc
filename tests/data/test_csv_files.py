"""Tables of labels as spreadsheets, databases and people write them."""

import csv
import gzip
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from nbfinetune import ImageDataLoaders

NAMES = [f"{name}/{i}" for name in ("cat", "dog", "emu") for i in range(4)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for k, name in enumerate(NAMES):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (10, 8), (k, 0, 0)).save(file)
    return tmp_path


def _rows(*, between: str = ",", header: str = "file,label", end: str = "\n", **labels: str) -> str:
    names = {"cat": "cat", "dog": "dog", "emu": "emu"} | labels
    lines = [f"{name}.png,{names[name[:3]]}" for name in NAMES]
    return end.join([header, *lines, ""]).replace(",", between)


def _read(root: Path, content: str | bytes, **options) -> ImageDataLoaders:
    data = content if isinstance(content, bytes) else content.encode()
    (root / "labels.csv").write_bytes(data)
    return ImageDataLoaders.from_csv(root, size=8, **options)


def _n(dls: ImageDataLoaders) -> int:
    return len(dls.train.dataset) + len(dls.valid.dataset)


READ = {
    "UTF-8": _rows(cat="kočka").encode(),
    "UTF-8 with its mark": _rows(cat="kočka").encode("utf-8-sig"),
    "UTF-16": _rows(cat="kočka").encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + _rows(cat="kočka").encode("utf-16-be"),
    "UTF-32": _rows(cat="kočka").encode("utf-32"),
    "Windows line ends": _rows(cat="kočka", end="\r\n").encode(),
    "old Macintosh line ends": _rows(cat="kočka", end="\r").encode(),
    "quotes": _rows(cat='"kočka"').encode(),
    "empty lines": _rows(cat="kočka").replace("\n", "\n\n").encode(),
    "Excel's first line": ("sep=;\n" + _rows(cat="kočka", between=";")).encode(),
    "rows of nothing": (_rows(cat="kočka") + ",\n,\n").encode(),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_tables_are_read_without_a_word(content: bytes, root: Path) -> None:
    dls = _read(root, content)
    assert dls.vocab == ["dog", "emu", "kočka"]
    assert _n(dls) == 12


def test_texts_may_hold_delimiters_quotes_and_line_breaks(root: Path) -> None:
    with pytest.warns(UserWarning, match=r"1 class names have .* line breaks .*'b\\nc'"):
        dls = _read(root, _rows(cat='"a ""x"", b"', dog='"b\nc"'))
    assert dls.vocab == ['a "x", b', "b\nc", "emu"]
    repr(dls.summary()).encode()


@pytest.mark.parametrize("between", [";", "\t", "|"])
def test_what_is_between_columns_is_found_out_and_said(between: str, root: Path) -> None:
    content = _rows(between=between, emu="emu, large")
    with pytest.warns(
        UserWarning, match="read with .* between its columns; pass delimiter="
    ) as told:
        dls = _read(root, content.replace(f"emu{between} large", "emu, large"))
    assert told[0].filename == __file__
    assert dls.vocab[:2] == ["cat", "dog"]
    assert dls.warnings == [str(told[0].message)]
    assert _read(root, _rows(between=between), delimiter=between).warnings == []
    with pytest.raises(ValueError, match=r"labels.csv has no column 1; it has \['file"):
        _read(root, _rows(between=between), delimiter=",")


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("latin-1", "caf\xe9", "café"),
        ("cp1252", "caf\xe9 \u20ac", "café €"),
        ("cp1250", "\u010dap", "èap"),
    ],
)
def test_another_encoding_is_refused_by_line_and_offered(encoding, text, shown, root: Path) -> None:
    content = _rows(dog=text).encode(encoding)
    message = (
        rf"labels.csv is not utf-8: line 6 has the byte 0x..; pass .*'cp1252' if '.*{shown}' is"
    )
    with pytest.raises(ValueError, match=message):
        _read(root, content)
    assert text in _read(root, content, encoding=encoding).vocab


@pytest.mark.parametrize("encoding", ["utf-99", 5, "base64", "ascii"])
def test_an_encoding_that_is_none_or_not_that_of_the_file_is_refused(encoding, root: Path) -> None:
    with pytest.raises(ValueError, match=r"encoding is|is not (utf|ascii)"):
        _read(root, _rows(dog="kočka") + "x", encoding=encoding)


OTHER = {
    "empty": (b"", r"labels.csv is empty \(0 bytes\)"),
    "blank": (b" \n\n", r"labels.csv is empty \(3 bytes\)"),
    "commas": (b",\n,\n", "labels.csv holds nothing; it needs a header line and a row"),
    "header only": (
        b"file,label\n",
        r"labels.csv has a header line, \['file', 'label'\], and no rows",
    ),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "labels.csv is a Git LFS pointer"),
    "page": (b"<!doctype html><title>404", r"labels.csv is a web page \(HTML\)"),
    "workbook": (b"PK\x03\x04" + bytes(99), "labels.csv is a zip file or workbook; .* as CSV"),
    "gzip": (gzip.compress(b"file,label\n"), r"labels.csv is compressed \(gzip\); unpack it"),
    "parquet": (b"PAR1" + bytes(99), "labels.csv is a Parquet file; save it as CSV"),
    "UTF-16 without its mark": (_rows().encode("utf-16-le"), "NUL bytes; .*encoding='utf-16-le'"),
    "no header": (
        _rows().split("\n", 1)[1].encode(),
        "no header line: .* names the picture 'cat/0.p",
    ),
    "ragged": (
        _rows(emu="a,b").encode(),
        r"4 rows have not 2 columns .*\(line 10 has 3, line 11 has",
    ),
    "short row": ((_rows() + "x.png\n").encode(), r"1 rows have not 2 columns .*\(line 14 has 1\)"),
    "ragged below line breaks": (_rows(cat='"a\nb"', emu="a,b").encode(), r"\(line 14 has 3"),
    "ragged below Excel's line": (
        ("sep=,\r\n" + _rows(emu="a,b", end="\r\n")).encode(),
        r"4 rows have not 2 columns .*\(line 11 has 3",
    ),
    "open quote": (
        _rows(emu='"emu').encode(),
        "row that begins in line 10 cannot be read .* quote",
    ),
    "text behind quote": (_rows(dog='"dog" x').encode(), "begins in line 6 cannot be read"),
    "no label": (
        _rows(dog="").encode(),
        r"4 of 12 rows have no label \(line 6, line 7, line 8, line",
    ),
    "blank label": (_rows(emu="  ").encode(), r"4 of 12 rows have no label \(line 10"),
    "no file": ((_rows() + ",cat\n").encode(), r"1 of 13 rows have no file \(line 14\)"),
    "headings twice": (
        _rows(header="file,file").encode(),
        "labels.csv has 2 columns 'file'; give the",
    ),
}


@pytest.mark.parametrize(("content", "message"), OTHER.values(), ids=OTHER)
def test_what_is_no_table_of_labels_is_refused_by_name(content, message: str, root: Path) -> None:
    columns = {"fn_col": "file"} if "twice" in message or "2 columns 'f" in message else {}
    with pytest.raises(ValueError, match=message) as told:
        _read(root, content, **columns)
    assert "labels.csv" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_first_line_without_suffix_is_no_header_where_the_picture_is_there(root: Path) -> None:
    content = _rows().replace(".png", "").split("\n", 1)[1]
    with pytest.raises(ValueError, match=r"has no header line: .* the picture 'cat/0'"):
        _read(root, content, suff=".png")


@pytest.mark.parametrize("column", [2, -1, "labels", True, None, 1.5, ["label"], " label"])
def test_a_column_that_is_not_there_is_refused(column, root: Path) -> None:
    with pytest.raises(
        ValueError, match=r"labels.csv has no column .*; it has \['file', 'label'\]"
    ):
        _read(root, _rows(), label_col=column)


@pytest.mark.parametrize("delimiter", ["", ", ", 5, '"', "\n"])
def test_a_delimiter_of_another_kind_is_refused(delimiter, root: Path) -> None:
    with pytest.raises(ValueError, match=r"delimiter is .*; it must be one character"):
        _read(root, _rows(), delimiter=delimiter)


def test_a_table_that_is_not_there_names_those_that_are(root: Path) -> None:
    (root / "train.csv").write_text(_rows())
    (root / "note.csv").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"labels.csv is not there; its folder has note.csv, t"
    ):
        ImageDataLoaders.from_csv(root)
    with pytest.raises(FileNotFoundError, match=r"nor is the folder .*gone"):
        ImageDataLoaders.from_csv(root / "gone")
    with pytest.raises(ValueError, match=r"note.csv cannot be read \(Is a directory\)"):
        ImageDataLoaders.from_csv(root, "note.csv")


def _split(root: Path, marks: list) -> ImageDataLoaders:
    table = pd.DataFrame({"file": [f"{n}.png" for n in NAMES], "label": [n[:3] for n in NAMES]})
    table["split"] = marks
    table.to_csv(root / "labels.csv", index=False)
    return ImageDataLoaders.from_csv(root, valid_col="split", size=8)


MARKS = {
    "floats": [1.0, 0.0, 0.0, 0.0],
    "words": ["valid", "train", "train", "train"],
    "other words": ["Validation", "Train", "training", "train"],
    "truth values": [True, False, False, False],
    "yes and no": ["y", "no", "N", "No"],
    "marks alone": ["1", "", "", ""],
}


@pytest.mark.parametrize("marks", MARKS.values(), ids=MARKS)
def test_a_column_says_what_is_held_out(marks: list, root: Path) -> None:
    held_out = _split(root, marks * 3).valid.dataset
    assert [held_out.path(i).name for i in range(len(held_out))] == ["0.png"] * 3


@pytest.mark.parametrize("mark", ["test", "0.7", "maybe", "2", None])
def test_a_word_that_says_neither_is_refused_by_line(mark, root: Path) -> None:
    with pytest.raises(ValueError, match=r"split in line 4 of labels.csv is .*neither held out"):
        _split(root, ["1", "0", mark, "0"] * 3)


@pytest.mark.parametrize(
    ("labels", "vocab"),
    [
        ({"cat": "10", "dog": "9", "emu": "2"}, ["2", "9", "10"]),
        ({"cat": "-1", "dog": "+3", "emu": "0"}, ["-1", "0", "+3"]),
        ({"cat": "10.0", "dog": "9.0", "emu": "2.0"}, ["2.0", "9.0", "10.0"]),
        ({"cat": "10", "dog": "9", "emu": "x"}, ["10", "9", "x"]),
        ({"cat": "0.5", "dog": "10", "emu": "2"}, ["0.5", "10", "2"]),
    ],
)
def test_classes_are_in_the_order_of_their_numbers_if_all_are(labels, vocab, root: Path) -> None:
    assert _read(root, _rows(**labels)).vocab == vocab


DOUBTFUL = {
    "case": ({"cat": "Dog"}, "1 class names differ only in case, .*: 'Dog' and 'dog'"),
    "blanks": ({"cat": "dog "}, "1 class names differ only in case, blanks.*: 'dog' and 'dog '"),
    "inner blanks": ({"cat": "a  b", "dog": "a b"}, "differ only in case, blanks"),
    "Unicode form": (
        {"cat": unicodedata.normalize("NFC", "é"), "dog": unicodedata.normalize("NFD", "é")},
        "differ only in case, blanks, Unicode form",
    ),
    "numbers": (
        {"cat": "1", "dog": "1.0", "emu": "2"},
        "way that a number is written: '1' and '1.0'",
    ),
    "gap of pandas": ({"cat": "nan"}, "classes are called nan, as gaps in tables are"),
    "gap of R": ({"cat": "NA"}, "classes are called NA, as gaps"),
    "gap of Python": ({"dog": "None"}, "classes are called None, as gaps"),
    "blanks at the end": ({"cat": " cat"}, "1 class names have blanks at their ends"),
    "control characters": ({"cat": "a\x1b[1m"}, r"1 class names have .*'a\\x1b"),
    "one class": (
        {"cat": "a", "dog": "a", "emu": "a"},
        "there is one class only, a: nothing is told",
    ),
}


@pytest.mark.parametrize(("labels", "message"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_doubtful_class_names_are_warned_of_and_stay(labels, message: str, root: Path) -> None:
    with pytest.warns(UserWarning, match=message) as told:
        dls = _read(root, _rows(**labels))
    assert set(labels.values()) <= set(dls.vocab)
    assert _n(dls) == 12
    assert dls.warnings == [str(w.message) for w in told]
    assert all("warning: " + text in repr(dls.summary()) for text in dls.warnings)


def test_names_that_pandas_writes_are_read_back(root: Path) -> None:
    names = ["a\rb", 'a "b"', "\u05e2\u05d1", "x" * 400]
    table = pd.DataFrame({"file": [f"{n}.png" for n in NAMES], "label": names * 3})
    table.to_csv(root / "labels.csv", index=False, quoting=csv.QUOTE_ALL)
    with pytest.warns(UserWarning, match="1 class names have"):
        dls = ImageDataLoaders.from_csv(root, size=8)
    assert set(dls.vocab) == set(names)
