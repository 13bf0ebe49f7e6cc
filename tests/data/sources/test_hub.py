"""Data sets of Hugging Face: columns by feature, splits, labels of several kinds, memory."""

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_from_disk
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, random_split
from torchvision.datasets import ImageFolder

from nbfinetune import ImageDataLoaders, Learner
from nbfinetune.data.sources.hub import HubItems

CLASSES = ["emu", "cat", "dog"]  # not in the order of the alphabet
TARGETS = [0, 1, 2] * 4
MAKE = ImageDataLoaders.from_datasets


def _png(i: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (10, 8), (TARGETS[i] * 80, i, 0)).save(out, "PNG")
    return out.getvalue()


PICTURES = [{"bytes": _png(i), "path": None} for i in range(12)]
IMAGE, LABEL = datasets.Image(), ClassLabel(names=CLASSES)


def _dataset(label: object = LABEL, labels: list | None = None, **more: tuple) -> Dataset:
    columns = {"image": PICTURES, "label": TARGETS if labels is None else labels}
    features = {"image": IMAGE, "label": label}
    columns |= {name: values for name, (_, values) in more.items()}
    features |= {name: feature for name, (feature, _) in more.items()}
    return Dataset.from_dict(columns, features=Features(features))


def _classes_seen(dls: ImageDataLoaders) -> set[tuple[int, str]]:
    """The class names with the red of their pictures."""
    sides = dls.train.dataset, dls.valid.dataset
    return {(d.image(i).getpixel((0, 0))[0], dls.vocab[t])
            for d in sides for i, t in enumerate(d.targets)}  # fmt: skip


RIGHT = {(0, "emu"), (80, "cat"), (160, "dog")}


def _two(data: Dataset) -> list[Dataset]:
    return [data.select(range(9)), data.select(range(9, 12))]


WAYS = {
    "splits": _two,
    "one, split here": lambda data: [data],
    "splits of the library": lambda data: [*data.train_test_split(0.25, seed=2).values()],
    "random split": lambda data: random_split(data, [9, 3], torch.Generator().manual_seed(0)),
    "subsets of subsets": lambda data: [Subset(Subset(data, range(12)), n) for n in _NUMBERS],
    "joined": lambda data: [ConcatDataset([*_two(data)[:1], data.select([9])]), data.select([10])],
    "joined in a subset": lambda data: [Subset(ConcatDataset(_two(data)), n) for n in _NUMBERS],
    "joined by the library": lambda data: [datasets.concatenate_datasets(_two(data))],
    "shuffled": lambda data: _two(data.shuffle(seed=3)),
    "tensors": lambda data: _two(data.with_format("torch")),
    "arrays": lambda data: _two(data.with_format("numpy")),
}
_NUMBERS = [np.arange(9), list(range(9, 12))]


@pytest.mark.filterwarnings("error:.*transform:UserWarning")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_class_names_and_pictures_are_those_of_the_features(way) -> None:
    dls = MAKE(*way(_dataset()), size=8)
    assert dls.vocab == CLASSES
    assert _classes_seen(dls) <= RIGHT
    assert set(_classes_seen(dls)) == RIGHT


def test_a_split_of_one_data_set_has_a_share_of_each_class_and_follows_the_seed() -> None:
    first, again, other = (MAKE(_dataset(), valid_pct=0.5, seed=s, size=8) for s in (1, 1, 2))
    assert sorted(first.valid.dataset.targets) == [0, 0, 1, 1, 2, 2]
    reds = [[d.valid.dataset.image(i).getpixel((0, 0)) for i in range(6)]
            for d in (first, again, other)]  # fmt: skip
    assert reds[0] == reds[1] != reds[2]
    with pytest.raises(ValueError, match="valid_pct is given, but so is valid"):
        MAKE(*_two(_dataset()), valid_pct=0.2)
    with pytest.raises(ValueError, match="seed is given, but so is valid"):
        MAKE(*_two(_dataset()), seed=2)
    with pytest.raises(ValueError, match="valid_pct is 2; it must lie between 0 and 1"):
        MAKE(_dataset(), valid_pct=2)


def test_labels_may_be_texts_or_numbers_of_a_column() -> None:
    texts = [CLASSES[t] for t in TARGETS]
    dls = MAKE(*_two(_dataset(Value("string"), texts)), size=8)
    assert dls.vocab == ["cat", "dog", "emu"]
    assert _classes_seen(dls) == RIGHT
    given = MAKE(*_two(_dataset(Value("string"), texts)), vocab=CLASSES, size=8)
    assert (given.vocab, _classes_seen(given)) == (CLASSES, RIGHT)
    numbers = MAKE(*_two(_dataset(Value("int64"), [5 * t for t in TARGETS])), size=8)
    assert numbers.vocab == ["0", "5", "10"]
    assert _classes_seen(numbers) == {(0, "0"), (80, "5"), (160, "10")}
    truth = MAKE(*_two(_dataset(Value("bool"), [t == 0 for t in TARGETS])), size=8)
    assert truth.vocab == ["False", "True"]
    with pytest.raises(ValueError, match=r"train has labels that are no class: emu; the classes"):
        MAKE(*_two(_dataset(Value("string"), texts)), vocab=["cat", "dog"], size=8)


def test_texts_of_one_part_are_looked_up_among_the_names_of_the_other() -> None:
    texts = [CLASSES[t] for t in TARGETS]
    train, valid = _dataset().select(range(9)), _dataset(Value("string"), texts)
    dls = MAKE(train, valid.select(range(9, 12)), size=8)
    assert (dls.vocab, _classes_seen(dls)) == (CLASSES, RIGHT)


def test_columns_are_chosen_by_name_where_several_could_be_meant() -> None:
    more = {"coarse": (ClassLabel(names=["animal"]), [0] * 12), "mask": (IMAGE, PICTURES)}
    data = _dataset(**more)
    with pytest.raises(ValueError, match=r"2 columns of pictures, image, mask; say .*image_col='"):
        MAKE(data, size=8)
    with pytest.raises(ValueError, match="2 columns that may be the label, label, coarse; say"):
        MAKE(data, image_col="image", size=8)
    dls = MAKE(data, image_col="image", label_col="label", size=8)
    assert (dls.vocab, _classes_seen(dls)) == (CLASSES, RIGHT)
    ids = _dataset(Value("string"), ["a", "b"] * 6, id=(Value("int32"), list(range(12))))
    with pytest.raises(ValueError, match="may be the label, label, id; say which: label_col='l"):
        MAKE(ids, size=8)


def _no_pictures() -> Dataset:
    return Dataset.from_dict({"file": ["a.png"] * 3, "n": [[1.0]] * 3})


REFUSED = {
    "all its splits": (
        lambda: [DatasetDict(train=_dataset(), test=_dataset(), validation=_dataset())],
        r"train is a DatasetDict of 'train' \(12\), 'test' \(12\), 'validation' \(12\); give its "
        r"parts: from_datasets\(ds\['train'\], ds\['validation'\]\)",
    ),
    "train and test alone": (
        lambda: [DatasetDict(test=_dataset(), train=_dataset())],
        r"from_datasets\(ds\['train'\], ds\['test'\]\)",
    ),
    "streaming": (
        lambda: [_dataset().to_iterable_dataset()],
        "train is a IterableDataset, .*; load it without streaming=True",
    ),
    "no pictures": (
        lambda: [_no_pictures()],
        r"train has no column of pictures, .*file: strings.*train.cast_column\('file', datasets.I",
    ),
    "no labels": (
        lambda: [_dataset().remove_columns("label")],
        "train has no column of labels; it has image: Image",
    ),
    "several labels an item": (
        lambda: [_dataset(datasets.Sequence(LABEL), [[t] for t in TARGETS])],
        "train has no column of labels",
    ),
    "unlabelled": (
        lambda: [_dataset(labels=[-1, *TARGETS[1:]])],
        r"train: 1 of 12 items have no label \(items 0\); leave them out: train.filter\(.*>= 0",
    ),
    "missing": (
        lambda: [_dataset(labels=[*TARGETS[:11], None])],
        r"1 of 12 items have no label \(items 11\)",
    ),
    "missing text": (
        lambda: [_dataset(Value("string"), ["a", None, " ", *"abcabcabc"])],
        r"2 of 12 items have no label \(items 1, 2\); .*is not None",
    ),
    "other classes": (
        lambda: [_dataset(), _dataset(ClassLabel(names=["ape", "cat", "dog"]))],
        "train has the classes emu, cat, dog but valid has ape, cat, dog; not in both: emu, ape",
    ),
    "other order": (
        lambda: [_dataset(), _dataset(ClassLabel(names=sorted(CLASSES)))],
        "in another order: class k is not the same in both",
    ),
    "empty": (lambda: [_dataset().select([])], "train is empty"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_says_what_to_type(make, message: str) -> None:
    with pytest.raises(ValueError, match=message) as told:
        MAKE(*make(), size=8)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_col": "x"}, r"train has no column 'x' \(image_col\); it has image, label"),
        ({"label_col": "x"}, r"train has no column 'x' \(label_col\)"),
        ({"image_col": "label"}, r"train\['label'\] is ClassLabel; of files, train.cast_column"),
        ({"label_col": "image"}, r"train\['image'\] is Image, no label"),
    ],
)
def test_a_column_of_another_kind_is_refused(columns: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAKE(_dataset(), size=8, **columns)


def test_columns_are_for_data_sets_that_have_some() -> None:
    data = [(Image.new("RGB", (8, 8)), 0)]
    with pytest.raises(ValueError, match="label_col are of data sets of Hugging Face; leave them"):
        MAKE(data, data, label_col="y", size=8)


def test_a_transform_of_its_own_is_not_used_and_that_is_said() -> None:
    data = _dataset().with_transform(lambda rows: {"pixel_values": [0] * len(rows["image"])})
    with pytest.warns(UserWarning, match="train has a transform of its own, which is not used: gi"):
        dls = MAKE(data, size=8)
    assert _classes_seen(dls) == RIGHT


def test_files_behind_a_column_are_known_and_bad_ones_named(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(_png(i))
    files = [str(tmp_path / f"{i}.png") for i in range(12)]
    data = Dataset.from_dict({"image": files, "label": TARGETS}).cast_column("image", IMAGE)
    dls = MAKE(data.cast_column("label", LABEL), size=8)
    sides = dls.train.dataset, dls.valid.dataset
    assert sorted(str(d.path(i)) for d in sides for i in range(len(d))) == sorted(files)
    (tmp_path / "3.png").write_bytes(_png(3)[:60])
    with pytest.raises(ValueError, match=r"1 of 12 pictures cannot be read: item 3: "):
        MAKE(data, size=8)
    with pytest.warns(UserWarning, match="left out: 1 of 12 pictures cannot be read: item 3"):
        dls = MAKE(data, on_bad="skip", size=8)
    assert len(dls.train.dataset) + len(dls.valid.dataset) == 11


def test_pictures_stay_on_the_disk_and_none_is_decoded_before_it_is_asked_for(
    tmp_path: Path, monkeypatch
) -> None:
    bad = [{"bytes": b"no picture", "path": None}] * 12
    Dataset.from_dict(
        {"image": bad, "label": TARGETS}, features=Features({"image": IMAGE, "label": LABEL})
    ).save_to_disk(tmp_path / "set")
    data = load_from_disk(tmp_path / "set")
    monkeypatch.setattr(Image, "open", None)  # nobody may
    items = HubItems(data, "train", None, None, [])
    assert items.labels == TARGETS
    assert type(items._pictures.data).__name__ == "MemoryMappedTable"
    assert items[5] == (b"no picture", 2)


def test_the_same_pictures_on_both_sides_are_warned_of() -> None:
    data = _dataset()
    with pytest.warns(UserWarning, match=r"3 pictures are the same in train and in valid \(item"):
        MAKE(data, data.select(range(3)), size=8)


def test_it_goes_beside_a_folder_of_the_same_classes(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / CLASSES[TARGETS[i]]).mkdir(exist_ok=True)
        (tmp_path / CLASSES[TARGETS[i]] / f"{i}.png").write_bytes(_png(i))
    names = ClassLabel(names=sorted(CLASSES))
    data = _dataset(names, [sorted(CLASSES).index(CLASSES[t]) for t in TARGETS])
    with pytest.warns(UserWarning, match="the same in train and in valid"):
        dls = MAKE(data, ImageFolder(tmp_path), size=8)
    assert (dls.vocab, _classes_seen(dls)) == (sorted(CLASSES), RIGHT)


def test_a_vocab_in_another_order_than_the_features_is_refused() -> None:
    with pytest.raises(ValueError, match="class 0 is emu in the data but cat in vocab; the order"):
        MAKE(_dataset(), vocab=["cat", "dog", "emu"], size=8)
    assert MAKE(_dataset(), vocab=["Emu", "Katze", "Hund"], size=8).vocab[0] == "Emu"


def test_whole_numbers_are_indices_of_a_vocab_that_is_given() -> None:
    data = _dataset(Value("int64"))
    dls = MAKE(data, vocab=CLASSES, size=8)
    assert _classes_seen(dls) == RIGHT
    with pytest.raises(ValueError, match="train has labels that are no class: 2; the classes are"):
        MAKE(data, vocab=["emu", "cat"], size=8)
    assert MAKE(data, size=8).vocab == ["0", "1", "2"]


class _Around(torch.utils.data.Dataset):
    """What users write to use such a data set with torch."""

    def __init__(self, rows: Dataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return self.rows[i]["image"], self.rows[i]["label"]


def test_class_names_are_found_inside_a_data_set_of_the_users() -> None:
    with pytest.warns(UserWarning, match="class names are those of the data sets inside these"):
        dls = MAKE(_Around(_dataset()), size=8)
    assert _classes_seen(dls) == RIGHT


def test_loaders_of_rows_have_their_class_names() -> None:
    data = Dataset.from_dict(
        {"x": torch.randn(6, 4).tolist(), "label": [0, 1, 2] * 2},
        features=Features({"x": datasets.Sequence(Value("float32")), "label": LABEL}),
    ).with_format("torch")
    loader = torch.utils.data.DataLoader(data, 3)
    learn = Learner.from_loaders(torch.nn.Linear(4, 3), loader, loader)
    assert learn.vocab == CLASSES
    assert learn.get_preds("train")[1].tolist() == [0, 1, 2] * 2
