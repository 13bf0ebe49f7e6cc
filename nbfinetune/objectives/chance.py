"""Chance: how probable counts are where nothing else decides."""

import math


def log_binomial(n: int, k: int) -> float:
    """The logarithm of the number of ways to choose k of n; exact counts would grow too large."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def hypergeometric_tail(k: int, drawn: int, marked: int, total: int) -> float:
    """P(X >= k) of the marked among `drawn` of `total` things, `marked` of which are (Fisher 1935).

    Examples
    --------
    >>> round(hypergeometric_tail(4, 4, 4, 8), 6)  # 1 of the 70 ways to choose 4 of 8
    0.014286
    """
    least = max(k, drawn + marked - total, 0)
    logs = [
        log_binomial(marked, i)
        + log_binomial(total - marked, drawn - i)
        - log_binomial(total, drawn)
        for i in range(least, min(drawn, marked) + 1)
    ]
    return min(math.fsum(map(math.exp, logs)), 1.0)
