"""Normalised convolutions, blocks, and the networks of couplings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import nn
from vaeflow.nn.convolution import convolution
from vaeflow.nn.normalization import ActNormConv

KEY = jax.random.key(1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def perturbed(variables, scale=0.1):
    leaves, structure = jax.tree.flatten(variables)
    noise = [scale * normal(*leaf.shape, seed=seed) for seed, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, [a + b for a, b in zip(leaves, noise, strict=True)])


def test_normalized_conv_standardises_the_first_batch_only():
    layer = ActNormConv(5)

    @jax.jit
    def run(x):
        variables = layer.init(KEY, x)
        return layer.apply(variables, x), layer.apply(variables, 10 * x)

    y, other = jax.device_get(run(3 + 2 * normal(8, 6, 6, 3)))
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(np.std(y, (0, 1, 2)), 1, atol=1e-4)
    assert np.std(other) > 5


def test_normalized_conv_equals_convolution_then_actnorm():
    layer = ActNormConv(5)

    @jax.jit
    def run(x):
        parameters = perturbed(layer.init(KEY, x))["params"]
        convolved = convolution(x, parameters["kernel"])
        return layer.apply({"params": parameters}, x), parameters, convolved

    y, parameters, convolved = jax.device_get(run(normal(2, 6, 6, 3)))
    expected = (convolved + parameters["shift"]) * np.exp(parameters["log_scale"])
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_residual_block_starts_as_the_identity_and_then_learns():
    block, x = nn.ResidualBlock(7), normal(2, 5, 5, 3)

    @jax.jit
    def run(x):
        variables = block.init(KEY, x)
        return block.apply(variables, x), block.apply(perturbed(variables), x)

    first, later = run(x)
    np.testing.assert_array_equal(first, x)
    assert np.abs(later - x).max() > 1e-2


def test_gated_conv_is_a_product_with_a_sigmoid():
    layer = nn.GatedConv(4, (3, 3), (2, 2))

    @jax.jit
    def run(x):
        y, variables = layer.init_with_output(KEY, x)
        parameters = variables["params"]["Conv_0"]
        return y, convolution(x, parameters["kernel"], (2, 2)) + parameters["bias"]

    y, both = jax.device_get(run(normal(2, 5, 5, 3)))
    np.testing.assert_allclose(y, both[..., :4] / (1 + np.exp(-both[..., 4:])), atol=1e-5)


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
    x, context = normal(5, *event), normal(5, *context_event, seed=1)

    @jax.jit
    def run(x, context):
        out, variables = network.init_with_output(KEY, x, context)
        variables = perturbed(variables)
        others = [(x, context), (x + 1, context), (x, context + 1)]
        return out, [network.apply(variables, *given) for given in others]

    out, (later, other_x, other_context) = jax.device_get(run(x, context))
    assert out.shape == (5, *event[:-1], 6)
    assert out.dtype == np.float32
    assert not out.any()
    assert np.abs(other_x - later).max() > 1e-3
    assert np.abs(other_context - later).max() > 1e-3
    alone, _ = jax.eval_shape(network.init_with_output, KEY, x)
    assert alone.shape == out.shape


def test_mlp_accepts_an_empty_input():
    network = nn.MLP(3, (8,))

    @jax.jit
    def run(x):
        return network.apply(perturbed(network.init(KEY, x)), x)

    out = np.asarray(run(np.ones((5, 0), np.float32)))
    assert out.shape == (5, 3)
    assert np.isfinite(out).all()
    assert out.any()


def test_relu_and_its_gradient():
    @jax.jit
    def run(x):
        y, pull_back = jax.vjp(nn.relu, x)
        return y, pull_back(jnp.full(4, 5.0))[0]

    y, slope = run(np.float32([-2.0, -0.0, 0.0, 3.0]))
    np.testing.assert_array_equal(y, [0, 0, 0, 3])
    np.testing.assert_array_equal(slope, [0, 0, 0, 5])
