"""The velocity network of continuous flows against its formula."""

import jax
import numpy as np

from vaeflow import nn


def test_time_dependent_mlp_equals_its_formula_and_starts_at_zero():
    generator = np.random.default_rng(0)
    x, time, context = generator.normal(size=(5, 3)), generator.uniform(size=5), np.ones((5, 2))
    network = nn.TimeDependentMLP(3, (4,))
    arguments = [np.float32(value) for value in (x, time, context)]
    y, variables = jax.jit(network.init_with_output)(jax.random.key(0), *arguments)
    np.testing.assert_array_equal(y, np.zeros((5, 3)))
    variables = jax.tree.map(
        lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), variables
    )
    p = variables["params"]
    u = np.concatenate([time[:, None], context], axis=1)

    def layer(number, x):
        kernel, gate, shift = (p[f"{name}_{number}"] for name in ("layer", "gate", "shift"))
        gate = 1 / (1 + np.exp(-(u @ gate["kernel"] + gate["bias"])))
        return (x @ kernel["kernel"] + kernel["bias"]) * gate + u @ shift["kernel"]

    expected = layer(1, np.tanh(layer(0, x)))
    found = jax.jit(network.apply)(variables, *arguments)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
