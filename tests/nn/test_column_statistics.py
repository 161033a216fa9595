"""Statistics of columns, and all that is initialised from them, whatever the unit of a column."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import flows, models
from vaeflow.bijectors.gaussianization import mixture_of_quantiles
from vaeflow.nn.normalization import actnorm_parameters, column_statistics

VALUES = np.float32([0.1, 123.456, 1000000.5, -7e-30, 3e38, 0.0])
"""Their sums over rows round, and so do means of them."""
UNITS = np.float32([1e-36, 1e-30, 1e-20, 1e-6, 1.0, 1e20, 1e30, 1e37])
ROWS = np.random.default_rng(0).uniform(-1, 3, (201, len(UNITS)))
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def found():
    """Statistics of columns that are constant, and of ones in all units."""
    constant = np.tile(VALUES, (201, 1))
    given = np.concatenate([constant, (ROWS * UNITS).astype(np.float32)], axis=1)
    statistics = jax.jit(lambda data: (column_statistics(data), *actnorm_parameters(data)))(given)
    return given, jax.device_get(statistics)


def test_constant_columns_are_found_exactly(found):
    _, (statistics, shift, log_scale) = found
    count = len(VALUES)
    np.testing.assert_array_equal(statistics.mean[:count], VALUES)
    np.testing.assert_array_equal(statistics.deviation[:count], 0)
    np.testing.assert_array_equal(shift[:count], -VALUES)
    np.testing.assert_array_equal(log_scale[:count], 0)


def test_columns_of_all_units_have_their_statistics(found):
    given, (statistics, shift, log_scale) = found
    exact = given[:, len(VALUES) :].astype(np.float64)
    mean, deviation = (each[len(VALUES) :] for each in statistics)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=2e-6)
    np.testing.assert_allclose(deviation, exact.std(axis=0), rtol=2e-6)
    standard = (exact + shift[len(VALUES) :].astype(np.float64)) * np.exp(
        log_scale[len(VALUES) :].astype(np.float64)
    )
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(standard.std(axis=0), 1, rtol=1e-4)


def test_a_deviation_is_no_less_than_the_rounding_of_the_values():
    neighbours = np.float32([1e6, np.nextafter(np.float32(1e6), np.float32(2e6))])
    data = np.concatenate([np.full(999, neighbours[0]), neighbours[1:]])[:, None]
    assert 0.1 < column_statistics(data).deviation[0] < 0.2


@pytest.mark.parametrize("value", [0.1, 123.456, 1000000.5])
def test_mixtures_of_equal_rows_are_those_of_every_other_value(value):
    of_zero = jax.device_get(mixture_of_quantiles(jnp.zeros((50, 1)), 4))
    centres, log_scales = jax.device_get(mixture_of_quantiles(jnp.full((50, 1), value), 4))
    np.testing.assert_allclose(centres, np.float32(value), rtol=1e-6)
    np.testing.assert_array_equal(log_scales, of_zero[1])
    single = mixture_of_quantiles(jnp.full((50, 1), value), 1)
    assert (float(single[0][0, 0]), float(single[1][0, 0])) == (np.float32(value), 0.0)


INSIDE = flows.NICE((2,), num_steps=2, hidden_sizes=(4,))
SMALL = {"num_steps": 2, "hidden_sizes": (4,)}
FLOWS = {
    "real-nvp": flows.RealNVP((2,), num_steps=2, hidden_features=4, num_blocks=1),
    "spline": flows.NeuralSplineFlow((2,), num_bins=3, **SMALL),
    "masked": flows.MaskedAutoregressiveFlow((2,), **SMALL),
    "block": flows.BlockAutoregressiveFlow((2,), num_steps=2, hidden_sizes=(4,)),
    "residual": flows.ResidualFlow((2,), **SMALL),
    "gaussianization": flows.GaussianizationFlow((2,), num_steps=1, num_components=3),
    "continuous": flows.ContinuousFlow((2,), hidden_sizes=(4,)),
    "standardized": flows.StandardizedFlow(INSIDE),
    "fixed": flows.StandardizedFlow(INSIDE, learned=False),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("real-nvp", "fixed") else [pytest.mark.slow])
        for name in FLOWS
    ],
)
def test_flows_of_rows_in_extreme_units_or_all_equal_have_finite_densities(name):
    model = models.FlowModel(FLOWS[name])
    rows = np.random.default_rng(1).normal(size=(64, 2))

    @jax.jit
    def run(data):
        variables = model.init(KEY, data)
        samples = model.apply(variables, KEY, 16, method="sample")
        return model.apply(variables, data, method="log_prob"), samples

    expected, _ = jax.device_get(run(rows.astype(np.float32)))
    # Of a flow that starts as a standardisation, densities follow the unit.
    for unit in (1e-20, 1e20):
        log_prob, samples = jax.device_get(run((rows * unit).astype(np.float32)))
        assert np.all(np.isfinite(samples))
        np.testing.assert_allclose(log_prob + 2 * np.log(unit), expected, rtol=1e-3, atol=0.05)
    equal = [jax.device_get(run(np.full((64, 2), value, np.float32))) for value in (0.1, 1000000.5)]
    for log_prob, samples in equal:
        assert np.all(np.isfinite(log_prob))
        assert np.all(np.isfinite(samples))
    np.testing.assert_allclose(equal[0][0], equal[1][0], atol=1e-3)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named_in_init(wrong):
    data = np.ones((5, 2), np.float32)
    data[3, 1] = wrong
    data[4, 0] = np.nan
    message = rf"got {wrong} in row 3, column 1 \(counted from 0\); 2 aren't"
    for module in (INSIDE, flows.BoundedFlow(INSIDE, -8, 8), flows.StandardizedFlow(INSIDE)):
        with pytest.raises(ValueError, match=message):
            module.init(KEY, data=data)
        with pytest.raises(ValueError, match=message):
            models.FlowModel(module).init(KEY, data)
    images = np.ones((2, 2, 2, 1), np.float32)
    images[1, 0, 1, 0] = wrong
    with pytest.raises(ValueError, match=r"in row 1, column \(0, 1, 0\)"):
        flows.Glow((2, 2, 1), num_levels=1, num_steps=1).init(KEY, data=images)
    jax.eval_shape(INSIDE.init, KEY, data=data)  # where values aren't known


def test_no_rows_are_refused_in_init():
    with pytest.raises(ValueError, match=r"a row or more in init, got shape \(0, 2\)"):
        INSIDE.init(KEY, data=np.zeros((0, 2)))
