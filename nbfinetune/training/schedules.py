"""Schedules: functions of progress p in [0, 1] that give a value, as in fastai.

Progress of step i of N is exactly i / N, so the end value itself is reached only by p = 1, which no
step has. Progress outside [0, 1] is clamped: a cosine would otherwise rise again beyond its end.
"""

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]


def _clamp(p: float) -> float:
    return min(max(p, 0.0), 1.0)


def cos(start: float, end: float) -> Schedule:
    """Half a cosine from `start` to `end`.

    Examples
    --------
    >>> cos(0.0, 2.0)(0.5)
    1.0
    """
    return lambda p: start + (1 + math.cos(math.pi * (1 - _clamp(p)))) * (end - start) / 2


def flat(value: float) -> Schedule:
    """The same `value` at every p."""
    return lambda p: value


def chain(pcts: Sequence[float], parts: Sequence[Schedule]) -> Schedule:
    """`parts` one after the other, part k over the share `pcts[k]` of the progress.

    A border belongs to the part that starts there.

    Parameters
    ----------
    pcts : shares, each in [0, 1], with sum 1
    parts : one schedule for each share

    Raises
    ------
    ValueError
        If the shares do not sum to 1, or are not as many as the parts.
    """
    if len(pcts) != len(parts):
        raise ValueError(f"{len(pcts)} shares for {len(parts)} schedules; give one for each")
    if any(not 0 <= pct <= 1 for pct in pcts) or abs(sum(pcts) - 1) > 1e-6:
        raise ValueError(f"shares {list(pcts)} must lie in [0, 1] and sum to 1")

    def value(p: float) -> float:
        p, start = _clamp(p), 0.0
        for pct, part in zip(pcts[:-1], parts[:-1], strict=True):
            if p < start + pct:
                return part((p - start) / pct)
            start += pct
        return parts[-1]((p - start) / pcts[-1] if pcts[-1] else 1.0)

    return value


def one_cycle(start: float, middle: float, end: float, pct_start: float) -> Schedule:
    """A cosine from `start` to `middle` over `pct_start`, then one from `middle` to `end`.

    The 1cycle policy of Smith (2018, arXiv 1803.09820) with fastai's cosines. torch's `OneCycleLR`
    differs: it peaks one step earlier and reaches its end.

    Raises
    ------
    ValueError
        If `pct_start` is not in [0, 1].
    """
    if not 0 <= pct_start <= 1:
        raise ValueError(f"pct_start is {pct_start}; it must lie in [0, 1], for instance 0.25")
    return chain([pct_start, 1 - pct_start], [cos(start, middle), cos(middle, end)])


def flat_cos(start: float, end: float, pct_start: float) -> Schedule:
    """`start` over `pct_start`, then a cosine down to `end`.

    Raises
    ------
    ValueError
        If `pct_start` is not in [0, 1].
    """
    if not 0 <= pct_start <= 1:
        raise ValueError(f"pct_start is {pct_start}; it must lie in [0, 1], for instance 0.75")
    return chain([pct_start, 1 - pct_start], [flat(start), cos(start, end)])


def sgdr(lr_max: float, n_cycles: int, cycle_mult: int) -> Schedule:
    """`n_cycles` cosines from `lr_max` to 0, each `cycle_mult` times as long as the one before it.

    Warm restarts of Loshchilov and Hutter (2017, arXiv 1608.03983).
    """
    lengths = [cycle_mult**i for i in range(n_cycles)]
    return chain([n / sum(lengths) for n in lengths], [cos(lr_max, 0.0)] * n_cycles)


def sgdr_epochs(n_cycles: int, cycle_len: int, cycle_mult: int) -> int:
    """The epochs that `n_cycles` cycles take in all.

    fastai divides by `cycle_mult - 1` and so fails for 1; here equal cycles are allowed.

    Raises
    ------
    ValueError
        If one of the three is below 1.
    """
    for name, n in (("n_cycles", n_cycles), ("cycle_len", cycle_len), ("cycle_mult", cycle_mult)):
        if n < 1:
            raise ValueError(f"{name} is {n}; it must be at least 1")
    return cycle_len * sum(cycle_mult**i for i in range(n_cycles))
