"""Residual flows: their start, densities, contexts and probe noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.makers import flow as make_flow
from vaeflow import flows, models

KEY = jax.random.key(0)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def noisy(module, data, context=None, scale=0.5):
    """Variables initialised on data, with noise on all of them."""
    random = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: leaf + scale * np.float32(random.normal(size=leaf.shape)),
        module.init(KEY, context=context, data=data),
    )


def test_residual_flow_initially_standardises_the_first_batch():
    data = 3 + 2 * normal(0, 50, 3)
    flow = flows.ResidualFlow((3,), num_steps=2, hidden_sizes=(8, 8))

    @jax.jit
    def run(data):
        return flow.apply(flow.init(KEY, data=data)).inverse_and_log_det(data)

    noise, log_det = run(data)
    np.testing.assert_allclose(noise, (data - data.mean(0)) / data.std(0), atol=1e-4)
    np.testing.assert_allclose(log_det, np.full(50, -np.log(data.std(0)).sum()), rtol=1e-4)


@pytest.mark.parametrize("dimension", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_density_integrates_to_one(dimension):
    flow = flows.ResidualFlow((dimension,), num_steps=3, hidden_sizes=(4, 4), lipschitz=0.97)
    make = make_flow(flow, noise=0.5)
    points = {1: 4001, 2: 401}[dimension]
    line = np.linspace(-15, 15, points, dtype=np.float32)
    grid = np.stack(np.meshgrid(*[line] * dimension), axis=-1).reshape(-1, dimension)
    run = jax.jit(lambda key, grid: make(key).inverse_and_log_det(grid))
    noise, log_det = jax.device_get(run(jax.random.key(3), grid))
    log_density = np.sum(-(noise**2) / 2 - np.log(2 * np.pi) / 2, axis=-1) + log_det
    integral = np.sum(np.exp(log_density)) * (30 / (points - 1)) ** dimension
    np.testing.assert_allclose(integral, 1, atol=1e-3)
    assert np.std(log_det) > 0.02  # it isn't affine


@pytest.mark.slow
def test_density_depends_on_the_label():
    labels = np.array([0, 1, 0, 1])
    flow = flows.ResidualFlow((2,), num_steps=2, hidden_sizes=(8, 8), num_classes=2)

    @jax.jit
    def run(data, labels):
        bijector = flow.apply(noisy(flow, data, labels), context=labels)
        x = bijector.forward(jnp.ones((4, 2)))
        return x, bijector.inverse(x)

    x, back = jax.device_get(run(normal(0, 4, 2), labels))
    np.testing.assert_allclose(back, 1, atol=1e-4)
    np.testing.assert_array_equal(x[:2], x[2:])
    assert np.abs(x[0] - x[1]).max() > 1e-3


def test_probes_need_an_rng_and_are_unbiased():
    data = normal(0, 6, 3)
    exact_flow = flows.ResidualFlow((3,), num_steps=2, hidden_sizes=(8,))
    flow = exact_flow.clone(num_probes=1)
    variables = noisy(flow, data, scale=1.0)

    def log_prob(module, key=None):
        rngs = {} if key is None else {"probe": key}
        return models.FlowModel(module).apply(
            {"params": {"flow": variables["params"]}}, data, method="log_prob", rngs=rngs
        )

    @jax.jit
    def run(key):
        return log_prob(exact_flow), log_prob(flow), log_prob(exact_flow, key)

    exact, alone, never = jax.device_get(run(KEY))
    np.testing.assert_array_equal(alone, exact)
    np.testing.assert_array_equal(never, exact)
    keys = jax.jit(jax.random.split, static_argnums=1)(KEY, 4000)
    estimates = np.asarray(jax.jit(jax.vmap(lambda key: log_prob(flow, key)))(keys))
    deviations = estimates.std(axis=0)
    assert deviations.min() > 0.01
    error = deviations / np.sqrt(len(keys))
    assert error.max() < 0.01
    assert np.all(np.abs(estimates.mean(axis=0) - exact) < 4.5 * error)
    # Rows have probes of their own. The lengths of the series, which they share, matter little.
    correlations = np.corrcoef(estimates.T) - np.eye(len(data))
    assert np.abs(correlations).max() < 0.5
    more = np.asarray(jax.jit(jax.vmap(lambda key: log_prob(flow.clone(num_probes=4), key)))(keys))
    assert np.all(more.std(axis=0) < 0.8 * deviations)


def test_draws_have_axes_for_steps_probes_and_rows():
    flow = flows.ResidualFlow((3,), num_steps=4, hidden_sizes=(8, 8), num_probes=2)
    data = np.zeros((5, 3), np.float32)

    @jax.jit
    def draws(key):
        variables = flow.init(KEY, data=data)
        return [
            flow.apply(variables, rngs={"probe": key}, **options).bijector.variables["draws"]
            for options in ({"data": data}, {})
        ]

    for rows, drawn in zip(((5,), ()), jax.device_get(draws(KEY)), strict=True):
        assert drawn["probes"].shape == (4, 2, *rows, 3)
        np.testing.assert_array_equal(np.abs(drawn["probes"]), 1)
        assert len(set(drawn["roulette"].tolist())) == 4
        assert not np.array_equal(drawn["probes"][0], drawn["probes"][1])
    jax.eval_shape(flow.init, {"params": KEY, "probe": KEY}, data=data)
    with pytest.raises(ValueError, match="num_probes must be at least 0, got -1"):
        flow.clone(num_probes=-1).init(KEY)


@pytest.mark.parametrize("backward", [pytest.param("remat", marks=pytest.mark.slow), "reversible"])
@pytest.mark.slow
def test_backward_options_have_the_same_gradients_of_estimates(backward):
    data = normal(0, 5, 2)
    flow = flows.ResidualFlow((2,), num_steps=2, hidden_sizes=(4,), num_probes=1)
    variables = noisy(flow, data)

    def loss(module, variables):
        bijector = module.apply(variables, data=data, rngs={"probe": KEY})
        noise, log_det = bijector.inverse_and_log_det(data)
        return jnp.sum(noise**2) - jnp.sum(log_det)

    @jax.jit
    def run(variables):
        gradient = jax.grad(loss, 1)
        return gradient(flow.clone(backward=backward), variables), gradient(flow, variables)

    got, expected = jax.device_get(run(variables))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
