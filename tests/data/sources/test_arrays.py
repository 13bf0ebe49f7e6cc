"""Arrays of pictures with labels: layouts, types, ranges, labels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset, random_split
from torchvision.datasets import FakeData

from nbfinetune import ImageDataLoaders

X = np.random.default_rng(0).integers(0, 256, (12, 10, 8, 3), dtype=np.uint8)
Y = np.array([0, 1, 2] * 4)
MAKE = ImageDataLoaders.from_datasets

LAYOUTS = {
    "[n, h, w, c]": X,
    "[n, c, h, w]": X.transpose(0, 3, 1, 2),
    "tensor [n, c, h, w]": torch.from_numpy(X).permute(0, 3, 1, 2),
    "tensor [n, h, w, c]": torch.from_numpy(X),
    "floats": X / 255,
    "float32": (X / 255).astype(np.float32),
    "tensor of floats": torch.from_numpy(X / 255).float(),
    "BGR turned around": X[..., ::-1][..., ::-1],
    "read only": np.broadcast_to(X, X.shape),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("x", LAYOUTS.values(), ids=LAYOUTS)
def test_pictures_are_the_same_in_every_layout_and_type(x) -> None:
    dls = MAKE((x, Y), size=8)
    expected = MAKE([(X[i], int(Y[i])) for i in range(12)], size=8)
    for part in ("train", "valid"):
        one, other = getattr(dls, part).dataset, getattr(expected, part).dataset
        assert one.targets == other.targets
        assert torch.equal(one.cache, other.cache)
    assert dls.vocab == ["0", "1", "2"]


@pytest.mark.parametrize("grey", [X[..., 0], X[..., :1], torch.from_numpy(X[:, None, ..., 0])])
def test_grey_pictures_have_three_equal_channels(grey) -> None:
    dataset = MAKE((grey, Y), size=8).train.dataset
    assert np.array_equal(np.array(dataset.image(0))[..., 0], np.array(dataset.image(0))[..., 2])


def test_fourth_channel_is_opacity() -> None:
    clear = np.concatenate([X, np.zeros_like(X[..., :1])], -1)
    assert set(np.array(MAKE((clear, Y), size=8).train.dataset.image(0)).ravel()) == {255}


LABELS = {
    "list": Y.tolist(),
    "column [n, 1]": Y[:, None],
    "bytes": Y.astype(np.uint8),
    "whole floats": Y.astype(float),
    "tensor": torch.from_numpy(Y),
    "series of another index": pd.Series(Y, index=range(12)[::-1]),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_class_indices_may_be_of_any_whole_number_by_position(labels) -> None:
    dls = MAKE((X, labels), (X, Y), vocab=["a", "b", "c"], size=8)
    assert dls.train.dataset.targets == Y.tolist()
    assert dls.vocab == ["a", "b", "c"]


def test_labels_may_be_names() -> None:
    names = np.array(["emu", "cat", "dog"])[Y]
    dls = MAKE((X, names), (X, names.tolist()), size=8)
    assert dls.vocab == ["cat", "dog", "emu"]
    assert [dls.vocab[t] for t in dls.train.dataset.targets] == names.tolist()


def test_a_memory_mapped_array_is_read_row_by_row(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(MAKE((x, Y), size=8).train.dataset.items.dataset._pictures, np.memmap)


PARTS = {
    "random split": lambda d: random_split(d, [9, 3], torch.Generator().manual_seed(0)),
    "nested": lambda d: [Subset(Subset(d, range(12)), n) for n in (range(9), [9, 10, 11])],
    "joined": lambda d: [ConcatDataset([d, Subset(d, [0])]), Subset(d, [1])],
}


@pytest.mark.parametrize("way", PARTS.values(), ids=PARTS)
def test_tensor_data_sets_and_parts_of_them_are_taken(way) -> None:
    data = TensorDataset(torch.from_numpy(X).permute(0, 3, 1, 2), torch.from_numpy(Y))
    assert MAKE(*way(data), size=8).vocab == ["0", "1", "2"]


REFUSED = {
    "bytes as floats": ((X.astype(float), Y), "floats outside .0, 1., from 0 to 255, as bytes are"),
    "one dark picture among bytes as floats": (
        (np.concatenate([X[:1] / 255, X[1:].astype(float)]), Y),
        "the pictures of train are floats outside",
    ),
    "normalised": (((X / 255 - 0.45) / 0.22, Y), "as after normalisation"),
    "NaN": ((np.full(X.shape, np.nan), Y), "floats of which some are NaN"),
    "int64": ((X.astype(int), Y), r"are int64, from 0 to 255; .*: x.astype\(\"uint8\"\)"),
    "negative": ((X.astype(int) - 9, Y), "are int64, from -9 to 246; give uint8"),
    "masks": ((X > 99, Y), r"are bool, from 0 to 1; .*: \(x \* 255\).astype\(\"uint8\"\)"),
    "int tensor": ((torch.from_numpy(X).int(), Y), r": x.to\(torch.uint8\)"),
    "five channels": ((np.zeros((3, 8, 8, 5), np.uint8), [0, 1, 2]), r"shape \[3, 8, 8, 5\]; give"),
    "either layout": ((X[:, :3], Y), r"\[12, 3, 8, 3\], which is \[n, c, h, w\] or \[n, h, w, c\]"),
    "flat": ((np.zeros((3, 784), np.uint8), [0, 1, 2]), r"x.reshape\(-1, 28, 28\) may make it so"),
    "video": ((X[None], [0]), r"shape \[1, 12, 10, 8, 3\]; give"),
    "one-hot": ((X, np.eye(3)[Y]), r"shape \[12, 3\]; .* such as labels.argmax\(1\)"),
    "too few": ((X, Y[:5]), "train has 12 pictures but 5 labels"),
    "negative label": ((X, Y - 1), r"train: 4 of 12 items have no label \(items 0, 3, 6, 9\)"),
    "fraction": ((X, Y / 2), r"4 of 12 labels are no class \(item 1: 0.5\)"),
    "missing": ((X, [None, *Y[1:]]), r"1 of 12 items have no label"),
    "names and numbers": ((X, ["a", *Y[1:]]), r"11 of 12 labels are no class \(item 1: 1\)"),
    "no labels": (X, r"train is an array of shape \(12, 10, 8, 3\) without labels; give pairs: fr"),
    "two lists": (([*X], Y.tolist()), r"train is two lists; give items: list\(zip\(pictures"),
    "frame": (pd.DataFrame({"x": [1]}), r"train is a DataFrame; use ImageDataLoaders.from_df\(df"),
    "archive": ({"x": X, "y": Y}, "train is a dict of x, y, which has no items by number"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_other_arrays_and_labels_are_refused_in_one_line(data, message: str) -> None:
    with pytest.raises(ValueError, match=message) as told:
        MAKE(data, size=8)
    assert "\n" not in str(told.value)


def test_indices_beside_names_are_refused() -> None:
    names = np.array(["a", "b", "c"])[Y]
    with pytest.raises(ValueError, match="class indices in train and class names elsewhere"):
        MAKE((X, Y), (X, names), size=8)


def test_the_same_pictures_on_both_sides_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="2 pictures are the same in train and in valid"):
        MAKE((X, Y), (np.concatenate([X[:2], 255 - X[2:]]), Y), size=8)


def test_a_data_set_of_torchvision_is_split_here_too() -> None:
    data = FakeData(12, (3, 10, 8), num_classes=2)
    targets = [int(data[i][1]) for i in range(12)]
    dls = MAKE(data, vocab=["no", "yes"], valid_pct=0.25, size=8)
    parts = dls.train.dataset.targets + dls.valid.dataset.targets
    assert sorted(parts) == sorted(targets)
    assert set(dls.valid.dataset.targets) == {0, 1}
