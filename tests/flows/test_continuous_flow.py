"""Continuous flows: initial state, densities, estimated traces, contexts and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import bijectors, distributions, flows, models


def small(channels, **options):
    return flows.ContinuousFlow((channels,), **({"hidden_sizes": (8,)} | options))


def noisy(module, data, context=None, scale=0.5):
    variables = module.init(jax.random.key(0), context, data=data)
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        leaf + scale * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def test_continuous_flow_initially_standardises_the_first_batch():
    data = 3 + 2 * jax.random.normal(jax.random.key(1), (50, 3))
    module = small(3, num_steps=2)
    variables = module.init(jax.random.key(0), data=data)
    bijector = module.apply(variables)
    kinds = [type(part) for part in bijector.bijectors]
    assert kinds == [bijectors.Inverse, bijectors.Continuous, bijectors.Continuous]
    noise, log_det = jax.jit(bijector.inverse_and_log_det)(data)
    np.testing.assert_allclose(noise, (data - data.mean(0)) / data.std(0), atol=1e-5)
    np.testing.assert_allclose(log_det, -jnp.sum(jnp.log(data.std(0))), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_density_integrates_to_one(channels):
    module = small(channels)
    variables = noisy(module, jax.random.normal(jax.random.key(2), (32, channels)))
    density = distributions.Transformed(
        distributions.standard_normal((channels,)), module.apply(variables)
    )
    side = jnp.linspace(-12, 12, 4001 if channels == 1 else 161)
    grid = jnp.stack(jnp.meshgrid(*[side] * channels), axis=-1).reshape(-1, channels)
    cell = float(side[1] - side[0]) ** channels
    total = np.sum(np.exp(jax.jit(density.log_prob)(grid))) * cell
    np.testing.assert_allclose(total, 1, atol=1e-3)


def test_probes_need_an_rng():
    data = jax.random.normal(jax.random.key(2), (256, 3))
    model = models.FlowModel(small(3, num_probes=2, num_steps=2))
    variables = {"params": {"flow": noisy(model.flow, data)["params"]}}
    exact_model = models.FlowModel(small(3, num_steps=2))

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

    alone, exact, estimated, never = run(jax.random.key(3))
    np.testing.assert_array_equal(alone, exact)
    np.testing.assert_array_equal(never, exact)
    difference = estimated - exact
    assert np.std(difference) > 0.01
    assert abs(np.mean(difference)) < 4 * np.std(difference) / np.sqrt(len(data))
    # Every example has signs of its own.
    assert len(np.unique(np.round(difference, 4))) > 64
    again = run(jax.random.key(4))[2]
    assert np.std(again - estimated) > 0.01


def test_density_depends_on_the_label():
    module = small(2, num_classes=2)
    labels = jnp.array([0, 1])
    data = jnp.ones((2, 2)) * jnp.array([0.5, -0.5])
    variables = noisy(module, jax.random.normal(jax.random.key(2), (2, 2)), labels)
    both = jax.jit(lambda labels: module.apply(variables, labels).inverse(data))(labels)
    swapped = jax.jit(lambda labels: module.apply(variables, labels).inverse(data))(1 - labels)
    np.testing.assert_allclose(both, swapped[::-1], atol=1e-5)
    assert np.max(np.abs(both[0] - both[1])) > 1e-3


def test_wrong_fields_raise():
    with pytest.raises(ValueError, match=r"event_shape must be \(channel,\).*got \(2, 2\)"):
        flows.ContinuousFlow((2, 2)).init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"num_steps must be at least 1 .* got 0 and 0"):
        small(2, num_steps=0).init(jax.random.key(0))
    with pytest.raises(ValueError, match="num_probes at least 0, got 1 and -1"):
        small(2, num_probes=-1).init(jax.random.key(0))
