"""Residual flows: their start, densities, contexts and probe noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.makers import flow as make_flow
from vaeflow import flows, models

KEY = jax.random.key(0)


def noisy(module, data, context=None, scale=0.5):
    """Variables initialised on data, with noise on all of them."""
    leaves, structure = jax.tree.flatten(jax.jit(module.init)(KEY, context, data=data))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        leaf + scale * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def test_residual_flow_initially_standardises_the_first_batch():
    data = 3 + 2 * jax.random.normal(KEY, (50, 3))
    flow = flows.ResidualFlow((3,), num_steps=2, hidden_sizes=(8, 8))
    noise, log_det = flow.apply(flow.init(KEY, data=data)).inverse_and_log_det(data)
    np.testing.assert_allclose(noise, (data - data.mean(0)) / data.std(0), atol=1e-4)
    np.testing.assert_allclose(log_det, -np.log(data.std(0)).sum(), rtol=1e-4)


@pytest.mark.parametrize("dimension", [1, 2])
def test_density_integrates_to_one(dimension):
    flow = flows.ResidualFlow((dimension,), num_steps=3, hidden_sizes=(4, 4), lipschitz=0.97)
    bijector = make_flow(flow, noise=0.5)(jax.random.key(3))
    points = {1: 4001, 2: 401}[dimension]
    line = jnp.linspace(-15, 15, points)
    grid = jnp.stack(jnp.meshgrid(*[line] * dimension), axis=-1).reshape(-1, dimension)
    noise, log_det = jax.jit(bijector.inverse_and_log_det)(grid)
    log_density = jnp.sum(-(noise**2) / 2 - np.log(2 * np.pi) / 2, axis=-1) + log_det
    integral = jnp.sum(jnp.exp(log_density)) * (30 / (points - 1)) ** dimension
    np.testing.assert_allclose(integral, 1, atol=1e-3)
    assert jnp.std(log_det) > 0.02  # it isn't affine


def test_density_depends_on_the_label():
    labels = jnp.array([0, 1, 0, 1])
    flow = flows.ResidualFlow((2,), num_steps=2, hidden_sizes=(8, 8), num_classes=2)
    data = jax.random.normal(KEY, (4, 2))
    bijector = flow.apply(noisy(flow, data, labels), labels)
    x = bijector.forward(jnp.ones((4, 2)))
    np.testing.assert_allclose(bijector.inverse(x), 1, atol=1e-4)
    np.testing.assert_array_equal(x[:2], x[2:])
    assert jnp.abs(x[0] - x[1]).max() > 1e-3


def test_probes_need_an_rng_and_are_unbiased():
    data = jax.random.normal(KEY, (6, 3))
    exact_flow = flows.ResidualFlow((3,), num_steps=2, hidden_sizes=(8, 8))
    flow = exact_flow.clone(num_probes=1)
    variables = noisy(flow, data, scale=1.0)

    def log_prob(module, key=None):
        rngs = {} if key is None else {"probe": key}
        return models.FlowModel(module).apply(
            {"params": {"flow": variables["params"]}}, data, method="log_prob", rngs=rngs
        )

    exact = log_prob(exact_flow)
    np.testing.assert_array_equal(log_prob(flow), exact)
    np.testing.assert_array_equal(log_prob(exact_flow, KEY), exact)
    keys = jax.random.split(KEY, 4000)
    estimates = np.asarray(jax.jit(jax.vmap(lambda key: log_prob(flow, key)))(keys))
    deviations = estimates.std(axis=0)
    assert deviations.min() > 0.01
    error = deviations / np.sqrt(len(keys))
    assert error.max() < 0.01
    assert np.all(np.abs(estimates.mean(axis=0) - exact) < 4.5 * error)
    # Rows have probes of their own. The lengths of the series, which they share, matter little.
    correlations = np.corrcoef(estimates.T) - np.eye(len(data))
    assert np.abs(correlations).max() < 0.5
    more = np.asarray(
        jax.jit(jax.vmap(lambda key: log_prob(flow.clone(num_probes=4), key)))(keys[:1000])
    )
    assert np.all(more.std(axis=0) < 0.8 * deviations)


def test_draws_have_axes_for_steps_probes_and_rows():
    flow = flows.ResidualFlow((3,), num_steps=4, hidden_sizes=(8, 8), num_probes=2)
    data = jnp.zeros((5, 3))
    variables = flow.init(KEY, data=data)

    def draws(context=None, **options):
        bijector = flow.apply(variables, context, rngs={"probe": KEY}, **options)
        return bijector.bijector.variables["draws"]

    for rows, options in (((5,), {"data": data}), ((), {})):
        drawn = draws(**options)
        assert drawn["probes"].shape == (4, 2, *rows, 3)
        np.testing.assert_array_equal(np.abs(drawn["probes"]), 1)
        assert len(set(drawn["roulette"].tolist())) == 4
        assert not np.array_equal(drawn["probes"][0], drawn["probes"][1])
    flow.init({"params": KEY, "probe": KEY}, data=data)
    with pytest.raises(ValueError, match="num_probes must be at least 0, got -1"):
        flow.clone(num_probes=-1).init(KEY)


@pytest.mark.parametrize("backward", ["remat", "reversible"])
def test_backward_options_have_the_same_gradients_of_estimates(backward):
    data = jax.random.normal(KEY, (5, 2))
    flow = flows.ResidualFlow((2,), num_steps=3, hidden_sizes=(4, 4), num_probes=1)
    variables = noisy(flow, data)

    def loss(module, variables):
        bijector = module.apply(variables, data=data, rngs={"probe": KEY})
        noise, log_det = bijector.inverse_and_log_det(data)
        return jnp.sum(noise**2) - jnp.sum(log_det)

    got = jax.jit(jax.grad(lambda v: loss(flow.clone(backward=backward), v)))(variables)
    expected = jax.jit(jax.grad(lambda v: loss(flow, v)))(variables)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
