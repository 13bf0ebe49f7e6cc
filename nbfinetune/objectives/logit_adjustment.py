"""Logit adjustment: cross entropy whose logits need not learn which classes are common."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LogitAdjustedLoss(nn.CrossEntropyLoss):
    """Cross entropy of the logits plus the logarithm of each class's share of the pictures.

    Menon et al. 2021 (arXiv 2007.07314), equation 10 with tau = 1. With that sum the model fits the
    data as it is; without it, where it predicts, each class counts as if all were equally common.
    So nothing of it has to be stored with the model, and values of it compare with those of plain
    cross entropy.

    Parameters
    ----------
    counts : pictures of each class, shape [c]; a class of none is taken for one of a single picture
    label_smoothing : see `nn.CrossEntropyLoss`

    Examples
    --------
    >>> loss = LogitAdjustedLoss([3, 1])
    >>> round(loss(torch.zeros(1, 2), torch.tensor([1])).exp().item(), 6)
    4.0
    """

    def __init__(self, counts: Sequence[int], *, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)
        at_least_one = torch.tensor(counts, dtype=torch.float32).clamp(min=1)
        self.register_buffer("log_prior", (at_least_one / at_least_one.sum()).log())

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits [n, c] and class indices [n]."""
        return super().forward(outputs + self.log_prior, targets)
