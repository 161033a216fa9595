"""Schedules of the weights of losses."""

from __future__ import annotations

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import losses


def values(schedule, steps):
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps)))


def test_linear_schedule_goes_from_start_to_end_and_stays():
    found = values(losses.linear_schedule(4, start=1.0, end=25.0), 7)
    np.testing.assert_allclose(found, [1, 7, 13, 19, 25, 25, 25], rtol=1e-6)
    assert values(losses.linear_schedule(3, start=0.1, end=0.7), 4)[-1] == np.float32(0.7)
    assert values(losses.linear_schedule(2, start=1.0, end=0.0), 3).tolist() == [1.0, 0.5, 0.0]


def test_linear_schedule_of_no_steps_is_at_its_end():
    assert values(losses.linear_schedule(0, end=4.0), 2).tolist() == [4.0, 4.0]


@pytest.mark.parametrize(("steps", "cycles", "rising"), [(40, 4, 0.5), (25, 3, 0.4), (7, 7, 1.0)])
def test_cycles_are_those_of_the_paper(steps, cycles, rising):
    # Equations 6 and 7 in exact fractions, for which the cycle needn't be whole.
    length = fractions.Fraction(steps, cycles)
    shares = [(step % length) / length for step in range(steps)]
    expected = [min(float(share) / rising, 1.0) for share in shares] + [1.0, 1.0]
    found = values(losses.cyclic_schedule(steps, cycles=cycles, rising=rising), steps + 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found == 0).sum() == len([share for share in shares if share == 0])


def test_cycles_run_between_any_two_weights():
    found = values(losses.cyclic_schedule(8, cycles=2, start=2.0, end=10.0), 9)
    np.testing.assert_allclose(found, [2, 6, 10, 10, 2, 6, 10, 10, 10], rtol=1e-6)


def test_one_cycle_is_linear():
    once = values(losses.cyclic_schedule(10, cycles=1, rising=0.8, end=3.0), 12)
    np.testing.assert_allclose(once, values(losses.linear_schedule(8, end=3.0), 12), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (losses.linear_schedule, {"steps": -1}, "steps must be at least 0, got -1"),
        (losses.cyclic_schedule, {"steps": 3, "cycles": 4}, "from 1 to the steps, 3, got 4"),
        (losses.cyclic_schedule, {"steps": 3, "cycles": 0}, "from 1 to the steps, 3, got 0"),
        (losses.cyclic_schedule, {"steps": 2**30}, r"below 2\*\*31, got 1073741824 and 4"),
        (losses.cyclic_schedule, {"steps": 8, "rising": 0.0}, r"in \(0, 1\], got 0.0"),
    ],
)
def test_bad_options_are_named(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
