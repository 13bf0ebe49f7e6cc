"""Ticks: round values for an axis, and how they are written."""

import math

_MOST = 8  # labels of an axis that is some 250 px high
_PLAIN = (1e-4, 1e6)  # smaller steps and larger values are written as powers of ten


def round_ticks(low: float, high: float, most: int = _MOST) -> tuple[list[float], str]:
    """Multiples of 1, 2 or 5 times a power of ten, and the format that tells them apart.

    Parameters
    ----------
    low, high : ends of the axis, low < high
    most : values at most, at least 4

    Returns
    -------
    list of float, str
        The values, 3 or so at least; and their format, the same for Python and for d3.

    Examples
    --------
    >>> round_ticks(0.93, 3.1)
    ([1.0, 1.5, 2.0, 2.5, 3.0], '.1f')
    >>> round_ticks(0, 30_000_000)
    ([0.0, 5000000.0, 10000000.0, 15000000.0, 20000000.0, 25000000.0, 30000000.0], '.1e')
    """
    rough = (high - low) / (most - 1)
    power = math.floor(math.log10(rough))
    factor = next(k for k in (1, 2, 5, 10) if k * 10.0**power >= rough * (1 - 1e-9))
    power, factor = (power + 1, 1) if factor == 10 else (power, factor)
    # Whole multiples, divided where the step is below 1: 3 * 0.1 would not be 0.3.
    first = math.ceil(low / (factor * 10.0**power) - 1e-9)
    last = math.floor(high / (factor * 10.0**power) + 1e-9)
    steps = [k * factor for k in range(first, last + 1)]
    values = [k / 10**-power if power < 0 else float(k * 10**power) for k in steps]
    top = max(abs(low), abs(high))
    if 10.0**power < _PLAIN[0] or top >= _PLAIN[1]:
        return values, f".{max(math.floor(math.log10(top)) - power, 0)}e"
    return values, f".{max(-power, 0)}f"


def decades(low: float, high: float) -> list[float]:
    """The powers of ten between two positive numbers.

    Examples
    --------
    >>> decades(1e-3, 10.0)
    [0.001, 0.01, 0.1, 1.0, 10.0]
    """
    first, last = math.log10(low) - 1e-9, math.log10(high) + 1e-9
    return [float(f"1e{k}") for k in range(math.ceil(first), math.floor(last) + 1)]


def log_ticks(low: float, high: float, most: int = _MOST) -> list[float]:
    """Values for a logarithmic axis: 1, 2 and 5 times powers of ten, or fewer or more than these.

    Parameters
    ----------
    low, high : ends of the axis, 0 < low < high

    Examples
    --------
    >>> log_ticks(0.03, 4)
    [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    >>> log_ticks(1.1, 1.9)
    [1.2, 1.4, 1.6, 1.8]
    >>> log_ticks(1e-5, 10)
    [1e-05, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]
    """
    whole = decades(low / 10, high)
    finer = [float(f"{k * v:.0e}") for v in whole for k in (1, 2, 5)]
    finer = [v for v in finer if low <= v <= high]
    if len(finer) > most:
        return decades(low, high)
    return finer if len(finer) > 2 else round_ticks(low, high, most)[0]
