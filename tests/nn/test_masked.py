"""Masked networks: dependence of the outputs on the dimensions before, start and precision."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.makers_autoregressive import network
from vaeflow import nn


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("hidden", [(8,), (8, 9, 10)])
@pytest.mark.parametrize("features", [None, 3])
def test_outputs_depend_on_exactly_the_dimensions_before(hidden, features):
    context = None if features is None else normal(5, features, seed=1)

    @jax.jit
    def largest(x, context):
        """Derivatives of any output for dimension i by dimension j, over the batch: [i, j]."""
        made = network(jax.random.key(0), 6, 2, context, hidden)
        rows = None if context is None else context[:, None]
        single = jax.jacobian(lambda x, c: made.module.apply(made.variables, x[None], c)[0])
        return jnp.max(jnp.abs(jax.vmap(single)(x, rows)), axis=(0, 2))

    got = np.asarray(largest(normal(5, 6), context))
    before = np.tri(6, k=-1, dtype=bool)
    assert (got[~before] == 0).all()
    assert (got[before] > 0).all()


@pytest.mark.parametrize("entries", [1, 4])
def test_context_reaches_the_outputs_of_every_dimension(entries):
    @jax.jit
    def slopes(context):
        made = network(jax.random.key(1), entries, 2, context)
        x = jnp.ones((3, entries))
        return jax.jacobian(lambda c: made.module.apply(made.variables, x, c))(context)

    assert (np.abs(np.asarray(slopes(normal(3, 2)))[0, :, :, 0]) > 0).all()


def test_last_layer_starts_at_zero_and_weighted_inputs_near_variance_two():
    module = nn.MaskedMLP(20, num_parameters=2, hidden_sizes=(400, 400))
    x = normal(500, 20)
    y, variables = jax.device_get(jax.jit(module.init_with_output)(jax.random.key(1), x))
    assert (y == 0).all()
    first = x @ variables["params"]["kernel_0"]
    np.testing.assert_allclose(np.var(first, axis=0).mean(), 2, rtol=0.1)


def test_units_of_one_dimension_have_different_kinks():
    module = nn.MaskedMLP(2, num_parameters=2, hidden_sizes=(64,))
    init = jax.jit(module.init)
    variables = jax.device_get(init(jax.random.key(0), np.zeros((1, 2), np.float32))["params"])
    kinks = -variables["bias_0"] / variables["kernel_0"][0]
    assert (np.histogram(kinks, [-4.0, -2, -1, 0, 1, 2, 4])[0] > 0).all()


def test_outputs_of_one_dimension_without_context_are_biases():
    run = jax.jit(lambda x: network(jax.random.key(2), 1, 3)(x))
    outputs = np.asarray(run(np.float32([[-5.0], [9.0]])))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs != 0).all()


def test_bfloat16_network_gives_float32_outputs_near_those_of_float32():
    x = normal(5, 6)

    @jax.jit
    def run(x):
        exact = network(jax.random.key(3), 6, 2, hidden_sizes=(16, 16))
        module = exact.module.clone(dtype=jnp.bfloat16)
        return exact, exact(x), module.apply(exact.variables, x)

    exact, fine, rough = run(x)
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, fine, atol=0.05)
    assert (np.asarray(rough) != fine).any()
    module = exact.module.clone(dtype=jnp.bfloat16)

    def loss(variables, x):
        return jnp.sum(module.apply(variables, x) ** 2)

    text = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(exact.variables, x))
    products = re.findall(r"dot_general\[.*?\] (\w+) (\w+)", text, re.DOTALL)
    assert len(products) == 9
    for name in {name for pair in products for name in pair}:
        assert f"{name}:bf16[" in text


@pytest.mark.parametrize("shape", [(3, 1), (3, 5)])
def test_another_dimension_raises(shape):
    conditioner = jax.jit(lambda: network(jax.random.key(5), 4, 2))()
    with pytest.raises(ValueError, match=rf"shape \(4,\), got an array of shape \(3, {shape[1]}\)"):
        conditioner(np.zeros(shape, np.float32))
