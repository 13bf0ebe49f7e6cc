import numpy as np
import pandas as pd
import pytest
import torch

from nbfinetune.data.numbers import class_weights_of

VOCAB = ["cat", "dog", "emu"]
TAKEN = {
    "list": [1, 5, 2],
    "tuple": (1.0, 5.0, 2.0),
    "array": np.array([1.0, 5.0, 2.0]),
    "array of ints": np.array([1, 5, 2]),
    "tensor": torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64),
    "list of scalars": [torch.tensor(1.0), np.float32(5), 2],
    "series": pd.Series([1.0, 5.0, 2.0]),
    "series by name": pd.Series({"emu": 2, "cat": 1, "dog": 5}),
    "dict by name": {"dog": 5, "emu": 2, "cat": 1},
    "dict by number": {2: 2.0, 0: 1.0, 1: 5.0},
}


@pytest.mark.parametrize("case", TAKEN)
def test_class_weights_may_come_as_any_numbers(case: str) -> None:
    weights = class_weights_of(TAKEN[case], VOCAB, [])
    assert weights.dtype == torch.float32
    assert weights.tolist() == [1, 5, 2]


def test_balanced_weights_are_inverse_to_the_pictures() -> None:
    weights = class_weights_of("balanced", VOCAB, [0, 0, 0, 0, 1, 1])
    assert weights.tolist() == [6 / (3 * 4), 6 / (3 * 2), 6 / (3 * 1)]
    assert class_weights_of(None, VOCAB, [0, 1, 2]) is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], "3 numbers from 0 up, one a class; got 2 numbers"),
        (np.ones(4), "got 4 numbers"),
        (torch.ones(1), "got 1 numbers"),
        (torch.ones(3, 1), "got Tensor tensor"),
        ([], "3 numbers from 0 up"),
        (2.0, "got float 2.0"),
        ("equal", "got str 'equal'"),
        ([1, float("nan"), 1], "one a class; that of 'dog' is nan"),
        (np.array([1, np.inf, 1]), "that of 'dog' is inf"),
        (torch.tensor([1.0, -1.0, 1.0]), "that of 'dog' is -1.0"),
        ([0, 0, 0], "all of them are 0, so no picture would count"),
        (["a", "b", "c"], "3 numbers from 0 up"),
        ({"cat": 1, "dog": 2}, "by name they need all classes and no others, but see 'emu'"),
        ({"cat": 1, "dog": 2, "owl": 3}, "all classes and no others, but see 'owl'"),
        (pd.Series([1, 2, 3], index=[1, 2, 3]), "all classes and no others, but see 1"),
    ],
)
def test_class_weights_that_fit_no_classes_are_refused(weights: object, message: str) -> None:
    with pytest.raises(ValueError, match=f'class_weights must be "balanced" or .*{message}') as at:
        class_weights_of(weights, VOCAB, [0, 1, 2])
    assert "\n" not in str(at.value)
