"""Weakest classes: those of which the largest share is predicted wrong, in words."""

from collections.abc import Sequence

from torch import Tensor


def weakest_classes(preds: Tensor, targets: Tensor, vocab: Sequence[str]) -> str:
    """Which classes are predicted worst, or "".

    Parameters
    ----------
    preds : probabilities, shape [n, c]
    targets : class indices, shape [n]
    vocab : names of the c classes
    """
    return ""
