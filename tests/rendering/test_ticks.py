"""Ticks are round, within the axis, few, and their texts are their values."""

import numpy as np
import pytest

from nbfinetune.rendering.ticks import decades, round_ticks


@pytest.mark.parametrize(
    ("ends", "texts"),
    [
        ((0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ((2.31, 2.39), ["2.32", "2.34", "2.36", "2.38"]),
        ((-1.2, 3.4), ["-1", "0", "1", "2", "3"]),
        ((0, 60), ["0", "10", "20", "30", "40", "50", "60"]),
        ((0, 730), ["0", "200", "400", "600"]),
        ((0.00011, 0.00019), ["1.2e-04", "1.4e-04", "1.6e-04", "1.8e-04"]),
        ((0, 2.5e9), ["0.0e+00", "5.0e+08", "1.0e+09", "1.5e+09", "2.0e+09", "2.5e+09"]),
    ],
)
def test_values_are_round_and_written_with_the_decimals_they_need(ends, texts: list[str]) -> None:
    values, spec = round_ticks(*ends)
    assert [format(value, spec) for value in values] == texts


def test_every_text_is_its_value_and_there_are_2_to_8() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        low = rng.normal() * 10.0 ** rng.integers(-5, 5)
        high = low + 10.0 ** rng.uniform(-4, 4)
        values, spec = round_ticks(low, high)
        assert 2 <= len(values) <= 8
        slack = (high - low) * 1e-6
        assert low - slack <= values[0] < values[-1] <= high + slack
        shown = [float(format(value, spec)) for value in values]
        assert np.allclose(shown, values, rtol=0, atol=0.01 * (high - low))
        assert len(set(shown)) == len(values)


def test_decades_hold_both_ends() -> None:
    assert decades(1e-7, 10)[0] == 1e-7
    assert decades(1e-7, 10)[-1] == 10
    assert decades(2e-4, 9e-4) == []
