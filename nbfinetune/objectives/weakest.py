"""Weakest classes: those that are predicted worse than the others by more than chance."""

from collections.abc import Sequence

from torch import Tensor

from nbfinetune.objectives.chance import hypergeometric_tail
from nbfinetune.rendering.names import first_few

_LEVEL = 0.05  # at most this often a class is named where all are equally hard


def weakest_classes(preds: Tensor, targets: Tensor, vocab: Sequence[str]) -> str:
    """The classes with more errors than chance gives them, the worst first; "" if there are none.

    Fisher's exact test (1935), one-sided, of the errors of each class against those of all others,
    at a level of 0.05 divided by the number of classes that have pictures (Bonferroni).

    Parameters
    ----------
    preds : probabilities or logits, shape [n, c]
    targets : class indices, shape [n]; pictures of other targets are of no account, and of several
        labels a picture nothing is told
    vocab : names of the c classes

    Examples
    --------
    >>> from torch import eye, tensor
    >>> actual = tensor([0] * 30 + [1] * 8)
    >>> weakest_classes(eye(2)[tensor([0] * 30 + [1] * 3 + [0] * 5)], actual, ["disc", "ring"])
    'weakest class: ring 3 of 8 right'
    """
    if targets.ndim != 1 or targets.is_floating_point():
        return ""
    known = (targets >= 0) & (targets < len(vocab))
    wrong = preds.argmax(1)[known] != targets[known]
    counts = targets[known].bincount(minlength=len(vocab)).tolist()
    errors = targets[known][wrong].bincount(minlength=len(vocab)).tolist()
    total, marked = sum(counts), sum(errors)
    level = _LEVEL / max(sum(n > 0 for n in counts), 1)
    weak = [
        t
        for t, (n, k) in enumerate(zip(counts, errors, strict=True))
        if k and hypergeometric_tail(k, n, marked, total) <= level
    ]
    weak.sort(key=lambda t: -errors[t] / counts[t])
    texts = [f"{vocab[t]} {counts[t] - errors[t]} of {counts[t]}" for t in weak]
    if not texts:
        return ""
    texts[0] += " right"
    return f"weakest {'class' if len(texts) == 1 else 'classes'}: {first_few(texts)}"
