"""Scales and shifts from the first batch, learned or fixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import flows, models

UNITS = np.array([1e-25, 1e-6, 1.0, 300.0, 1e20])
ROWS = np.random.default_rng(0).normal(size=(400, 5)) @ np.tri(5) + np.arange(5)
INNER = flows.RealNVP((5,), num_steps=2, hidden_features=4, num_blocks=1)


@pytest.fixture(scope="module")
def fitted():
    model = models.FlowModel(flows.StandardizedFlow(INNER, learned=False))
    rows = (ROWS * UNITS).astype(np.float32)
    return model, jax.jit(model.init)(jax.random.key(0), rows), rows


def test_fixed_statistics_are_those_of_the_batch_in_any_unit(fitted):
    _, variables, rows = fitted
    constants = variables["constants"]["flow"]
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(constants["shift"], exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(constants["log_scale"], np.log(exact.std(0)), rtol=1e-6, atol=2e-6)
    assert variables["params"]["flow"].keys() == {"flow"}


def test_the_log_determinant_of_the_units_is_exact(fitted):
    model, variables, rows = fitted
    exact = rows.astype(np.float64)
    standard = ((exact - exact.mean(0)) / exact.std(0)).astype(np.float32)
    inner = {"params": variables["params"]["flow"]["flow"]}
    bijector = INNER.apply(inner)
    noise, log_det = bijector.inverse_and_log_det(jnp.asarray(standard))
    normal = -0.5 * jnp.sum(noise**2 + jnp.log(2 * jnp.pi), axis=-1)
    expected = np.asarray(normal + log_det, np.float64) - np.log(exact.std(0)).sum()
    result = model.apply(variables, rows, method="log_prob")
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


def test_samples_have_the_units_of_the_data(fitted):
    model, variables, rows = fitted
    samples = model.apply(variables, jax.random.key(1), 4000, method="sample")
    np.testing.assert_allclose(jnp.mean(samples / UNITS, 0), (rows / UNITS).mean(0), atol=0.3)
    assert np.all(np.isfinite(samples))


def test_a_constant_dimension_is_only_shifted():
    flow = flows.StandardizedFlow(INNER, learned=False)
    rows = jnp.asarray(ROWS, jnp.float32).at[:, 2].set(7.0)
    constants = flow.init(jax.random.key(0), data=rows)["constants"]
    assert (constants["shift"][2], constants["log_scale"][2]) == (7.0, 0.0)
    without = flow.init(jax.random.key(0))["constants"]
    assert all(not np.any(leaf) for leaf in without.values())


def test_learned_statistics_are_parameters():
    flow = flows.StandardizedFlow(INNER)
    variables = flow.init(jax.random.key(0), data=jnp.asarray(ROWS, jnp.float32))
    assert variables.keys() == {"params"}
    np.testing.assert_allclose(variables["params"]["shift"], ROWS.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(variables["params"]["log_scale"], np.log(ROWS.std(0)), atol=1e-5)
