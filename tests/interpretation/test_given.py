"""Predictions as users bring them: by position, by index or by name, or refused in one line."""

import numpy as np
import pandas as pd
import pytest
import torch

from nbfinetune import ClassificationInterpretation, MultiLabelInterpretation

from_predictions = ClassificationInterpretation.from_predictions
multi_label = MultiLabelInterpretation.from_predictions

TARGETS, PREDS = [0, 2, 1, 1], [0, 1, 1, 2]
NAMES = ["cat", "dog", "emu"]
PROBS = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]])
CONFUSED = [("dog", "emu", 1), ("emu", "dog", 1)]


def named(indices: list[int]) -> list[str]:
    return [NAMES[i] for i in indices]


def filtered(values) -> pd.Series:
    """What is left of a longer Series, with its index."""
    return pd.Series([9, 9, *values], index=range(10, 16)).iloc[2:]


def big_endian(values) -> np.ndarray:
    return np.array(values, dtype=">i4")


def nullable(values) -> pd.Series:
    return pd.Series(values, dtype="Int64", index=[3, 1, 0, 2])


def read_only(values) -> np.ndarray:
    array = np.array(values)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "bring",
    [
        tuple,
        iter,
        lambda values: (v for v in values),
        lambda values: dict.fromkeys("abcd", 0) and dict(zip("abcd", values, strict=True)).values(),
        np.array,
        np.uint8,
        big_endian,
        read_only,
        lambda values: np.array(values[::-1])[::-1],
        np.float32,
        torch.tensor,
        lambda values: torch.tensor(values, dtype=torch.float16),
        lambda values: [torch.tensor(v) for v in values],
        filtered,
        nullable,
        lambda values: pd.Series(values, dtype=object),
        named,
        lambda values: np.array(named(values)),
        lambda values: filtered(named(values)),
        lambda values: pd.Series(named(values), dtype="category", index=[1, 0, 3, 2]),
    ],
)
def test_targets_and_predictions_go_by_their_order(bring) -> None:
    interp = from_predictions(bring(TARGETS), bring(PREDS), NAMES)
    assert interp.targets.tolist() == TARGETS
    assert interp.predicted.tolist() == PREDS
    assert interp.most_confused() == CONFUSED


@pytest.mark.parametrize(
    "bring",
    [
        np.float16,
        lambda rows: np.asfortranarray(rows)[:, ::-1][:, ::-1],
        lambda rows: torch.tensor(rows, dtype=torch.bfloat16, requires_grad=True),
        lambda rows: rows.tolist(),
        lambda rows: [torch.tensor(row) for row in rows],
        lambda rows: (row for row in rows),
        lambda rows: pd.DataFrame(rows, index=[7, 5, 3, 1]),
        lambda rows: pd.DataFrame(rows, columns=NAMES),
        lambda rows: pd.DataFrame(rows, columns=["p1", "p2", "p3"]),
        lambda rows: np.eye(3, dtype=int)[rows.argmax(1)],
    ],
)
def test_probabilities_go_by_their_order(bring) -> None:
    interp = from_predictions(TARGETS, bring(PROBS), NAMES)
    assert interp.predicted.tolist() == PREDS


def test_paths_and_names_of_a_series_go_by_their_order() -> None:
    frame = pd.DataFrame({"file": list("abcd"), "class": ["x", *NAMES]}).iloc[1:]
    interp = from_predictions([0, 1, 2], [0, 1, 2], frame["class"], frame.file)
    assert [interp.path(i).name for i in range(3)] == ["b", "c", "d"]
    assert interp.vocab == NAMES


def test_bools_are_the_indices_of_two_classes() -> None:
    interp = from_predictions([True, False], np.array([True, True]), ["no", "yes"])
    assert interp.most_confused() == [("no", "yes", 1)]


PICKS_COLUMNS = r"for the probability p of class 'dog' alone, give np.stack\(\[1 - p, p\], axis=1\)"


@pytest.mark.parametrize(
    ("targets", "preds", "message"),
    [
        ([1, 1], [0.9, 0.8], f"no class index .*: 0.9 .item 0. and 1 more; {PICKS_COLUMNS}"),
        ([1, 1], [[0.9], [0.8]], f"of 1 classes, but the vocab has 2; {PICKS_COLUMNS}"),
        ([0.5, 1], [0, 1], "a target is no class index of a vocab of 2 classes: 0.5"),
        ([0, float("nan")], [0, 1], r"a target is no class index .*: nan \(item 1\)"),
        ([0, -1], [0, 1], r"a target is no class index .*: -1 \(item 1\)"),
        (np.uint64([0, 2**63]), [0, 1], "a target is no class index"),
        (["cat", "fox"], [0, 1], r"no class names of the vocab: 'fox' \(item 1\); the vocab"),
        (["cat", None], [0, 1], r"1 targets are no class names of the vocab: None \(item 1\)"),
        (pd.Series([0, None], dtype="Int64"), [0, 1], r"no class index .*: nan \(item 1\)"),
        ([b"cat", b"dog"], [0, 1], "targets are no class names of the vocab: b'cat'"),
        ([1j, 0], [0, 1], "targets are of the type complex128; give class indices or class names"),
        ([[1, 0], [0, 1]], [0, 1], r"targets have the shape \[2, 2\] and preds \[2\]"),
        (np.array(["2020", "2021"], "M8[Y]"), [0, 1], "targets are of the type datetime64"),
        (np.ma.array([0, 1], mask=[0, 1]), [0, 1], "targets have masked values"),
        ({"a": 0, "b": 1}, [0, 1], "targets is {'a': 0, 'b': 1}; give a list"),
        ({0, 1}, [0, 1], "targets is {0, 1}; give a list"),
        ("ab", [0, 1], "targets is 'ab'; give a list"),
        (None, [0, 1], "targets is None; give a list"),
        ([0, 1], [[0.5, 0.5], [1.0]], "preds have rows of several lengths"),
        ([0, 1], [[0.6, 0.6], [0, 1]], r"1 rows of preds do not sum to 1 \(item 0: 1.2\)"),
        ([0, 1], [[0.1, 0.1], [0, 0]], "2 rows of preds do not sum to 1"),
        ([0, 1], [[-1.0, 2.0], [0, 1]], r"values outside \[0, 1\], or NaN: -1.0 \(item 0"),
        ([0, 1], torch.full((2, 2), float("nan")), "preds have values outside .* and 3 more; take"),
        ([0, 1], torch.zeros(2, 2).log(), "preds have values outside"),
        ([0, 1], [["a", "b"], ["a", "b"]], "preds are of the type <U1; give numbers in"),
        ([0, 1], pd.DataFrame(np.eye(2), columns=["dog", "cat"]), r"dog, cat; give preds\[vocab\]"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_class_or_probability_is_refused_in_one_line(targets, preds, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_predictions(targets, preds, ["cat", "dog"])
    assert "\n" not in str(caught.value)


def test_bools_of_three_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="targets are of the type bool; give class indices"):
        from_predictions([True], [0], NAMES)


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ({"dog": 1, "cat": 0}, "vocab is a dict; .* such as sorted"),
        ({"cat", "dog"}, "vocab is a set; give a list"),
        (["cat", "cat"], "vocab has cat twice"),
        (["1", 1], "vocab has 1 twice"),
        (None, "vocab is None; give a list"),
    ],
)
def test_names_without_an_order_or_twice_are_refused(vocab, message: str) -> None:
    for make in (from_predictions, multi_label):
        with pytest.raises(ValueError, match=message):
            make([[1, 0]], [[1, 0]], vocab)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["a"], "1 paths for 2 items; give one for each"),
        ("ab", "paths is 'ab'; give a list"),
        (["a", None], r"paths has None \(item 1\); give the name of a file for each"),
        (pd.Series(["a", float("nan")]), r"paths has nan \(item 1\)"),
    ],
)
def test_paths_that_are_no_files_are_refused(paths, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_predictions([0, 1], [0, 1], ["cat", "dog"], paths)


LABELS = np.array([[1, 0, 1], [0, 1, 0]])
SCORES = np.array([[0.9, 0.2, 0.4], [0.1, 0.8, 0.6]])


@pytest.mark.parametrize(
    "bring",
    [
        torch.tensor,
        lambda rows: rows.tolist(),
        lambda rows: pd.DataFrame(rows, index=[5, 4]),
        lambda rows: pd.DataFrame(rows, columns=NAMES, index=["x", "x"]),
        lambda rows: (row for row in rows),
    ],
)
def test_several_labels_go_by_their_order(bring) -> None:
    matrix = multi_label(bring(LABELS), bring(SCORES), NAMES).matrix
    assert matrix[:, 1, 1].tolist() == [1, 1, 0]
    assert matrix[:, 1, 0].tolist() == [0, 0, 1]
    assert multi_label(LABELS.astype(bool), LABELS, NAMES).matrix[:, 1, 1].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("targets", "preds", "options", "message"),
    [
        (LABELS * 0.4, SCORES, {}, "targets have 3 values between 0 and 1, such as 0.4"),
        (
            LABELS,
            SCORES * 3,
            {},
            r"preds have values outside .*sigmoid of those of sev",
        ),
        (LABELS - 1, SCORES, {}, "targets have values outside"),
        ([["cat"], ["dog", "emu"]], SCORES, {}, "targets have rows of several lengths"),
        (LABELS, SCORES[:, 0], {}, r"targets \[2, 3\] and preds \[2\] for 3 labels"),
        (LABELS, SCORES, {"thresh": 0}, "thresh is 0; it must lie above 0"),
        (LABELS, SCORES, {"thresh": float("nan")}, "thresh is nan"),
        (LABELS, SCORES, {"thresh": "0.5"}, "thresh is '0.5'"),
        (LABELS, pd.DataFrame(SCORES, columns=NAMES[::-1]), {}, r"give preds\[vocab\]"),
    ],
    ids=str,
)
def test_labels_that_do_not_fit_are_refused(targets, preds, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        multi_label(targets, preds, NAMES, **options)


@pytest.mark.parametrize("index", [0.7, True, None, float("nan")])
def test_what_is_no_index_names_no_cell(index) -> None:
    interp = from_predictions(TARGETS, PREDS, NAMES)
    with pytest.raises(ValueError, match=r"no class .*; give a name of the vocab, or an"):
        interp.cell(index, 0)


@pytest.mark.parametrize("k", [-1, 2.5, "3"])
def test_a_number_of_losses_is_whole(k) -> None:
    with pytest.raises(ValueError, match=f"k is {k!r}; it must be a whole number from 0 up"):
        from_predictions(TARGETS, PREDS, NAMES).top_losses(k)
