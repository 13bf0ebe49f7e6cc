"""Comparison: what changed between the predictions of two models on the same items."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Comparison:
    """Items by what became of them, from an earlier model to a later one.

    Parameters
    ----------
    fixed : wrong before, right now
    broken : right before, wrong now
    still_wrong : wrong both times
    n : all items
    """

    fixed: list[int] = field(repr=False)
    broken: list[int] = field(repr=False)
    still_wrong: list[int] = field(repr=False)
    n: int

    @property
    def p_value(self) -> float:
        """McNemar's exact test (1947): how likely such a difference is if neither is better.

        Two-sided: 2 P(X <= min(fixed, broken)) of X ~ Binomial(fixed + broken, 1/2), at most 1.

        Examples
        --------
        >>> round(Comparison([0, 1, 2, 3, 4, 5], [], [], n=10).p_value, 5)
        0.03125
        """
        n, least = len(self.fixed) + len(self.broken), min(len(self.fixed), len(self.broken))
        logs = [_log_binomial(n, k) - n * math.log(2) for k in range(least + 1)]
        return min(2 * math.fsum(map(math.exp, logs)), 1.0)

    def __repr__(self) -> str:
        change = (len(self.fixed) - len(self.broken)) / max(self.n, 1)
        return (
            f"{len(self.fixed)} fixed, {len(self.broken)} broken, {len(self.still_wrong)} still "
            f"wrong of {self.n} items: accuracy {change:+.4f}, McNemar p = {self.p_value:.2g}"
        )


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
