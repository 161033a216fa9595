"""Lipschitz bounds of kernels and networks hold at all values of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import nn
from vaeflow.nn.convolution import convolution
from vaeflow.nn.lipschitz import clip_spectral_norm, lip_swish, spectral_bound

KEY = jax.random.key(0)
KERNELS = {
    "wide": jax.random.normal(KEY, (2, 40)),
    "tall": jax.random.normal(KEY, (40, 3)),
    "square": jax.random.normal(KEY, (24, 24)),
    "one": jnp.array([[-0.3]]),
    "rank-one": jnp.ones((5, 7)),
    "orthogonal": jax.random.orthogonal(KEY, 64),
    "uneven": jax.random.normal(KEY, (6, 6)) * 10.0 ** jnp.linspace(-6, 6, 6),
}


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("name", KERNELS)
def test_bound_is_above_the_largest_singular_value_and_close(name, scale):
    kernel = KERNELS[name] * scale
    exact = np.linalg.norm(np.float64(kernel), 2)
    bound = spectral_bound(kernel)
    assert exact * (1 - 1e-6) <= bound <= exact * min(kernel.shape) ** (1 / 128) * (1 + 1e-6)
    # It is homogeneous, so its gradient along the kernel is the bound itself.
    gradient = jax.grad(spectral_bound)(kernel)
    np.testing.assert_allclose(np.sum(np.float64(gradient) * kernel), bound, rtol=1e-4)


def test_zero_kernel_has_bound_zero_and_is_unchanged():
    zeros = jnp.zeros((3, 2))
    assert spectral_bound(zeros) == 0
    np.testing.assert_array_equal(clip_spectral_norm(zeros, 0.9), zeros)
    jacobian = jax.jacobian(lambda kernel: clip_spectral_norm(kernel, 0.9))(zeros)
    np.testing.assert_array_equal(jacobian.reshape(6, 6), np.eye(6))


def test_kernels_are_scaled_down_and_never_up():
    kernel = KERNELS["square"]
    small = 0.5 * kernel / np.linalg.norm(kernel, 2)
    np.testing.assert_array_equal(clip_spectral_norm(small, 0.9), small)
    large = clip_spectral_norm(kernel, 0.9)
    np.testing.assert_allclose(np.linalg.norm(large, 2), 0.9, rtol=1e-3)
    np.testing.assert_allclose(large / kernel, (large / kernel)[0, 0], rtol=1e-5)


@pytest.mark.parametrize("beta", [1e-3, 0.5, 1.0, 30.0, 1e3])
def test_slopes_of_lip_swish_reach_one_and_stay_below(beta):
    x = jnp.linspace(-20, 20, 4001) / beta
    slopes = jax.vmap(jax.grad(lip_swish), (0, None))(x, beta)
    assert 0.999 < jnp.abs(slopes).max() < 1
    edges = jnp.array([0.0, 1e-30, -1e-30, 1e6, -1e6])
    for argument in (0, 1):
        gradient = jax.vmap(jax.grad(lip_swish, argument), (0, None))(edges, beta)
        assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("lipschitz", [0.3, 0.98])
def test_jacobians_never_exceed_the_bound(lipschitz):
    network = nn.LipschitzMLP(3, (16, 16), lipschitz)
    contexts = jax.random.normal(KEY, (200, 2))
    x = jax.random.normal(KEY, (200, 3)) * 10.0 ** jnp.linspace(-3, 3, 200)[:, None]
    leaves, structure = jax.tree.flatten(network.init(KEY, x, contexts))

    @jax.jit
    def jacobians(leaves, contexts):
        def one(x, context):
            variables = jax.tree.unflatten(structure, leaves)
            return network.apply(variables, x[None], context[None])[0]

        return jax.vmap(jax.jacrev(one))(x, contexts)

    draws = {
        "normal": jax.random.normal,
        "orthogonal": jax.nn.initializers.orthogonal(),
        "ones": lambda key, shape: jnp.ones(shape),
    }
    largest = []
    for draw in draws.values():
        for scale in (0.1, 1.0, 100.0, 1e4):
            # Biases stay small, so that no unit saturates for all inputs.
            drawn = [
                scale * draw(key, leaf.shape) if leaf.ndim == 2 else leaf + 0.1
                for key, leaf in zip(jax.random.split(KEY, len(leaves)), leaves, strict=True)
            ]
            norms = np.linalg.norm(jacobians(drawn, contexts / scale), 2, axis=(-2, -1))
            largest.append(norms.max())
    assert max(largest) < lipschitz
    # The bound isn't so loose that nothing could come near it.
    assert max(largest) > 0.7 * lipschitz


def test_lipschitz_mlp_starts_at_zero_and_checks_its_bound():
    network = nn.LipschitzMLP(3, (8,))
    x = jax.random.normal(KEY, (5, 3))
    variables = network.init(KEY, x)
    np.testing.assert_array_equal(network.apply(variables, x), 0)
    gradient = jax.grad(lambda v: jnp.sum(network.apply(v, x) ** 2 + network.apply(v, x)))(
        variables
    )
    assert jnp.abs(gradient["params"]["kernel_1"]).min() > 0
    with pytest.raises(ValueError, match=r"lipschitz must be in \(0, 1\), got 1.0"):
        nn.LipschitzMLP(3, (8,), 1.0).init(KEY, x)


def matrix(kernel):
    """The matrix that a convolution multiplies the pixels of one window with."""
    return np.float64(kernel).reshape(-1, kernel.shape[-1])


@pytest.mark.parametrize("shape", [(4, 4, 3, 8), (4, 4, 64, 32), (1, 1, 5, 1), (3, 3, 1, 20)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_spectral_convolutions_have_norm_one_at_most_and_nearly(shape, scale):
    kernel = scale * jax.random.normal(KEY, shape)
    effective = nn.SpectralConv(shape[-1]).transform_kernel(kernel)
    assert 0.95 <= np.linalg.norm(matrix(effective), 2) <= 1 + 1e-6
    np.testing.assert_allclose(effective / kernel, (effective / kernel).mean(), rtol=1e-5)


def test_spectral_convolutions_convolve_with_the_divided_kernel_and_add_a_bias():
    x = jax.random.normal(KEY, (2, 6, 5, 3))
    layer = nn.SpectralConv(4, (4, 4), (2, 2), padding="REFLECT")
    parameters = {"kernel": 7 * jax.random.normal(KEY, (4, 4, 3, 4)), "bias": jnp.arange(4.0)}
    effective = layer.transform_kernel(parameters["kernel"])
    expected = convolution(x, effective, (2, 2), "REFLECT") + jnp.arange(4.0)
    result = layer.apply({"params": parameters}, x)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    assert layer.init(KEY, x)["params"]["kernel"].shape == (4, 4, 3, 4)


@pytest.mark.parametrize("fill", [0.0, 1e-15, 1.0, 1e15])
def test_spectral_convolutions_and_their_gradients_are_finite_for_any_kernel(fill):
    x = jax.random.normal(KEY, (2, 5, 5, 3))
    layer = nn.SpectralConv(4)
    parameters = {"kernel": jnp.full((3, 3, 3, 4), fill), "bias": jnp.zeros(4)}

    def loss(parameters):
        return jnp.sum(layer.apply({"params": parameters}, x) ** 3)

    value, gradient = jax.value_and_grad(loss)(parameters)
    assert (value == 0) == (fill == 0)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
