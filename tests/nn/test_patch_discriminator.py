"""Scores of patches at several scales, against windows in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reflection import reflected_convolution
from vaeflow import nn

KEY = jax.random.key(0)


def values(*shape):
    return np.random.RandomState(0).uniform(-1, 1, shape).astype(np.float32)


def judged(parameters, x, effective=lambda kernel: kernel):
    """Leaky convolutions and a last one, in float64."""
    *hidden, last = [parameters[name] for name in sorted(parameters)]
    for layer in hidden:
        x = reflected_convolution(x, effective(layer["kernel"]), 2) + layer["bias"]
        x = np.maximum(x, 0.2 * x)
    return (x @ np.float64(effective(last["kernel"]))[0, 0] + last["bias"])[..., 0]


def halved(x):
    """Means of those pixels of 3x3 that lie within the image, every other one."""
    height, width = x.shape[1:3]
    rows, columns = range(0, height, 2), range(0, width, 2)
    y = np.zeros((len(x), len(rows), len(columns), x.shape[-1]))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = x[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            y[:, i, j] = np.float64(window).mean((1, 2))
    return y


def divided(kernel):
    """The kernel by the largest singular value of its matrix."""
    return kernel / np.linalg.norm(np.float64(kernel).reshape(-1, kernel.shape[-1]), 2)


def moved(network, x):
    """Variables, whose biases aren't at zero, and what the network makes of the images."""

    @jax.jit
    def run(x):
        variables = network.init(KEY, x)
        variables = jax.tree.map(
            lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.shape[-1])), variables
        )
        return variables, network.apply(variables, x)

    return jax.device_get(run(x))


def enlarged(network, x, factor):
    """What the network makes of the images at the start, and with larger parameters."""

    @jax.jit
    def run(x):
        y, variables = network.init_with_output(KEY, x)
        return y, network.apply(jax.tree.map(lambda leaf: factor * leaf, variables), x)

    return jax.device_get(run(x))


@pytest.mark.parametrize(
    ("size", "spectral"), [((9, 7), False), ((8, 8), False), ((1, 1), False), ((9, 7), True)]
)
def test_patch_scores_equal_a_slow_reference(size, spectral):
    x = values(2, *size, 3)
    network = nn.PatchDiscriminator((4, 5), spectral)
    variables, y = moved(network, x)
    assert y.shape == (2, -(-size[0] // 4), -(-size[1] // 4))
    expected = judged(variables["params"], x, divided if spectral else lambda kernel: kernel)
    # The bound by which kernels are divided is up to 2% above a norm of few singular values.
    np.testing.assert_allclose(y, expected, rtol=0.05 if spectral else 1e-4, atol=1e-5)


def test_kernels_of_a_spectral_discriminator_have_no_size():
    x = values(2, 8, 8, 1)
    for spectral in (False, True):
        y, larger = enlarged(nn.PatchDiscriminator((4, 5), spectral), x, 3)
        assert np.allclose(larger, y, rtol=1e-4) == spectral


@pytest.mark.parametrize("size", [(27, 21), (28, 32), (9, 8), (1, 2)])
def test_each_scale_scores_an_image_of_half_the_size(size):
    x = values(2, *size, 1)
    network = nn.MultiScaleDiscriminator(num_scales=3, channels=(2, 3))
    maps, variables = jax.eval_shape(network.init_with_output, KEY, x)
    expected = [tuple(-(-length // 2 ** (2 + scale)) for length in size) for scale in range(3)]
    assert [each.shape for each in maps] == [(2, *each) for each in expected]
    assert len(variables["params"]) == 3


@pytest.mark.parametrize("size", [(9, 6), (8, 7)])
def test_pooling_ignores_the_padding(size):
    x = values(2, *size, 2)
    network = nn.MultiScaleDiscriminator(num_scales=3, channels=(2,))
    variables, result = moved(network, x)
    for scale, judgement in enumerate(result):
        own = variables["params"][f"PatchDiscriminator_{scale}"]
        np.testing.assert_allclose(judgement, judged(own, x), rtol=1e-4, atol=1e-5)
        x = halved(x)


def test_options_reach_every_scale():
    x = values(2, 8, 8, 1)
    network = nn.MultiScaleDiscriminator(
        num_scales=2, channels=(4,), spectral=True, dtype=jnp.bfloat16
    )
    for result, again in zip(*enlarged(network, x, 4), strict=True):
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, again, rtol=0.02, atol=1e-3)
        # In float32 few numbers would have the eight leading bits of bfloat16 alone.
        np.testing.assert_array_equal(result, np.float32(result.astype(jnp.bfloat16)))
