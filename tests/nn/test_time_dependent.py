"""The velocity network of continuous flows against its formula."""

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import nn


def test_time_dependent_mlp_equals_its_formula_and_starts_at_zero():
    generator = np.random.default_rng(0)
    x, time, context = generator.normal(size=(5, 3)), generator.uniform(size=5), np.ones((5, 2))
    network = nn.TimeDependentMLP(3, (4,))
    arguments = [jnp.asarray(value, jnp.float32) for value in (x, time, context)]
    variables = network.init(jax.random.key(0), *arguments)
    np.testing.assert_array_equal(network.apply(variables, *arguments), np.zeros((5, 3)))
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), jnp.float32), variables
    )
    p = jax.tree.map(np.asarray, variables["params"])
    u = np.concatenate([time[:, None], context], axis=1)

    def layer(number, x):
        kernel, gate, shift = (p[f"{name}_{number}"] for name in ("layer", "gate", "shift"))
        gate = 1 / (1 + np.exp(-(u @ gate["kernel"] + gate["bias"])))
        return (x @ kernel["kernel"] + kernel["bias"]) * gate + u @ shift["kernel"]

    expected = layer(1, np.tanh(layer(0, x)))
    np.testing.assert_allclose(network.apply(variables, *arguments), expected, rtol=1e-4, atol=1e-5)
