"""Continuous flows: initial state, densities, estimated traces, contexts and errors."""

import jax
import numpy as np
import pytest

from vaeflow import bijectors, distributions, flows, models


def small(channels, **options):
    return flows.ContinuousFlow((channels,), **({"hidden_sizes": (8,)} | options))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def noisy(module, data, context=None, scale=0.5):
    """Variables initialised on data, with noise on all of them; in `jax.jit`, where it is
    constant."""
    random = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: leaf + scale * np.float32(random.normal(size=leaf.shape)),
        module.init(jax.random.key(0), context=context, data=data),
    )


def test_continuous_flow_initially_standardises_the_first_batch():
    data = 3 + 2 * normal(1, 50, 3)
    module = small(3)

    @jax.jit
    def run(data):
        return module.apply(module.init(jax.random.key(0), data=data)).inverse_and_log_det(data)

    noise, log_det = run(data)
    np.testing.assert_allclose(noise, (data - data.mean(0)) / data.std(0), atol=1e-5)
    np.testing.assert_allclose(log_det, np.full(50, -np.sum(np.log(data.std(0)))), atol=1e-5)


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_density_integrates_to_one(channels):
    module = small(channels)
    data = normal(2, 32, channels)

    @jax.jit
    def log_prob(data, grid):
        noise = distributions.standard_normal((channels,))
        bijector = module.apply(noisy(module, data))
        return distributions.Transformed(noise, bijector).log_prob(grid)

    side = np.linspace(-12, 12, 4001 if channels == 1 else 161, dtype=np.float32)
    grid = np.stack(np.meshgrid(*[side] * channels), axis=-1).reshape(-1, channels)
    total = np.sum(np.exp(log_prob(data, grid))) * (side[1] - side[0]) ** channels
    np.testing.assert_allclose(total, 1, atol=1e-3)


@pytest.mark.slow
def test_probes_need_an_rng():
    data = normal(2, 256, 3)
    model = models.FlowModel(small(3, num_probes=2))
    exact_model = models.FlowModel(small(3))
    variables = {"params": {"flow": jax.jit(noisy, static_argnums=0)(model.flow, data)["params"]}}

    @jax.jit
    def run(key):
        def log_prob(model, **options):
            return model.apply(variables, data, method="log_prob", **options)

        estimated = log_prob(model, rngs={"probe": key})
        return (
            log_prob(model),
            log_prob(exact_model),
            estimated,
            log_prob(exact_model, rngs={"probe": key}),
        )

    alone, exact, estimated, never = jax.device_get(run(jax.random.key(3)))
    np.testing.assert_array_equal(alone, exact)
    np.testing.assert_array_equal(never, exact)
    difference = estimated - exact
    assert np.std(difference) > 0.01
    assert abs(np.mean(difference)) < 4 * np.std(difference) / np.sqrt(len(data))
    # Every example has signs of its own.
    assert len(np.unique(np.round(difference, 4))) > 64
    again = jax.device_get(run(jax.random.key(4)))[2]
    assert np.std(again - estimated) > 0.01


def test_steps_are_equations_with_probes_of_their_own():
    flow = small(3, num_probes=2, num_steps=3)

    @jax.jit
    def draws(key):
        variables = flow.init(key)
        actnorm, *steps = flow.apply(variables, rngs={"probe": key}).bijectors
        assert isinstance(actnorm, bijectors.Inverse)
        assert [type(step) for step in steps] == [bijectors.Continuous] * 3
        return [jax.random.bits(step.probe_key) for step in steps]

    assert len(set(map(int, draws(jax.random.key(0))))) == 3


def test_density_depends_on_the_label():
    module = small(2, num_classes=2)
    labels = np.array([0, 1])
    data = np.float32([[0.5, -0.5]] * 2)
    variables = jax.jit(noisy, static_argnums=0)(module, normal(2, 2, 2), labels)
    run = jax.jit(lambda labels: module.apply(variables, context=labels).inverse(data))
    both, swapped = jax.device_get((run(labels), run(1 - labels)))
    np.testing.assert_allclose(both, swapped[::-1], atol=1e-5)
    assert np.max(np.abs(both[0] - both[1])) > 1e-3


def test_wrong_fields_raise():
    with pytest.raises(ValueError, match=r"event_shape must be \(channel,\).*got \(2, 2\)"):
        flows.ContinuousFlow((2, 2)).init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"num_steps must be at least 1 .* got 0 and 0"):
        small(2, num_steps=0).init(jax.random.key(0))
    with pytest.raises(ValueError, match="num_probes at least 0, got 1 and -1"):
        small(2, num_probes=-1).init(jax.random.key(0))
