"""Lipschitz bounds of kernels and networks hold at all values of the parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import nn
from vaeflow.nn.convolution import convolution
from vaeflow.nn.lipschitz import clip_spectral_norm, lip_swish, spectral_bound

KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


KERNELS = {
    "wide": normal(2, 40),
    "tall": normal(40, 3),
    "square": normal(24, 24),
    "one": np.float32([[-0.3]]),
    "rank-one": np.ones((5, 7), np.float32),
    "orthogonal": np.float32(np.linalg.qr(normal(64, 64))[0]),
    "uneven": normal(6, 6) * np.float32(10.0 ** np.linspace(-6, 6, 6)),
}
bound_and_gradient = jax.jit(jax.value_and_grad(spectral_bound))
clip = jax.jit(lambda kernel: clip_spectral_norm(kernel, 0.9))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("name", KERNELS)
def test_bound_is_above_the_largest_singular_value_and_close(name, scale):
    kernel = KERNELS[name] * np.float32(scale)
    exact = np.linalg.norm(np.float64(kernel), 2)
    bound, gradient = jax.device_get(bound_and_gradient(kernel))
    assert exact * (1 - 1e-6) <= bound <= exact * min(kernel.shape) ** (1 / 128) * (1 + 1e-6)
    # It is homogeneous, so its gradient along the kernel is the bound itself.
    np.testing.assert_allclose(np.sum(np.float64(gradient) * kernel), bound, rtol=1e-4)


def test_zero_kernel_has_bound_zero_and_is_unchanged():
    zeros = np.zeros((3, 2), np.float32)
    assert bound_and_gradient(zeros)[0] == 0
    np.testing.assert_array_equal(clip(zeros), zeros)
    jacobian = np.asarray(jax.jit(jax.jacobian(clip))(zeros))
    np.testing.assert_array_equal(jacobian.reshape(6, 6), np.eye(6))


def test_kernels_are_scaled_down_and_never_up():
    kernel = KERNELS["square"]
    small = 0.5 * kernel / np.linalg.norm(kernel, 2)
    np.testing.assert_array_equal(clip(small), small)
    large = np.asarray(clip(kernel))
    np.testing.assert_allclose(np.linalg.norm(large, 2), 0.9, rtol=1e-3)
    ratio = large / kernel
    np.testing.assert_allclose(ratio, np.full_like(ratio, ratio[0, 0]), rtol=1e-5)


@jax.jit
def slopes_of_lip_swish(x, beta):
    """By x and by beta."""
    return [jax.vmap(jax.grad(lip_swish, argument), (0, None))(x, beta) for argument in (0, 1)]


@pytest.mark.parametrize("beta", [1e-3, 0.5, 1.0, 30.0, 1e3])
def test_slopes_of_lip_swish_reach_one_and_stay_below(beta):
    x = np.linspace(-20, 20, 4001) / beta
    edges = [0.0, 1e-30, -1e-30, 1e6, -1e6]
    by_x, by_beta = jax.device_get(slopes_of_lip_swish(np.float32([*x, *edges]), np.float32(beta)))
    assert 0.999 < np.abs(by_x[: len(x)]).max() < 1
    for slopes in (by_x, by_beta):
        assert np.isfinite(slopes[len(x) :]).all()


@pytest.mark.parametrize("lipschitz", [0.3, 0.98])
def test_jacobians_never_exceed_the_bound(lipschitz):
    network = nn.LipschitzMLP(3, (16, 16), lipschitz)
    contexts, x = normal(200, 2), normal(200, 3) * 10.0 ** np.linspace(-3, 3, 200)[:, None]
    shapes = jax.eval_shape(network.init, KEY, x, contexts)

    @jax.jit
    def jacobians(variables, x, contexts):
        def one(x, context):
            return network.apply(variables, x[None], context[None])[0]

        return jax.vmap(jax.jacrev(one))(x, contexts)

    def orthogonal(*shape):
        return np.linalg.svd(normal(*shape), full_matrices=False)[0 if shape[0] > shape[1] else 2]

    largest = []
    for draw in (normal, orthogonal, lambda *shape: np.ones(shape)):
        for scale in (0.1, 1.0, 100.0, 1e4):
            # Biases stay small, so that no unit saturates for all inputs.
            drawn = jax.tree.map(
                lambda leaf, draw=draw, scale=scale: np.float32(
                    scale * draw(*leaf.shape) if leaf.ndim == 2 else np.full(leaf.shape, 0.1)
                ),
                shapes,
            )
            found = jacobians(drawn, np.float32(x), contexts / np.float32(scale))
            largest.append(np.linalg.norm(found, 2, axis=(-2, -1)).max())
    assert max(largest) < lipschitz
    # The bound isn't so loose that nothing could come near it.
    assert max(largest) > 0.7 * lipschitz


def test_lipschitz_mlp_starts_at_zero_and_checks_its_bound():
    network = nn.LipschitzMLP(3, (8,))
    x = normal(5, 3)

    @jax.jit
    def run(x):
        y, variables = network.init_with_output(KEY, x)
        gradient = jax.grad(lambda v: jnp.sum(network.apply(v, x) ** 2 + network.apply(v, x)))
        return y, gradient(variables)

    y, gradient = jax.device_get(run(x))
    np.testing.assert_array_equal(y, 0)
    assert np.abs(gradient["params"]["kernel_1"]).min() > 0
    with pytest.raises(ValueError, match=r"lipschitz must be in \(0, 1\), got 1.0"):
        jax.eval_shape(nn.LipschitzMLP(3, (8,), 1.0).init, KEY, x)


def matrix(kernel):
    """The matrix that a convolution multiplies the pixels of one window with."""
    return np.float64(kernel).reshape(-1, kernel.shape[-1])


@functools.partial(jax.jit, static_argnums=0)
def transformed(layer, kernel):
    return layer.transform_kernel(kernel)


@pytest.mark.parametrize("shape", [(4, 4, 3, 8), (4, 4, 64, 32), (1, 1, 5, 1), (3, 3, 1, 20)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_spectral_convolutions_have_norm_one_at_most_and_nearly(shape, scale):
    kernel = np.float32(scale) * normal(*shape)
    effective = np.asarray(transformed(nn.SpectralConv(shape[-1]), kernel))
    assert 0.95 <= np.linalg.norm(matrix(effective), 2) <= 1 + 1e-6
    np.testing.assert_allclose(effective / kernel, (effective / kernel).mean(), rtol=1e-5)


def test_spectral_convolutions_convolve_with_the_divided_kernel_and_add_a_bias():
    x = normal(2, 6, 5, 3)
    layer = nn.SpectralConv(4, (4, 4), (2, 2), padding="REFLECT")
    parameters = {"kernel": 7 * normal(4, 4, 3, 4), "bias": np.arange(4, dtype=np.float32)}

    @jax.jit
    def run(parameters, x):
        effective = layer.transform_kernel(parameters["kernel"])
        expected = convolution(x, effective, (2, 2), "REFLECT") + parameters["bias"]
        return layer.apply({"params": parameters}, x), expected

    np.testing.assert_allclose(*run(parameters, x), rtol=1e-5, atol=1e-5)
    shapes = jax.eval_shape(layer.init, KEY, x)
    assert shapes["params"]["kernel"].shape == (4, 4, 3, 4)


@jax.jit
@jax.value_and_grad
def cubes(kernel):
    """A function of what a spectral convolution makes of images."""
    layer, parameters = nn.SpectralConv(4), {"kernel": kernel, "bias": jnp.zeros(4)}
    return jnp.sum(layer.apply({"params": parameters}, normal(2, 5, 5, 3)) ** 3)


@pytest.mark.parametrize("fill", [0.0, 1e-15, 1.0, 1e15])
def test_spectral_convolutions_and_their_gradients_are_finite_for_any_kernel(fill):
    value, gradient = jax.device_get(cubes(np.full((3, 3, 3, 4), fill, np.float32)))
    assert (value == 0) == (fill == 0)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
