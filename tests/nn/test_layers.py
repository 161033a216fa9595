"""Normalised convolutions, blocks, and the networks of couplings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import nn
from vaeflow.nn.convolution import convolution
from vaeflow.nn.normalization import ActNormConv


def perturbed(variables, scale=0.1):
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    noise = [scale * jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, [a + b for a, b in zip(leaves, noise, strict=True)])


def test_normalized_conv_standardises_the_first_batch_only():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (8, 6, 6, 3))
    layer = ActNormConv(5)
    variables = layer.init(jax.random.key(1), x)
    y = layer.apply(variables, x)
    np.testing.assert_allclose(jnp.mean(y, (0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(jnp.std(y, (0, 1, 2)), 1, atol=1e-4)
    other = layer.apply(variables, 10 * x)
    assert jnp.std(other) > 5


def test_normalized_conv_equals_convolution_then_actnorm():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    layer = ActNormConv(5)
    parameters = perturbed(layer.init(jax.random.key(1), x))["params"]
    convolved = convolution(x, parameters["kernel"])
    expected = (convolved + parameters["shift"]) * jnp.exp(parameters["log_scale"])
    np.testing.assert_allclose(layer.apply({"params": parameters}, x), expected, atol=1e-4)


def test_residual_block_starts_as_the_identity_and_then_learns():
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    block = nn.ResidualBlock(7)
    variables = block.init(jax.random.key(1), x)
    np.testing.assert_array_equal(block.apply(variables, x), x)
    assert jnp.abs(block.apply(perturbed(variables), x) - x).max() > 1e-2


def test_gated_conv_is_a_product_with_a_sigmoid():
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    layer = nn.GatedConv(4, (3, 3), (2, 2))
    variables = layer.init(jax.random.key(1), x)
    parameters = variables["params"]["Conv_0"]
    both = convolution(x, parameters["kernel"], (2, 2)) + parameters["bias"]
    expected = both[..., :4] / (1 + jnp.exp(-both[..., 4:]))
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)


NETWORKS = {
    "MLP": (nn.MLP(6, (8,)), (4,), (3,)),
    "GlowNetwork": (nn.GlowNetwork(6, hidden_features=8), (4, 4, 2), (3,)),
    "GlowNetwork with feature maps": (nn.GlowNetwork(6, hidden_features=8), (4, 4, 2), (4, 4, 3)),
    "ResidualNetwork": (nn.ResidualNetwork(6, hidden_features=8), (4, 4, 2), (3,)),
    "ResidualNetwork with feature maps": (
        nn.ResidualNetwork(6, hidden_features=8),
        (4, 4, 2),
        (4, 4, 3),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_start_at_zero_and_read_input_and_context(name):
    network, event, context_event = NETWORKS[name]
    x = jax.random.normal(jax.random.key(0), (5, *event))
    context = jax.random.normal(jax.random.key(1), (5, *context_event))
    variables = network.init(jax.random.key(2), x, context)
    out = network.apply(variables, x, context)
    assert out.shape == (5, *event[:-1], 6)
    assert out.dtype == jnp.float32
    assert not out.any()
    variables = perturbed(variables)
    out = network.apply(variables, x, context)
    assert jnp.abs(network.apply(variables, x + 1, context) - out).max() > 1e-3
    assert jnp.abs(network.apply(variables, x, context + 1) - out).max() > 1e-3
    alone = network.init(jax.random.key(2), x)
    assert network.apply(alone, x).shape == out.shape


def test_mlp_accepts_an_empty_input():
    network = nn.MLP(3, (8,))
    x = jnp.ones((5, 0))
    variables = perturbed(network.init(jax.random.key(0), x))
    out = network.apply(variables, x)
    assert out.shape == (5, 3)
    assert jnp.isfinite(out).all()
    assert out.any()


def test_relu_and_its_gradient():
    x = jnp.array([-2.0, -0.0, 0.0, 3.0])
    y, pull_back = jax.vjp(nn.relu, x)
    np.testing.assert_array_equal(y, [0, 0, 0, 3])
    np.testing.assert_array_equal(pull_back(jnp.full(4, 5.0))[0], [0, 0, 0, 5])
