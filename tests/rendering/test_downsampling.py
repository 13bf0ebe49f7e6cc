"""A long line keeps its extremes in few points."""

import numpy as np

from nbfinetune.rendering.downsampling import downsample


def test_a_short_line_is_kept_whole() -> None:
    x, y = downsample([1, 2, 3], [3.0, 1.0, 2.0])
    assert (x.tolist(), y.tolist()) == ([1, 2, 3], [3, 1, 2])


def test_a_long_line_keeps_its_ends_and_its_extremes() -> None:
    noise = np.random.default_rng(0).normal(size=100_000)
    noise[41_234], noise[77_777] = 50.0, -60.0
    x, y = downsample(range(100_000), noise)
    assert len(x) <= 1000
    assert (x[0], x[-1]) == (0, 99_999)
    assert (y.max(), y.min()) == (50.0, -60.0)
    assert x[y.argmax()] == 41_234
    assert (np.diff(x) > 0).all()
    assert (y == noise[x.astype(int)]).all()


def test_values_that_are_not_finite_are_left_out() -> None:
    x, y = downsample([1, 2, 3, 4], [1.0, float("nan"), float("inf"), 2.0])
    assert (x.tolist(), y.tolist()) == ([1, 4], [1, 2])
