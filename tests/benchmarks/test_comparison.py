"""Fair figures: who is called when, ratios of neighbours, exponents."""

from __future__ import annotations

import pytest

from benchmarks.comparison import TIMING_COLUMNS, alternate, paired_ratio, slope, timing_cells


def test_sides_alternate_and_the_first_call_is_not_counted():
    calls = []

    def side(name):
        def measure():
            calls.append(name)
            return float(len(calls))

        return measure

    measured = alternate({"a": side("a"), "b": side("b")}, 2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert measured == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_paired_ratio_is_the_median_of_ratios_and_not_the_ratio_of_medians():
    assert paired_ratio([2.0, 30.0, 12.0], [1.0, 10.0, 3.0]) == 3.0  # medians: 12 and 3
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0], [1.0, 2.0])


def test_cells_of_times_in_seconds():
    cells = timing_cells([0.002, 0.03, 0.012], [0.001, 0.01, 0.003], 1)
    assert dict(zip(TIMING_COLUMNS, cells, strict=True)) == {
        "median, ms": "12.0",
        "least, ms": "2.0",
        "times ours": "3.00",
    }


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 2.0])
def test_slope_finds_the_exponent_of_a_power_law(power):
    x = [1.0, 2.0, 5.0, 8.0]
    assert slope(x, [7 * value**power for value in x]) == pytest.approx(power, abs=1e-12)


def test_slope_is_that_of_least_squares():
    # Logarithms to base 2: points (0, 0), (1, 0), (2, 3), whose line has slope 3 / 2.
    assert slope([1, 2, 4], [1, 1, 8]) == pytest.approx(1.5)
