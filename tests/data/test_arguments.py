"""Sequences, labels and options as users give them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, random_split
from torchvision.datasets import ImageFolder

from nbfinetune import ImageDataLoaders

CLASSES = ("cat", "dog", "emu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 6 pictures, no two of them the same."""
    root = tmp_path_factory.mktemp("animals")
    for k, name in enumerate(CLASSES):
        (root / name).mkdir()
        for i in range(6):
            Image.new("RGB", (10, 8), (k, i, 0)).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.png"))


def _wrong(dls: ImageDataLoaders) -> list[Path]:
    """The files whose class is not their folder's."""
    sides = dls.train.dataset, dls.valid.dataset
    pairs = [(d.path(i), dls.vocab[t]) for d in sides for i, t in enumerate(d.targets)]
    assert len(pairs) == 18
    return [file for file, name in pairs if file.parent.name != name]


def _shuffled(values: list) -> pd.Series:
    """A column whose index is not the position."""
    return pd.Series(values, index=[(7 * i) % len(values) for i in range(len(values))])


WAYS = {
    "series of a filtered table": lambda values: pd.Series(["x", *values]).iloc[1:],
    "series of another order": _shuffled,
    "series with names as index": lambda values: pd.Series(
        values, index=list("abcdefghijklmnopqr")
    ),
    "pandas index": pd.Index,
    "categories": lambda values: pd.Series(values, dtype="category"),
    "pandas array": lambda values: pd.array(values),
    "numpy array": np.array,
    "numpy objects": lambda values: np.array(values, dtype=object),
    "tuple": tuple,
    "generator": lambda values: (value for value in values),
    "map": lambda values: map(str, values),
    "values of a dictionary": lambda values: dict(enumerate(values)).values(),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_sequences_are_taken_by_position_whatever_they_are(way: Callable, root, files) -> None:
    names = way([str(f) for f in files])
    dls = ImageDataLoaders.from_lists(root, names, way([f.parent.name for f in files]), size=8)
    assert dls.vocab == list(CLASSES)
    assert _wrong(dls) == []


@pytest.mark.parametrize("way", [*WAYS.values(), torch.tensor], ids=[*WAYS, "tensor"])
def test_what_is_held_out_is_taken_by_position(way: Callable, root, files) -> None:
    marks = [i % 3 == 0 for i in range(18)]
    labels = [f.parent.name for f in files]
    dls = ImageDataLoaders.from_lists(root, files, labels, is_valid=way(marks), size=8)
    held_out = dls.valid.dataset
    assert [held_out.path(i) for i in range(len(held_out))] == files[::3]


NUMBERS = {
    "tensor": torch.tensor,
    "numpy": np.array,
    "tensors": lambda numbers: [torch.tensor(n) for n in numbers],
    "numpy scalars": lambda numbers: [np.uint8(n) for n in numbers],
    "floats of a column with gaps": lambda numbers: pd.Series(numbers, dtype=float),
    "range": lambda numbers: (n for n in numbers),
}


@pytest.mark.parametrize("way", NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_any_kind_are_classes_of_their_value(way: Callable, root, files) -> None:
    numbers = [8 + CLASSES.index(f.parent.name) for f in files]
    dls = ImageDataLoaders.from_lists(root, files, way(numbers), size=8)
    assert dls.vocab == ["8", "9", "10"]
    for dataset in (dls.train.dataset, dls.valid.dataset):
        for i, t in enumerate(dataset.targets):
            assert dataset.path(i).parent.name == CLASSES[t]


NO_SEQUENCES = {
    "set": (set, "labels is a set; give a list, in the files' order"),
    "dictionary": (lambda labels: dict(enumerate(labels)), "labels is a dict; give a list"),
    "text": (lambda labels: "cat", "labels is a str; give a list"),
    "number": (lambda labels: 3, "labels is a int; give a list, one for each picture"),
    "one-hot": (lambda labels: torch.eye(18), r"labels has the shape \(18, 18\); it must have one"),
    "table": (lambda labels: pd.DataFrame({"a": labels}), r"labels has the shape \(18, 1\)"),
    "scalar": (lambda labels: torch.tensor(1), r"labels has the shape \(\)"),
    "too few": (lambda labels: iter(labels[1:]), "18 files but 17 labels; give one for each"),
}


@pytest.mark.parametrize(("make", "message"), NO_SEQUENCES.values(), ids=NO_SEQUENCES)
def test_what_has_no_order_is_refused(make: Callable, message: str, root, files) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDataLoaders.from_lists(root, files, make([f.parent.name for f in files]), size=8)


NO_LABELS = {
    "None": None,
    "NaN": float("nan"),
    "numpy NaN": np.float32("nan"),
    "NA": pd.NA,
    "NaT": pd.NaT,
    "empty": "",
    "blank": " \t",
    "no-break space": "\xa0",
}


@pytest.mark.parametrize("value", NO_LABELS.values(), ids=NO_LABELS)
def test_pictures_without_a_label_are_refused_by_name(value, root, files) -> None:
    labels = [f.parent.name for f in files]
    labels[7] = value
    with pytest.raises(
        ValueError, match=r"1 of 18 pictures have no label: .* for .*dog/1.png; giv"
    ):
        ImageDataLoaders.from_lists(root, files, labels, size=8)


def test_gaps_in_a_masked_array_are_no_label(root, files) -> None:
    labels = np.ma.array([1, 2, 3] * 6, mask=[True] + [False] * 17)
    with pytest.raises(ValueError, match="1 of 18 pictures have no label: None for"):
        ImageDataLoaders.from_lists(root, files, labels, size=8)


ODD_LABELS = {
    "fraction": (3.7, "3.7 for"),
    "infinity": (float("inf"), "inf for"),
    "bytes": (b"cat", "b'cat' for"),
    "vector": ([0, 1], r"\[0, 1\] for"),
    "path": (Path("cat"), "Path.'cat'. for"),
}


@pytest.mark.parametrize(("value", "message"), ODD_LABELS.values(), ids=ODD_LABELS)
def test_labels_that_are_no_names_and_no_whole_numbers_are_refused(
    value, message: str, root, files
) -> None:
    labels = [1, 2] * 9
    labels[4] = value
    with pytest.raises(ValueError, match=rf"1 labels are neither names nor whole.*{message}"):
        ImageDataLoaders.from_lists(root, files, labels, size=8)


@pytest.mark.parametrize("pair", [(1, "1"), (1.0, "1"), (True, "True"), (np.int64(3), "3")])
def test_numbers_beside_texts_of_the_same_name_are_refused(pair, root, files) -> None:
    with pytest.raises(
        ValueError, match="labels that are numbers have the names of labels that ar"
    ):
        ImageDataLoaders.from_lists(root, files, pair * 9, size=8)


@pytest.mark.parametrize(
    ("marks", "chosen"),
    [
        ([1.0, 0.0], 0),
        (["False", "True"], 1),
        (["train", "val"], 1),
        (["Yes", "no"], 0),
        (["", "1"], 1),
        (np.array([0, 1]), 1),
    ],
)
def test_words_and_numbers_say_what_is_held_out(marks, chosen: int, root, files) -> None:
    labels = [f.parent.name for f in files]
    dls = ImageDataLoaders.from_lists(root, files, labels, is_valid=list(marks) * 9, size=8)
    held_out = dls.valid.dataset
    assert [held_out.path(i) for i in range(len(held_out))] == files[chosen::2]


@pytest.mark.parametrize("mark", [0.7, None, float("nan"), 2, "test", "maybe", pd.NA, ""])
def test_other_values_of_what_is_held_out_are_refused(mark, root, files) -> None:
    labels = [f.parent.name for f in files]
    with pytest.raises(ValueError, match=r"is_valid\[2\] is .* is neither held out \(True, 1, yes"):
        ImageDataLoaders.from_lists(root, files, labels, is_valid=[1, 0, mark] * 6, size=8)


@pytest.mark.parametrize("name", [None, 3, "", float("nan"), ["a.png"]])
def test_what_is_no_file_name_is_refused(name, root, files) -> None:
    with pytest.raises(ValueError, match=r"fnames\[1\] is .*; it must be the name of a file"):
        ImageDataLoaders.from_lists(root, [files[0], name], ["a", "b"], size=8)


def test_file_names_may_be_bytes_and_odd_ones_are_named_escaped(root, files) -> None:
    labels = [f.parent.name for f in files]
    dls = ImageDataLoaders.from_lists(root, [str(f).encode() for f in files], labels, size=8)
    assert _wrong(dls) == []
    for name, shown in (("a\0b", r"a\\x00b"), ("x" * 300, "xxx"), ("caf\udce9", r"caf\\udce9")):
        with pytest.raises(ValueError, match=f"1 of 19 pictures cannot be read: .*{shown}") as told:
            ImageDataLoaders.from_lists(root, [*files, name], [*labels, "cat"], size=8)
        str(told.value).encode()


OPTIONS = {
    "valid_pct": (True, False, "0.2", None, float("nan"), [0.2], 20),
    "seed": (None, "a", 1.5, True),
    "size": (True, "224", 224.0, (224, 224), None, -1, 10**9),
    "bs": (True, "64", 0, None, [64]),
    "num_workers": (True, -1, "2", 0.5),
    "on_bad": (None, True, ["skip"], np.array(["skip"])),
    "corrections": (5, True, b"c.csv", [], float("nan")),
}


@pytest.mark.parametrize(
    ("option", "value"), [(name, value) for name, values in OPTIONS.items() for value in values]
)
def test_options_of_another_kind_are_refused(option: str, value, root: Path) -> None:
    with pytest.raises(ValueError, match=f"{option} is .*; it must "):
        ImageDataLoaders.from_folder(root, **({"size": 8} | {option: value}))


def test_whole_numbers_of_numpy_are_numbers(root: Path) -> None:
    dls = ImageDataLoaders.from_folder(
        root, size=torch.tensor(8), bs=np.uint8(5), seed=np.int32(1), valid_pct=np.float32(0.5)
    )
    assert (dls.size, dls.bs, type(dls.bs)) == (8, 5, int)


@pytest.mark.parametrize("path", [None, 3, "", b"photos", "~nobody-of-this-name/x"])
def test_what_is_no_path_is_refused(path) -> None:
    with pytest.raises(ValueError, match="path is "):
        ImageDataLoaders.from_folder(path)


UNKNOWN = {
    "folder": (lambda root, data: ImageDataLoaders.from_folder(root, val="v"), "val", "valid"),
    "csv": (
        lambda root, data: ImageDataLoaders.from_csv(root, lable_col=1),
        "lable_col",
        "label_col",
    ),
    "lists": (lambda root, data: ImageDataLoaders.from_lists(root, [], [], sed=1), "sed", "seed"),
    "names": (
        lambda root, data: ImageDataLoaders.from_name_re(root, None, "", sizes=1),
        "sizes",
        "size",
    ),
    "data sets": (
        lambda root, data: ImageDataLoaders.from_datasets(data, data, batch_size=1),
        "batch_size",
        "bs",
    ),
}


@pytest.mark.parametrize(("call", "given", "meant"), UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_options_name_the_nearest_and_the_list(call, given, meant, root: Path) -> None:
    message = rf"has no option '{given}'; did you mean {meant}\? it has .*size, "
    with pytest.raises(TypeError, match=message):
        call(root, [])
    with pytest.raises(TypeError, match="has no option 'zzz'; it has path, fnames, labels, "):
        ImageDataLoaders.from_lists(root, [], [], zzz=1)


def _picture() -> Image.Image:
    return Image.new("RGB", (8, 8))


NO_ITEMS = {
    "dictionary": ({"image": 1, "label": 2}, "item 0 is a dict with the keys image, label; items"),
    "picture alone": (_picture(), "item 0 is a Image; items must be"),
    "triple": ((_picture(), 1, 2), "item 0 is a tuple of 3; items"),
    "no label": ((_picture(), None), "item 0 has the label None, which is no class index"),
    "text label": ((_picture(), "cat"), "item 0 has the label 'cat', which is no class index"),
    "unlabelled": ((_picture(), -1), "item 0 has the label -1, which is no class index"),
    "fraction": ((_picture(), 3.7), "item 0 has the label 3.7"),
    "one-hot": ((_picture(), torch.eye(3)[1]), r"item 0 has the label of shape \(3,\)"),
    "one-hot of numpy": ((_picture(), np.eye(2)[0]), r"item 0 has the label of shape \(2,\)"),
    "turned around": ((1, _picture()), "item 0 "),
}


@pytest.mark.parametrize("on_bad", ["error", "skip"])
@pytest.mark.parametrize(("item", "message"), NO_ITEMS.values(), ids=NO_ITEMS)
def test_items_that_are_no_pairs_are_refused_by_number(item, message: str, on_bad: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDataLoaders.from_datasets([item] * 3, [item] * 3, size=8, on_bad=on_bad)


@pytest.mark.parametrize(
    "label", [1, 1.0, np.int64(1), torch.tensor(1), True, np.array([1]), torch.tensor([1])]
)
def test_class_indices_may_be_of_any_whole_number(label) -> None:
    data = [(_picture(), 0), (_picture(), label)]
    dls = ImageDataLoaders.from_datasets(data, data, size=8)
    assert dls.train.dataset.targets == [0, 1]


NO_DATA_SETS = {
    "loader": (
        lambda data: DataLoader(data),
        "train is a DataLoader; give its data set, train.dat",
    ),
    "generator": (iter, "train is a list_iterator, which has no items by number"),
    "None": (lambda data: None, "train is a NoneType, which has no items by number"),
    "folder": (lambda data: "photos", "train is a str, which has no items by number"),
    "dictionary": (lambda data: {"train": data}, "train is a dict"),
    "empty": (lambda data: [], "train is empty; give a data set with pictures"),
}


@pytest.mark.parametrize(("make", "message"), NO_DATA_SETS.values(), ids=NO_DATA_SETS)
def test_what_is_no_data_set_is_refused(make: Callable, message: str) -> None:
    data = [(_picture(), 0)]
    with pytest.raises(ValueError, match=message):
        ImageDataLoaders.from_datasets(make(data), data, size=8)


def _parts(data: ImageFolder) -> list:
    return random_split(data, [12, 6], generator=torch.Generator().manual_seed(0))


PARTS = {
    "random split": _parts,
    "subset of a subset": lambda data: [Subset(part, range(len(part))) for part in _parts(data)],
    "joined": lambda data: [ConcatDataset([part, part]) for part in _parts(data)],
    "indices of numpy": lambda data: [
        Subset(data, np.arange(0, 18, 2)),
        Subset(data, np.arange(1, 18, 2)),
    ],
    "joined whole ones": lambda data: [ConcatDataset([data, data]), data],
}


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_parts_and_rows_of_data_sets_keep_class_names_and_files(make: Callable, root) -> None:
    dls = ImageDataLoaders.from_datasets(*make(ImageFolder(root)), size=8)
    assert dls.vocab == list(CLASSES)
    for dataset in (dls.train.dataset, dls.valid.dataset):
        for i, t in enumerate(dataset.targets):
            assert dataset.path(i).parent.name == dls.vocab[t]


class _Wrapped(Dataset):
    """What users write to change the pictures of a part."""

    def __init__(self, subset: Dataset) -> None:
        self.subset = subset

    def __len__(self) -> int:
        return len(self.subset)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        picture, label = self.subset[i]
        return picture.rotate(180), label


def test_class_names_of_a_data_set_inside_another_are_used_and_that_is_said(root: Path) -> None:
    parts = [_Wrapped(part) for part in _parts(ImageFolder(root))]
    with pytest.warns(UserWarning, match="class names are those of the data sets inside these: ca"):
        dls = ImageDataLoaders.from_datasets(*parts, size=8)
    assert dls.vocab == list(CLASSES)


def test_the_data_set_inside_is_found_whatever_it_is_called(root: Path) -> None:
    class Other(_Wrapped):
        def __init__(self, ds: Dataset) -> None:
            self.ds = ds

        subset = property(lambda self: self.ds)

    with pytest.warns(UserWarning, match="class names are those of the data sets inside these: ca"):
        dls = ImageDataLoaders.from_datasets(*map(Other, _parts(ImageFolder(root))), size=8)
    assert dls.vocab == list(CLASSES)


def test_class_names_are_not_those_of_classes_where_targets_are_changed(root: Path) -> None:
    data = ImageFolder(root, target_transform=lambda t: 2 - t)
    with pytest.warns(UserWarning, match="has a target_transform, so its class names are not used"):
        dls = ImageDataLoaders.from_datasets(*_parts(data), size=8)
    assert dls.vocab == ["0", "1", "2"]
    backwards = list(CLASSES)[::-1]
    assert ImageDataLoaders.from_datasets(*_parts(data), vocab=backwards, size=8).vocab == backwards


def test_class_names_are_told_apart_and_not_empty(root: Path) -> None:
    data = ImageFolder(root)
    make = ImageDataLoaders.from_datasets
    with pytest.raises(ValueError, match="vocab has twice: a; each class needs a name of its own"):
        make(data, data, vocab=["a", "a", "b"], size=8)
    with pytest.raises(ValueError, match=r"vocab\[1\] is nan; give it a name"):
        make(data, data, vocab=pd.Series(["a", np.nan, "b"]), size=8)
    with pytest.raises(ValueError, match="vocab is a set"):
        make(data, data, vocab={"a", "b", "c"}, size=8)
    with pytest.raises(ValueError, match="vocab has twice: 1"):
        make(data, data, vocab=[1, "1", 2], size=8)
    vocab = pd.Series(["x", "y", "z"], index=[2, 1, 0])
    assert make(data, data, vocab=vocab, size=8).vocab == ["x", "y", "z"]


def test_classes_that_are_an_array_or_tuples_of_names_are_names(root: Path) -> None:
    data = ImageFolder(root)
    data.classes = np.array(CLASSES)
    assert ImageDataLoaders.from_datasets(data, data, size=8).vocab == list(CLASSES)
    data.classes = [("tench", "Tinca tinca"), ("cock",), ("hen",)]  # ImageNet's
    assert ImageDataLoaders.from_datasets(data, data, size=8).vocab[0] == "tench, Tinca tinca"
    data.classes = 3
    assert ImageDataLoaders.from_datasets(data, data, size=8).vocab == ["0", "1", "2"]
