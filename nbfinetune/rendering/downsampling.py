"""Downsampling: at most so many points of a line, with its extremes."""

from collections.abc import Sequence

import numpy as np

MOST_POINTS = (
    1000  # of a line on a screen: more cost the browser frames (measured: 10,000 halve them)
)


def downsample(
    x: Sequence[float], y: Sequence[float], most: int = MOST_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """The line itself, or the lowest and the highest point of each of most / 2 equal stretches.

    The first and the last point are kept. Values that are not finite are left out.

    Parameters
    ----------
    x, y : coordinates, as many of each
    most : points at most, even, at least 4

    Examples
    --------
    >>> downsample(range(8), [0, 9, 1, 2, 3, -5, 4, 6], most=4)
    (array([0., 1., 5., 7.]), array([ 0.,  9., -5.,  6.]))
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    finite = np.isfinite(ys)
    xs, ys = xs[finite], ys[finite]
    if len(ys) <= most:
        return xs, ys
    size = -(-(len(ys) - 2) // (most // 2 - 1))  # points of a stretch; the last one may be shorter
    first = np.arange(1, len(ys) - 1, size)
    inner = np.append(ys[1:-1], np.full(len(first) * size - (len(ys) - 2), ys[-2]))
    inner = inner.reshape(len(first), size)
    last = len(ys) - 2
    lowest, highest = (np.minimum(first + k, last) for k in (inner.argmin(1), inner.argmax(1)))
    chosen = np.unique([0, *lowest, *highest, len(ys) - 1])
    return xs[chosen], ys[chosen]
