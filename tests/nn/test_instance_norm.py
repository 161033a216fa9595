"""Norms of single images against float64, where features are constant, and in blocks."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reflection import reflected_convolution
from vaeflow.nn.blocks import InstanceNormBlock
from vaeflow.nn.normalization import EPSILON, ImageLayerNorm, adaptive_instance_norm, instance_norm

KEY = jax.random.key(0)
X = np.float32(
    [3, -2, 0.5] + np.array([2, 0.1, 30]) * np.random.RandomState(0).normal(size=(2, 5, 4, 3))
)


def exactly(x, axes=(1, 2)):
    """The definition, in float64."""
    x = np.float64(x)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPSILON)


def layer_norm(x, dtype=jnp.float32):
    layer = ImageLayerNorm(dtype)
    return layer.apply(layer.init(KEY, x), x)


NORMS = {"instance": (instance_norm, (1, 2)), "layer": (layer_norm, (1, 2, 3))}
COMPILED = {name: jax.jit(norm) for name, (norm, _) in NORMS.items()}


@functools.partial(jax.jit, static_argnums=0)
def slopes(name, x):
    """First and second derivatives of a function of a norm."""
    weights = jnp.asarray(X)

    def loss(x):
        return jnp.sum(weights * jnp.sin(NORMS[name][0](x)))

    def change(x):
        first = jax.grad(loss)(x)
        return jnp.sum(weights * first), first

    second, first = jax.grad(change, has_aux=True)(x)
    return first, second


@pytest.mark.parametrize("name", NORMS)
def test_equals_its_definition(name):
    np.testing.assert_allclose(COMPILED[name](X), exactly(X, NORMS[name][1]), atol=1e-5)


def test_features_of_each_image_have_mean_zero_and_variance_one():
    y = np.asarray(COMPILED["instance"](X))
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 2)), 1, rtol=5e-3)  # EPSILON beside a variance of 0.01
    # One image has nothing to do with the other.
    other = np.stack([X[0], 5 - 3 * X[1]])
    np.testing.assert_array_equal(np.asarray(COMPILED["instance"](other))[0], y[0])


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e4])
@pytest.mark.parametrize("name", NORMS)
def test_constant_images_become_zero_with_finite_gradients(name, value):
    x = np.full((2, 5, 4, 3), value, np.float32)
    # The mean of equal numbers may be rounded, which EPSILON makes little of near 1.
    np.testing.assert_allclose(COMPILED[name](x), 0, atol=1e-4 if abs(value) <= 1 else 1)
    first, second = jax.device_get(slopes(name, x))
    assert np.isfinite(first).all()
    assert np.isfinite(second).all()
    if abs(value) <= 1:
        centred = X - X.mean(NORMS[name][1], keepdims=True)
        np.testing.assert_allclose(first, centred / np.sqrt(EPSILON), rtol=1e-3, atol=0.05)


def test_nearly_constant_features_with_a_large_offset_keep_precision():
    x = np.float32(4000 + np.random.RandomState(1).normal(size=(2, 16, 16, 3)))
    # Squares of 4000 have a spacing of 1 in float32: their mean would say nothing of a variance.
    for name, (_, axes) in NORMS.items():
        np.testing.assert_allclose(COMPILED[name](x), exactly(x, axes), atol=5e-3)


@pytest.mark.parametrize("name", NORMS)
def test_bfloat16_images_have_statistics_in_float32(name):
    norm, axes = NORMS[name]
    # Near 3 a mean in bfloat16 is a multiple of 2^-6, far from the mean of deviations this small.
    noise = np.random.RandomState(2).normal(size=(1, 16, 16, 2))
    x = (3.007 + 0.2 * noise).astype(jnp.bfloat16)
    y = jax.jit(norm if name == "instance" else lambda x: norm(x, jnp.bfloat16))(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(y), exactly(np.float32(x), axes), rtol=2**-7, atol=2**-8)


def test_adaptive_norm_sets_scale_and_shift():
    scale = np.float32([[1, -2, 3], [0, 0.5, 1]])
    shift = np.float32([[5, -1, 0], [2, 2, -4]])
    y = np.asarray(jax.jit(adaptive_instance_norm)(X, scale, shift))
    expected = scale[:, None, None] * exactly(X) + shift[:, None, None]
    np.testing.assert_allclose(y, expected, atol=1e-4)
    np.testing.assert_allclose(np.mean(y, (1, 2)), shift, atol=1e-5)
    np.testing.assert_allclose(np.std(y, (1, 2)), np.abs(scale), atol=1e-2)
    half = jax.eval_shape(adaptive_instance_norm, X.astype(jnp.bfloat16), scale, shift)
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("scale", "shift"), [((3,), (2, 3)), ((2, 3), (3,)), ((1, 3), (2, 3)), ((2, 3), (2, 1))]
)
def test_adaptive_norm_raises_for_other_shapes(scale, shift):
    with pytest.raises(ValueError, match=r"must be of shape \(2, 3\) for x of shape \(2, 5, 4, 3"):
        adaptive_instance_norm(X, np.ones(scale), np.ones(shift))


def test_layer_norm_keeps_differences_between_features():
    parameters = {"scale": np.float32([1, 2, -1]), "shift": np.float32([0, 3, 0.5])}
    y = jax.jit(ImageLayerNorm().apply)({"params": parameters}, X)
    expected = exactly(X, (1, 2, 3)) * parameters["scale"] + parameters["shift"]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    plain = np.asarray(COMPILED["layer"](X))
    assert np.ptp(plain.mean((1, 2)), axis=1).min() > 0.05


@pytest.mark.parametrize("modulated", [False, True])
def test_a_block_adds_two_normalised_convolutions(modulated):
    block = InstanceNormBlock()
    modulation = np.random.RandomState(3).normal(size=(2, 12)).astype(np.float32)
    given = modulation if modulated else None
    y, variables = jax.device_get(jax.jit(block.init_with_output)(KEY, X, given))
    own = modulation.reshape(2, 4, 1, 1, 3) if modulated else np.zeros((2, 4, 1, 1, 3))
    kernels = [variables["params"][f"Conv_{position}"]["kernel"] for position in range(2)]
    assert len(jax.tree.leaves(variables)) == 2  # no biases, which the norms would subtract
    hidden = (1 + own[:, 0]) * exactly(reflected_convolution(X, kernels[0])) + own[:, 1]
    change = exactly(reflected_convolution(np.maximum(hidden, 0), kernels[1]))
    np.testing.assert_allclose(y, X + (1 + own[:, 2]) * change + own[:, 3], atol=1e-4)


def test_a_modulation_of_another_shape_raises():
    with pytest.raises(
        ValueError, match=r"modulation must be of shape \(2, 12\) for x of .*, got \(2, 6\)"
    ):
        jax.eval_shape(InstanceNormBlock().init, KEY, X, np.ones((2, 6)))
