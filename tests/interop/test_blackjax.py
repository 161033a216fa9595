"""Pullbacks of log-densities through flows: values, gradients, compilation, and NUTS on them."""

from __future__ import annotations

import functools

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaeflow as vf
from tests.interop.targets import (
    BANANA_DEVIATIONS,
    BananaFlow,
    LinearFlow,
    Passes,
    banana,
)
from tests.variables import drawn_variables
from vaeflow.interop.arviz import from_chains
from vaeflow.interop.blackjax import Chains, nuts, pull_back

NOISE = jnp.asarray([0.3, -0.8])
FLOW = vf.flows.RealNVP((2,), num_steps=2, hidden_features=4)


def test_value_gradient_and_position_are_those_of_the_definition():
    variables = drawn_variables(FLOW.init)
    pullback = pull_back(banana, FLOW)

    @jax.jit
    def by_definition(noise):
        def position(noise):
            return FLOW.apply(variables).forward(noise)

        def value(noise):
            log_det = jnp.linalg.slogdet(jax.jacrev(position)(noise))[1]
            return banana(position(noise)) + log_det

        steps = 1e-3 * jnp.eye(2)
        differences = [(value(noise + step) - value(noise - step)) / 2e-3 for step in steps]
        return value(noise), jnp.stack(differences), position(noise)

    value, gradient, position = by_definition(NOISE)
    evaluation = pullback.value_and_gradient(variables, NOISE)
    np.testing.assert_allclose(evaluation.value, value, rtol=1e-5)
    np.testing.assert_allclose(evaluation.gradient, gradient, rtol=5e-3)
    np.testing.assert_allclose(evaluation.position, position, rtol=1e-5)
    np.testing.assert_allclose(pullback(variables, NOISE), value, rtol=1e-5)
    np.testing.assert_allclose(pullback.to_data(variables, NOISE), position, rtol=1e-5)
    np.testing.assert_allclose(pullback.to_noise(variables, position), NOISE, rtol=1e-4)


def test_value_and_gradient_pass_once_and_compile_once():
    traces = []

    def log_density(x):
        traces.append(1)
        return banana(x)

    passes = Passes(traced=True)
    flow = LinearFlow((2,), passes)
    initial = flow.init(jax.random.key(0))
    for shift in (0.0, 1.0, 2.0):
        variables = jax.tree.map(lambda leaf, shift=shift: leaf + shift, initial)
        # Another pullback, of an equal flow: it takes what was compiled for the first.
        pullback = pull_back(log_density, LinearFlow((2,), passes))
        evaluation = pullback.value_and_gradient(variables, NOISE)
        bijector = flow.apply(variables)
        np.testing.assert_allclose(evaluation.position, bijector.forward(NOISE), rtol=1e-5)
        expected = banana(evaluation.position) + bijector.forward_log_det_jacobian(NOISE)
        np.testing.assert_allclose(evaluation.value, expected, rtol=1e-5)
    assert len(traces) == 1
    assert (passes.forward, passes.inverse) == (1, 0)


def test_the_pullback_of_an_exact_flow_is_a_standard_normal():
    pullback = pull_back(banana, BananaFlow())
    points = np.float32(np.random.RandomState(0).normal(size=(6, 2)))
    value, gradient, position = jax.vmap(pullback.value_and_gradient, (None, 0))({}, points)
    np.testing.assert_allclose(value, np.log(2) - 0.5 * np.sum(points**2, 1), rtol=1e-4)
    np.testing.assert_allclose(gradient, -points, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pullback.to_noise({}, position), points, rtol=1e-3, atol=1e-4)


def test_a_context_reaches_the_flow():
    flow = LinearFlow((2,))
    variables = flow.init(jax.random.key(0))
    pullback = pull_back(banana, flow)
    context = jnp.asarray([2.0, -1.0])
    evaluation = pullback.value_and_gradient(variables, NOISE, context)
    np.testing.assert_allclose(evaluation.position, NOISE + context, rtol=1e-6)
    np.testing.assert_allclose(evaluation.value, banana(NOISE + context), rtol=1e-5)
    np.testing.assert_allclose(
        pullback.to_noise(variables, evaluation.position, context), NOISE, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pull_back(3.0, FLOW), "log_density must be a function of one point, got a float"),
        (lambda: pull_back(banana, banana), "flow must be a flow, got a function"),
        (
            lambda: pull_back(lambda x: x, BananaFlow())({}, NOISE),
            r"log_density must return a scalar for one point of shape \(2,\), got shape \(2,\)",
        ),
        (lambda: run(num_chains=0), "num_chains must be an integer of at least 1, got 0"),
        (lambda: run(num_warmup=3), "num_warmup must be an integer of at least 20, got 3"),
        (
            lambda: run(target_acceptance_rate=1.0),
            "target_acceptance_rate must be between 0 and 1, got 1.0",
        ),
        (
            lambda: run(initial=jnp.zeros((3, 2)), num_chains=4),
            r"initial must have shape \(4, 2\), one point a chain, got \(3, 2\)",
        ),
        (lambda: run(rng=jax.random.PRNGKey(0)), "rng must be typed keys"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def run(rng=None, **options) -> Chains:
    rng = jax.random.key(0) if rng is None else rng
    return nuts(pull_back(banana, BananaFlow()), {}, rng, **options)


def check_banana(chains: Chains) -> float:
    """Checks moments against the truth, within their errors; returns effective samples a draw."""
    data = from_chains(chains.samples, chains.statistics)
    assert np.all(arviz.rhat(data)["x"].values < 1.1)
    flat = np.asarray(chains.samples).reshape(-1, 2) / BANANA_DEVIATIONS
    effective = arviz.ess(data, method="mean")["x"].values
    np.testing.assert_array_less(np.abs(flat.mean(0)), 4 / np.sqrt(effective))
    # The deviation of a squared standard normal is sqrt(2); that of the second dimension is larger.
    squares = from_chains(chains.samples**2)
    errors = np.std(flat**2, 0) / np.sqrt(arviz.ess(squares, method="mean")["x"].values)
    np.testing.assert_array_less(np.abs(np.mean(flat**2, 0) - 1), 4 * errors)
    assert np.all(effective > 40)
    return np.min(effective) / len(flat)


@pytest.mark.slow
def test_nuts_in_the_space_of_an_exact_flow_starts_where_told_and_samples_the_banana():
    initial = np.float32([[2, 0], [-2, 0]])
    chains = run(num_samples=2000, num_warmup=300, num_chains=2, initial=initial)
    assert chains.samples.shape == chains.noise.shape == (2, 2000, 2)
    assert {values.shape for values in chains.statistics.values()} == {(2, 2000)}
    assert chains.step_size.shape == (2,)
    assert chains.inverse_mass_matrix.shape == (2, 2)
    moved = BananaFlow().apply({}).forward(chains.noise)
    np.testing.assert_allclose(moved, chains.samples, rtol=1e-4, atol=1e-4)
    nats = chains.statistics["lp"]
    np.testing.assert_allclose(
        nats, np.log(2) - 0.5 * np.sum(np.square(chains.noise), -1), rtol=1e-3, atol=1e-3
    )
    assert not np.any(chains.statistics["diverging"])
    assert 0.6 < np.mean(chains.statistics["acceptance_rate"]) < 0.99
    assert check_banana(chains) > 0.5
    elsewhere = run(num_samples=2000, num_warmup=300, num_chains=2, initial=-initial)
    assert not np.array_equal(elsewhere.noise, chains.noise)


@pytest.mark.slow
def test_nuts_with_and_without_a_learned_flow_samples_the_banana_and_compiles_once():
    traces = []

    def log_density(x):
        traces.append(1)
        return banana(x)

    flow = vf.flows.RealNVP((2,), num_steps=4, hidden_features=32)
    model = vf.models.FlowModel(flow)
    variables = jax.jit(model.init)(jax.random.key(0))
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, 1500))
    state = vf.training.create_train_state(variables, optimizer)
    loss = functools.partial(vf.losses.reverse_kl, energy=lambda x: -jax.vmap(banana)(x))
    step = jax.jit(vf.training.make_update(model, loss, optimizer))
    batch = {"image": jnp.zeros((128, 1))}
    for key in jax.random.split(jax.random.key(1), 1500):
        state, _ = step(state, batch, key)
    learned = {"params": vf.training.variables_of(state)["params"]["flow"]}
    pullback = pull_back(log_density, flow)
    with_flow = nuts(pullback, learned, jax.random.key(0), num_samples=1500, num_warmup=400)
    once = len(traces)
    nuts(
        pullback,
        jax.tree.map(lambda leaf: 0.9 * leaf, learned),
        jax.random.key(0),
        num_samples=1500,
        num_warmup=400,
    )
    assert len(traces) == once
    identity = LinearFlow((2,))
    alone = nuts(
        pull_back(banana, identity),
        identity.init(jax.random.key(0)),
        jax.random.key(0),
        num_samples=1500,
        num_warmup=400,
    )
    # The chains of the same number of draws, each with a fraction of the gradients.
    assert check_banana(with_flow) > 3 * check_banana(alone)
    gradients = [np.mean(chains.statistics["n_steps"]) for chains in (with_flow, alone)]
    assert gradients[0] < gradients[1]
