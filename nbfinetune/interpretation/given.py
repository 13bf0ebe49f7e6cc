"""Given predictions: targets, predictions and names as users bring them, checked and by position.

A Series goes by its order, whatever its index. Class names stand for their indices in the vocab.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Real
from os import PathLike

import numpy as np
import torch
from torch import Tensor

from nbfinetune.objectives.losses import ROUNDING
from nbfinetune.rendering.names import first_few, shown

_ONE_COLUMN = "for the probability p of class {!r} alone, give np.stack([1 - p, p], axis=1)"


def given_vocab(vocab: Iterable[str]) -> list[str]:
    """The class names.

    Raises
    ------
    ValueError
        If they have no order, or one is there twice.
    """
    if isinstance(vocab, (dict, set, frozenset)):
        raise ValueError(
            f"vocab is a {type(vocab).__name__}; give a list of the names in the order of their "
            "indices, such as sorted(vocab, key=vocab.get) of a dict name -> index"
        )
    names = [str(name) for name in _listed(vocab, "vocab")]
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise ValueError(f"vocab has {first_few(twice)} twice; give each class a name of its own")
    return names


def given_paths(paths: Iterable[str | PathLike] | None, n: int) -> list[str | PathLike] | None:
    """The file of each of n items, by position."""
    if paths is None:
        return None
    files = _listed(paths, "paths")
    if len(files) != n:
        raise ValueError(f"{len(files)} paths for {n} items; give one for each")
    for i, file in enumerate(files):
        if not isinstance(file, (str, PathLike)):
            raise ValueError(
                f"paths has {shown(file)} (item {i}); give the name of a file for each"
            )
    return files


def as_array(values: object, vocab: Sequence[str], what: str) -> np.ndarray:
    """The values as an array, by position; of anything that has an order.

    Parameters
    ----------
    values : list, tuple, generator, Tensor, NumPy array, pandas Series or DataFrame
    what : "targets" or "preds", for messages

    Raises
    ------
    ValueError
        If they have no order, or the columns of a DataFrame another one than the vocab.
    """
    named = [str(name) for name in getattr(values, "columns", ())]
    if named != [*vocab] and sorted(named) == sorted(vocab):
        raise ValueError(f"{what} have the columns {first_few(named)}; give {what}[vocab]")
    if isinstance(values, Tensor):
        values = values.detach().cpu().to_dense()
        return (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    if hasattr(values, "to_numpy"):  # pandas
        values = values.to_numpy()
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{what} have masked values; leave these items out, or fill them")
    if not isinstance(values, np.ndarray):
        values = _listed(values, what)
        if values and all(isinstance(value, Tensor) for value in values):
            values = [as_array(value, (), what) for value in values]
    try:
        return np.asarray(values)
    except ValueError:  # rows of several lengths
        raise ValueError(
            f"{what} have rows of several lengths; give a value for each class or label"
        ) from None


def given_indices(array: np.ndarray, vocab: Sequence[str], what: str) -> Tensor:
    """Class indices, int64 [n], of indices or names.

    Parameters
    ----------
    array : whole numbers, also as floats; names of the vocab; or for two classes bools

    Raises
    ------
    ValueError
        For values that are neither, with the first of them.
    """
    if array.ndim != 1:
        how = f"; of columns 0 and 1 take {what}.argmax(1)" if array.ndim == 2 else ""
        raise ValueError(f"{what} have the shape {list(array.shape)}, not [n]{how}")
    kind, c = array.dtype.kind, len(vocab)
    if kind in "OUS":
        return _of_objects(array.tolist(), vocab, what)
    if kind not in "iuf" and not (kind == "b" and c == 2):
        raise ValueError(f"{what} are of the type {array.dtype}; give class indices or class names")
    indices = array.astype(np.float64)
    wrong = ~((indices >= 0) & (indices < c) & (indices == np.floor(indices)))
    one = {"targets": "target", "preds": "prediction"}[what]
    hint = ""
    if what == "preds" and kind == "f" and c == 2:
        hint = f"; {_ONE_COLUMN.format(vocab[1])}"
    _refuse(wrong, array, f"a {one} is no class index of a vocab of {c} classes", hint)
    return torch.from_numpy(indices.astype(np.int64))


def given_probabilities(array: np.ndarray, vocab: Sequence[str], what: str) -> Tensor:
    """Probabilities [n, c] of classes or labels, each in [0, 1].

    Raises
    ------
    ValueError
        If there is another number of columns, or a value is no probability.
    """
    if array.ndim != 2 or array.shape[1] != len(vocab):
        got = f"of {array.shape[1]} classes" if array.ndim == 2 else f"of shape {list(array.shape)}"
        hint = f"; {_ONE_COLUMN.format(vocab[1])}" if len(vocab) == 2 else ""
        raise ValueError(f"{what} are probabilities {got}, but the vocab has {len(vocab)}{hint}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{what} are of the type {array.dtype}; give numbers in [0, 1]")
    wanted = {2: np.float16, 4: np.float32} if array.dtype.kind == "f" else {}
    default = np.float64 if array.dtype.kind == "f" else np.float32
    probs = array.astype(wanted.get(array.dtype.itemsize, default), copy=False)
    if probs.size and not 0 <= probs.min() <= probs.max() <= 1:
        hint = "; take softmax of logits, or sigmoid of those of several labels"
        wrong = ~((probs >= 0) & (probs <= 1))
        _refuse(wrong, probs, f"{what} have values outside [0, 1], or NaN", hint)
    probs = np.ascontiguousarray(probs)
    return torch.from_numpy(probs if probs.flags.writeable else probs.copy())


def check_rows(probs: Tensor) -> Tensor:
    """Probabilities [n, c] of classes that exclude each other.

    Raises
    ------
    ValueError
        If a row does not sum to 1.
    """
    off = (probs.sum(1, dtype=torch.float32) - 1).abs() > ROUNDING
    if off.any():
        i = int(off.nonzero()[0])
        raise ValueError(
            f"{int(off.sum())} rows of preds do not sum to 1 (item {i}: {probs[i].sum():.3g}); "
            "give the softmax of logits, or use MultiLabelInterpretation for several labels"
        )
    return probs


def _listed(values: object, what: str) -> list:
    ordered = isinstance(values, Iterable) and not isinstance(values, (dict, set, frozenset, bytes))
    if not ordered or (isinstance(values, str) and what != "vocab"):
        raise ValueError(f"{what} is {shown(values)}; give a list with one for each item")
    return list(values)


def _of_objects(values: list, vocab: Sequence[str], what: str) -> Tensor:
    """Of Python objects: class names, or numbers."""
    if all(isinstance(value, Real) for value in values):
        bools = all(isinstance(value, bool) for value in values)
        return given_indices(np.array(values, dtype=bool if bools else np.float64), vocab, what)
    place = {name: i for i, name in enumerate(vocab)}
    wrong = [i for i, v in enumerate(values) if not isinstance(v, str) or v not in place]
    odd = [i for i in wrong if not isinstance(values[i], (str, Real))]  # None, pandas.NA
    if wrong:
        i = (odd or wrong)[0]
        raise ValueError(
            f"{len(odd or wrong)} {what} are no class names of the vocab: {shown(values[i])} "
            f"(item {i})"
            f"; the vocab has {first_few(vocab)}"
        )
    return torch.tensor([place[value] for value in values], dtype=torch.int64)


def _refuse(wrong: np.ndarray, array: np.ndarray, why: str, hint: str) -> None:
    if wrong.any():
        first = tuple(np.argwhere(wrong)[0].tolist())
        more = f" and {wrong.sum() - 1:,} more" if wrong.sum() > 1 else ""
        raise ValueError(f"{why}: {array[first]!s} (item {first[0]}){more}{hint}")
