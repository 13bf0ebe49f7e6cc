"""Pictures to predict: what they may come as, their order, their labels, those that are bad."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder

from nbfinetune import ImageDataLoaders

CLASSES = ["cat", "dog", "emu"]
NAMES = [f"{name}/{i}.png" for name in CLASSES for i in range(4)]
ORDER = [7, 3, 11, 0, 5]  # of neither names nor classes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose red is their place in the sorted names, times 20."""
    root = tmp_path_factory.mktemp("animals")
    for k, name in enumerate(NAMES):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (10, 8), (20 * k, 0, 0)).save(root / name)
    return root


@pytest.fixture(scope="module")
def dls(root: Path) -> ImageDataLoaders:
    return ImageDataLoaders.from_folder(root, size=8, bs=2)


def _reds(loader: DataLoader) -> list[int]:
    """Which pictures a loader gives, in its order."""
    return [int(x) for batch, _ in loader for x in batch[:, 0, 0, 0] // 20]


def _pixels(root: Path, i: int) -> np.ndarray:
    return np.array(Image.open(root / NAMES[i]))


WAYS = {
    "paths": lambda root: [root / NAMES[i] for i in ORDER],
    "names": lambda root: [NAMES[i] for i in ORDER],
    "column": lambda root: pd.DataFrame({"file": NAMES}).file.iloc[ORDER],
    "index": lambda root: pd.Index([NAMES[i] for i in ORDER]),
    "array of names": lambda root: np.array(NAMES)[ORDER],
    "generator": lambda root: (NAMES[i] for i in ORDER),
    "pictures": lambda root: [Image.open(root / NAMES[i]) for i in ORDER],
    "bytes": lambda root: [(root / NAMES[i]).read_bytes() for i in ORDER],
    "arrays": lambda root: [_pixels(root, i) for i in ORDER],
    "one array": lambda root: np.stack([_pixels(root, i) for i in ORDER]),
    "one tensor": lambda root: torch.stack(
        [torch.from_numpy(_pixels(root, i)).permute(2, 0, 1) for i in ORDER]
    ),
    "all kinds": lambda root: [
        root / NAMES[7],
        Image.open(root / NAMES[3]),
        _pixels(root, 11),
        NAMES[0],
        (root / NAMES[5]).read_bytes(),
    ],
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_order_is_as_given_whatever_they_come_as(way, root: Path, dls) -> None:
    loader = dls.test_dl(way(root), path=root)
    assert _reds(loader) == ORDER
    assert not loader.dataset.labelled


def test_a_folder_gives_all_below_it_sorted_and_its_classes_if_asked(root: Path, dls) -> None:
    for folder in (root, str(root)):
        assert _reds(dls.test_dl(folder)) == list(range(12))
    loader = dls.test_dl(root.name, path=root.parent, with_labels=True)
    assert loader.dataset.targets == [i // 4 for i in range(12)]
    assert _reds(dls.test_dl(root / NAMES[5])) == [5]


def _hub(classes: list[str], labels: list[int] | None, root: Path) -> Dataset:
    columns = {"image": [str(root / NAMES[i]) for i in ORDER]}
    features = {"image": ImageFeature()}
    if labels is not None:
        columns, features = columns | {"y": labels}, features | {"y": ClassLabel(names=classes)}
    return Dataset.from_dict(columns, features=Features(features))


BACK = CLASSES[::-1]


def _numbers(classes: list[str]) -> list[int]:
    return [classes.index(NAMES[i][:3]) for i in ORDER]


LABELLED = {
    "Hugging Face": lambda root: _hub(CLASSES, _numbers(CLASSES), root),
    "of another order": lambda root: _hub(BACK, _numbers(BACK), root),
    "a part": lambda root: Subset(_hub(["x", *BACK], _numbers(["x", *BACK]), root), range(5)),
    "torchvision": lambda root: Subset(ImageFolder(root), ORDER),
    "arrays": lambda root: (np.stack([_pixels(root, i) for i in ORDER]), _numbers(CLASSES)),
    "named arrays": lambda root: (
        np.stack([_pixels(root, i) for i in ORDER]),
        [NAMES[i][:3] for i in ORDER],
    ),
    "pairs": lambda root: [(Image.open(root / NAMES[i]), i // 4) for i in ORDER],
}


@pytest.mark.parametrize("way", LABELLED.values(), ids=LABELLED)
def test_labels_of_data_sets_are_classes_of_the_vocab_by_name(way, root: Path, dls) -> None:
    for loader in (dls.test_dl(way(root)), dls.test_dl(way(root), with_labels=True)):
        assert _reds(loader) == ORDER
        assert loader.dataset.targets == [i // 4 for i in ORDER]
    loader = dls.test_dl(way(root), with_labels=False)
    assert (_reds(loader), loader.dataset.labelled) == (ORDER, False)


def test_a_data_set_of_pictures_alone_has_no_labels(root: Path, dls) -> None:
    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, i: int) -> Image.Image:
            return Image.open(root / NAMES[ORDER[i]])

    loader = dls.test_dl(Pictures())
    assert (_reds(loader), loader.dataset.labelled) == (ORDER, False)
    assert loader.dataset.image(1).size == (10, 8)


@pytest.mark.parametrize("labels", [None, [-1] * 5, [None] * 5])
def test_a_data_set_without_labels_is_one(labels, root: Path, dls) -> None:
    loader = dls.test_dl(_hub(CLASSES, labels, root))
    assert (_reds(loader), loader.dataset.labelled) == (ORDER, False)
    with pytest.raises(ValueError, match=r"no label|no column of labels"):
        dls.test_dl(_hub(CLASSES, labels, root), with_labels=True)


def test_labels_may_be_given_as_names_or_indices(root: Path, dls) -> None:
    files = [root / NAMES[i] for i in ORDER]
    for labels in ([f.parent.name for f in files], np.array([i // 4 for i in ORDER])):
        assert dls.test_dl(files, labels).dataset.targets == [i // 4 for i in ORDER]
    with pytest.raises(ValueError, match="1 labels are no class of the vocab: fox; it has cat, do"):
        dls.test_dl(files, ["fox"] * 5)
    with pytest.raises(ValueError, match="5 files but 2 labels"):
        dls.test_dl(files, ["cat"] * 2)


def test_bad_pictures_are_refused_by_name_or_left_out_and_remembered(root: Path, dls) -> None:
    files = [NAMES[7], "gone.png", NAMES[3]]
    with pytest.raises(ValueError, match=r"1 of 3 pictures cannot be read: .*gone.png: no such"):
        dls.test_dl(files, path=root)
    with pytest.warns(UserWarning, match=r"left out: 1 of 3 pictures cannot be read: .*gone.png"):
        loader = dls.test_dl(files, ["dog", "cat", "cat"], path=root, on_bad="skip")
    assert _reds(loader) == [7, 3]
    assert loader.dataset.targets == [1, 0]
    assert list(loader.dataset.unread) == [1]
    with pytest.warns(UserWarning, match=r"left out: 2 of 3 .*: item 1: .*gone.png: no such"):
        loader = dls.test_dl([_pixels(root, 4), b"x", "gone.png"], on_bad="skip")
    assert (_reds(loader), list(loader.dataset.unread)) == ([4], [1, 2])


REFUSED = {
    "URL": ("https://example.org/a.jpg", "a.jpg is a URL, and nothing is downloaded"),
    "URL as path": (Path("https://example.org/a.jpg"), "a.jpg is a URL, and nothing is downloaded"),
    "URL in a list": (["s3://photos/a.jpg"], "a.jpg is a URL, and nothing is downloaded"),
    "picture in a text": ("data:image/png;base64,iVBO", "is a URL, and nothing is downloaded"),
    "frame": (
        pd.DataFrame({"file": NAMES, "n": 1}),
        r"items is a DataFrame with the columns 'file', 'n'; give .* such as df\['file'\]",
    ),
    "no folder": ("nowhere", "nowhere is not a folder"),
    "nothing": ([], "there are no items; give files, a folder"),
    "None": (None, "items is a NoneType; give files"),
    "set": ({"a.png"}, "items is a set; give files"),
    "bytes": (b"\xff\xd8", "items is a bytes; give files"),
    "gap": (["a.png", None], "item 1 is None; give a file or a picture"),
    "gap of a column": (pd.Series(["a.png", np.nan]), "item 1 is nan; give a file"),
    "one picture": (np.zeros((8, 8, 3), np.uint8), r"shape \[8, 8, 3\] is one picture; give \[x\]"),
    "loader": (DataLoader([1]), "items is a DataLoader; give its data set"),
    "splits": (DatasetDict(a=Dataset.from_dict({})), r"items is a DatasetDict .*one of them: ds\["),
    "dictionaries": ([{"image": 1}], "item 0 is a dict with the keys image"),
}


@pytest.mark.parametrize(("items", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_set_of_pictures_is_refused_in_one_line(items, message: str, dls) -> None:
    with pytest.raises(ValueError, match=message) as told:
        dls.test_dl(items)
    assert "\n" not in str(told.value)


def test_options_are_checked(root: Path, dls) -> None:
    with pytest.raises(TypeError, match="test_dl has no option 'batch_size'; did you mean bs"):
        dls.test_dl(root, batch_size=2)
    with pytest.raises(ValueError, match="with_labels is 'yes'; it must be None, True or False"):
        dls.test_dl(root, with_labels="yes")
    with pytest.raises(ValueError, match="bs is 0"):
        dls.test_dl(root, bs=0)
    with pytest.raises(ValueError, match="with_labels=True is for folders and data sets; give"):
        dls.test_dl([root / NAMES[0]], with_labels=True)
    assert [len(y) for _, y in dls.test_dl(root, bs=5)] == [4, 4, 4]
