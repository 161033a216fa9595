"""The convolution equals the native one, with derivatives that suit each platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reflection
from vaeflow import nn
from vaeflow.nn.convolution import convolution

CASES = [
    # channels, features, kernel, stride, padding, height
    (3, 8, 3, 1, "SAME", 7),
    (8, 3, 3, 1, "SAME", 8),
    (8, 3, 4, 2, "SAME", 8),
    (3, 8, 4, 2, "VALID", 9),
    (70, 80, 3, 1, "SAME", 5),
    (80, 70, 3, 1, "SAME", 5),
    (6, 4, 5, 1, "VALID", 9),
    (5, 2, 3, 2, ((1, 1), (0, 2)), 9),
    (8, 2, 3, 1, ((2, 0), (1, 1)), 7),
    (4, 4, 1, 1, "SAME", 4),
    (4, 4, 1, 2, "SAME", 5),
]


def native(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(("channels", "features", "size", "stride", "padding", "height"), CASES)
def test_equals_native_convolution(channels, features, size, stride, padding, height):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, height, height + 1, channels))
    kernel = jax.random.normal(keys[1], (size, size, channels, features))
    expected, expected_pull_back = jax.vjp(lambda x, k: native(x, k, stride, padding), x, kernel)
    y, pull_back = jax.vjp(lambda x, k: convolution(x, k, (stride, stride), padding), x, kernel)
    dy = jax.random.normal(keys[2], expected.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)
    for got, want in zip(pull_back(dy), expected_pull_back(dy), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(9, 8), (2, 2), (1, 5), (1, 1)])
@pytest.mark.parametrize(("size", "stride"), [(7, 1), (4, 2), (3, 2)])
def test_reflection_mirrors_at_the_outermost_pixels(size, stride, height, width):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, height, width, 3))
    kernel = jax.random.normal(keys[1], (size, size, 3, 2))
    rows, columns = (reflection.mirrored(length, size, stride) for length in (height, width))
    y, pull_back = jax.vjp(lambda x, k: convolution(x, k, (stride,) * 2, "REFLECT"), x, kernel)
    assert y.shape == (2, -(-height // stride), -(-width // stride), 2)
    np.testing.assert_allclose(
        y, reflection.reflected_convolution(x, kernel, stride), rtol=1e-5, atol=1e-4
    )
    dy = jax.random.normal(keys[2], y.shape)
    expected = jax.vjp(
        lambda x, k: native(x[:, rows][:, :, columns], k, stride, "VALID"), x, kernel
    )
    for got, want in zip(pull_back(dy), expected[1](dy), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def test_gradients_agree_inside_scan_and_vmap():
    kernels = jax.random.normal(jax.random.key(0), (3, 3, 3, 4, 4)) / 6
    x = jax.random.normal(jax.random.key(1), (5, 2, 6, 6, 4))

    def loss(convolve, kernels, x):
        def body(x, kernel):
            return jnp.tanh(convolve(x, kernel)), None

        return jnp.sum(jax.vmap(lambda x: jax.lax.scan(body, x, kernels)[0])(x) ** 2)

    ours = jax.jit(jax.grad(lambda k, x: loss(convolution, k, x), (0, 1)))(kernels, x)
    theirs = jax.jit(
        jax.grad(lambda k, x: loss(lambda x, k: native(x, k, 1, "SAME"), k, x), (0, 1))
    )(kernels, x)
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sides", [(3, 8), (8, 3)])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_cpu_convolutions_are_matrix_products(platform, sides):
    x, kernel = jnp.ones((2, 6, 6, sides[0])), jnp.ones((3, 3, *sides))
    gradient = jax.jit(jax.grad(lambda x, k: jnp.sum(convolution(x, k) ** 2), (0, 1)))
    text = gradient.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    products, convolutions = (
        text.count(f"stablehlo.{name}") for name in ("dot_general", "convolution")
    )
    assert (products, convolutions) == ((3, 0) if platform == "cpu" else (0, 3))


@pytest.mark.parametrize("sides", [(2, 40), (40, 2)])
def test_bfloat16_is_summed_in_float32(sides):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (2, 6, 6, sides[0])).astype(jnp.bfloat16)
    kernel = jax.random.normal(keys[1], (3, 3, *sides)).astype(jnp.bfloat16)
    exact = native(x.astype(jnp.float32), kernel.astype(jnp.float32), 1, "SAME")
    np.testing.assert_allclose(
        convolution(x, kernel).astype(jnp.float32), exact, rtol=2**-8, atol=1e-3
    )


def test_keeps_bfloat16():
    x, kernel = jnp.ones((1, 4, 4, 3), jnp.bfloat16), jnp.ones((3, 3, 3, 2), jnp.bfloat16)
    gradient = jax.grad(lambda k: jnp.sum(convolution(x, k)).astype(jnp.float32))(kernel)
    assert convolution(x, kernel).dtype == gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize(("x", "kernel"), [((4, 4, 3), (3, 3, 3, 2)), ((1, 4, 4, 3), (3, 3, 4, 2))])
def test_wrong_shapes_raise(x, kernel):
    with pytest.raises(ValueError, match="convolution: expected") as error:
        convolution(jnp.ones(x), jnp.ones(kernel))
    assert str(x) in str(error.value)
    assert str(kernel) in str(error.value)


def test_conv_adds_a_bias_and_computes_in_its_dtype():
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    layer = nn.Conv(4, (3, 3), dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(1), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    shifted = {"params": variables["params"] | {"bias": jnp.full(4, 8.0)}}
    y = layer.apply(shifted, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y - layer.apply(variables, x), 8.0, atol=0.05)


def test_zero_conv_starts_at_zero_and_scales_by_its_factor():
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    layer = nn.ZeroConv(4)
    variables = layer.init(jax.random.key(1), x)
    assert not layer.apply(variables, x).any()
    parameters = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])
    expected = native(x, parameters["kernel"], 1, "SAME") + parameters["bias"]
    np.testing.assert_allclose(
        layer.apply({"params": parameters}, x), expected * np.exp(0.3), rtol=1e-5, atol=1e-5
    )
