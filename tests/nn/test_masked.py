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


def pattern(module, features=None):
    """Whether any output for dimension i depends on dimension j, at random weights: [i, j]."""
    context = None if features is None else normal(8, features, seed=1)

    @jax.jit
    def largest(x, context):
        shapes = jax.eval_shape(module.init, jax.random.key(0), x, context)
        leaves, structure = jax.tree.flatten(shapes)
        drawn = [normal(*leaf.shape, seed=number) for number, leaf in enumerate(leaves)]
        variables = jax.tree.unflatten(structure, drawn)
        outputs, pull_back = jax.vjp(lambda x: module.apply(variables, x, context), x)
        # All parameters of a dimension together, by random weights; one dimension after another.
        weights = normal(*outputs.shape, seed=9)
        rows = jnp.eye(module.dimension)[:, None, :, None] * weights
        return jnp.max(jnp.abs(jax.lax.map(lambda row: pull_back(row)[0], rows)), axis=1)

    return np.asarray(largest(normal(8, module.dimension), context)) > 0


@pytest.mark.parametrize(
    ("dimension", "features"), [(100, None), pytest.param(100, 2, marks=pytest.mark.slow)]
)
def test_default_networks_read_every_dimension_before(dimension, features):
    module = nn.MaskedMLP(dimension, num_parameters=2, activation=jnp.tanh)
    np.testing.assert_array_equal(pattern(module, features), np.tri(dimension, k=-1, dtype=bool))


@pytest.mark.parametrize(
    ("hidden", "features", "degrees"),
    [
        ((11,), None, range(1, 12)),
        ((12, 11), None, range(1, 12)),
        ((12,), 2, range(12)),
        ((4,), None, (1, 3, 6, 9)),
        ((4, 20), 2, (0, 3, 6, 9)),
    ],
)
def test_networks_read_as_far_as_their_degrees(hidden, features, degrees):
    """The first layer is the narrowest, with one unit of each of these degrees."""
    module = nn.MaskedMLP(12, num_parameters=1, hidden_sizes=hidden, activation=jnp.tanh)
    expected = np.zeros((12, 12), bool)
    for dimension in range(12):
        expected[dimension, : max((d for d in degrees if d <= dimension), default=0)] = True
    np.testing.assert_array_equal(pattern(module, features), expected)


def test_default_widths_are_those_of_stored_files_up_to_their_number():
    def widths(dimension):
        module = nn.MaskedMLP(dimension, num_parameters=1)
        shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, dimension)))["params"]
        return shapes["kernel_0"].shape[1], shapes["kernel_1"].shape[1]

    assert widths(3) == widths(64) == (64, 64)
    assert widths(65) == (65, 65)


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
