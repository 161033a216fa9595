"""The convolution equals the native one, with derivatives that suit each platform."""

import functools

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


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_gradients(way, x, kernel):
    """A convolution, and derivatives of a sum of its outputs by image and by kernel."""
    y, pull_back = jax.vjp(way, x, kernel)
    return y, pull_back(jnp.asarray(normal(*y.shape, seed=2)))


def native(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(("channels", "features", "size", "stride", "padding", "height"), CASES)
def test_equals_native_convolution(channels, features, size, stride, padding, height):
    x = normal(2, height, height + 1, channels)
    kernel = normal(size, size, channels, features, seed=1)

    @jax.jit
    def both(x, kernel):
        ways = (
            lambda x, k: native(x, k, stride, padding),
            lambda x, k: convolution(x, k, (stride, stride), padding),
        )
        return [with_gradients(way, x, kernel) for way in ways]

    (expected, wanted), (y, found) = both(x, kernel)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(9, 8), (2, 2), (1, 5), (1, 1)])
@pytest.mark.parametrize(("size", "stride"), [(7, 1), (4, 2), (3, 2)])
def test_reflection_mirrors_at_the_outermost_pixels(size, stride, height, width):
    x, kernel = normal(2, height, width, 3), normal(size, size, 3, 2, seed=1)
    rows, columns = (reflection.mirrored(length, size, stride) for length in (height, width))

    @jax.jit
    def both(x, kernel):
        ways = (
            lambda x, k: native(x[:, rows][:, :, columns], k, stride, "VALID"),
            lambda x, k: convolution(x, k, (stride,) * 2, "REFLECT"),
        )
        return [with_gradients(way, x, kernel) for way in ways]

    (_, wanted), (y, found) = both(x, kernel)
    assert y.shape == (2, -(-height // stride), -(-width // stride), 2)
    np.testing.assert_allclose(
        y, reflection.reflected_convolution(x, kernel, stride), rtol=1e-5, atol=1e-4
    )
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def test_gradients_agree_inside_scan_and_vmap():
    kernels, x = normal(3, 3, 3, 4, 4) / 6, normal(5, 2, 6, 6, 4, seed=1)

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
    x, kernel = (np.ones(shape, np.float32) for shape in ((2, 6, 6, sides[0]), (3, 3, *sides)))
    gradient = jax.jit(jax.grad(lambda x, k: jnp.sum(convolution(x, k) ** 2), (0, 1)))
    text = gradient.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    products, convolutions = (
        text.count(f"stablehlo.{name}") for name in ("dot_general", "convolution")
    )
    assert (products, convolutions) == ((3, 0) if platform == "cpu" else (0, 3))


@pytest.mark.parametrize("sides", [(2, 40), (40, 2)])
def test_bfloat16_is_summed_in_float32(sides):
    x, kernel = normal(2, 6, 6, sides[0]), normal(3, 3, *sides, seed=1)

    @jax.jit
    def both(x, kernel):
        x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
        exact = native(x.astype(jnp.float32), kernel.astype(jnp.float32), 1, "SAME")
        return convolution(x, kernel).astype(jnp.float32), exact

    np.testing.assert_allclose(*both(x, kernel), rtol=2**-8, atol=1e-3)


def test_keeps_bfloat16():
    x, kernel = (
        jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((1, 4, 4, 3), (3, 3, 3, 2))
    )

    def total(kernel, x):
        y = convolution(x, kernel)
        return jnp.sum(y).astype(jnp.float32), y

    gradient, y = jax.eval_shape(jax.grad(total, has_aux=True), kernel, x)
    assert y.dtype == gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize(("x", "kernel"), [((4, 4, 3), (3, 3, 3, 2)), ((1, 4, 4, 3), (3, 3, 4, 2))])
def test_wrong_shapes_raise(x, kernel):
    with pytest.raises(ValueError, match="convolution: expected") as error:
        convolution(np.ones(x, np.float32), np.ones(kernel, np.float32))
    assert str(x) in str(error.value)
    assert str(kernel) in str(error.value)


def test_conv_adds_a_bias_and_computes_in_its_dtype():
    layer = nn.Conv(4, (3, 3), dtype=jnp.bfloat16)

    @jax.jit
    def run(x):
        variables = layer.init(jax.random.key(1), x)
        shifted = {"params": variables["params"] | {"bias": jnp.full(4, 8.0)}}
        y = layer.apply(shifted, x)
        return variables, y, y - layer.apply(variables, x)

    variables, y, difference = run(normal(2, 5, 5, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(difference), 8.0, atol=0.05)


def test_zero_conv_starts_at_zero_and_scales_by_its_factor():
    layer = nn.ZeroConv(4)

    @jax.jit
    def run(x):
        variables = layer.init(jax.random.key(1), x)
        parameters = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])
        expected = native(x, parameters["kernel"], 1, "SAME") + parameters["bias"]
        first = layer.apply(variables, x)
        return first, layer.apply({"params": parameters}, x), expected

    first, y, expected = jax.device_get(run(normal(2, 5, 5, 3)))
    assert not first.any()
    np.testing.assert_allclose(y, expected * np.exp(0.3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kernel_shape", [(3, 3, 2, 5), (3, 3, 5, 2)], ids=["thin-input", "thin-output"]
)
def test_derivatives_of_both_modes_and_orders_are_the_native_ones(kernel_shape):
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(2, 4, 5, kernel_shape[2])), jnp.float32)
    kernel = jnp.asarray(generator.normal(size=kernel_shape), jnp.float32)
    dimensions = ("NHWC", "HWIO", "NHWC")

    def native(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)

    @jax.jit
    def derivatives(x, kernel):
        def all_of(function):
            def value(x, kernel):
                return jnp.sum(jnp.sin(function(x, kernel)))

            gradient = jax.grad(value, (0, 1))
            kernels = jnp.stack([kernel, -2 * kernel])
            return (
                jax.jvp(function, (x, kernel), (x[::-1], kernel[::-1])),
                jax.jvp(gradient, (x, kernel), (x[::-1], kernel[::-1])),
                jax.vmap(gradient, (None, 0))(x, kernels),
                jax.vmap(gradient, (0, None))(jnp.stack([x, x[::-1]]), kernel),
                jax.vmap(gradient)(jnp.stack([x, x[::-1]]), kernels),
            )

        return all_of(convolution), all_of(native)

    found, expected = derivatives(x, kernel)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, expected
    )
