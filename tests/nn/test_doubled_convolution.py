"""The upsampling convolution equals doubling, mirroring and convolving one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reflection import valid_convolution
from vaeflow.nn.convolution import UpsampleConv

KEY = jax.random.key(0)


def plainly(x, kernel):
    doubled = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    padded = np.pad(doubled, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="symmetric")
    return valid_convolution(padded, kernel)


def differentiable(x, kernel):
    """The same for derivatives, by indices of doubled and mirrored rows."""
    rows, columns = (
        np.pad(np.repeat(np.arange(length), 2), 2, mode="symmetric") for length in x.shape[1:3]
    )
    return jax.lax.conv_general_dilated(
        x[:, rows][:, :, columns],
        kernel,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def values(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


X, LAYER = values(2, 4, 3, 3), UpsampleConv(2)
PARAMETERS = {"kernel": 0.2 * values(5, 5, 3, 2, seed=2), "bias": np.float32([0.5, -2.0])}
SIZES = [(7, 5), (8, 6), (7, 6), (1, 2)]


def test_parameters_start_as_one_kernel_and_a_bias():
    found = jax.eval_shape(LAYER.init, KEY, X)["params"]
    assert {name: leaf.shape for name, leaf in found.items()} == {
        "kernel": (5, 5, 3, 2),
        "bias": (2,),
    }


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (2, 1), (1, 1)])
def test_equals_doubling_mirroring_and_convolving(size):
    x = values(2, *size, 3)
    expected = plainly(x, PARAMETERS["kernel"]) + PARAMETERS["bias"]
    y = jax.jit(LAYER.apply)({"params": PARAMETERS}, x)
    assert y.shape == (2, 2 * size[0], 2 * size[1], 2)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_has_the_gradients_of_doubling_mirroring_and_convolving():
    dy = values(2, 8, 6, 2, seed=1)

    @jax.jit
    def gradients(x, parameters):
        ours = jax.vjp(lambda x, p: LAYER.apply({"params": p}, x), x, parameters)[1](dy)
        return ours, jax.vjp(differentiable, x, parameters["kernel"])[1](dy)

    (dx, gradient), expected = gradients(X, PARAMETERS)
    np.testing.assert_allclose(dx, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient["kernel"], expected[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient["bias"], dy.sum((0, 1, 2)), rtol=1e-4)


def test_a_size_crops_the_last_rows_and_columns():
    @jax.jit
    def cropped(x):
        return [LAYER.apply({"params": PARAMETERS}, x, size) for size in (None, *SIZES)]

    full, *parts = jax.device_get(cropped(X))
    for size, part in zip(SIZES, parts, strict=True):
        np.testing.assert_array_equal(part, full[:, : size[0], : size[1]])
        assert part.shape[1:3] == size


@pytest.mark.parametrize("size", [(9, 6), (8, 7)])
def test_a_size_above_twice_the_images_raises(size):
    with pytest.raises(ValueError, match=r"size must be at most \(8, 6\) for x of shape") as error:
        jax.eval_shape(lambda x: LAYER.init(KEY, x, size), X)
    assert f"got {size}" in str(error.value)


def test_upsample_conv_dtype_and_missing_bias():
    layer = UpsampleConv(2, use_bias=False, dtype=jnp.bfloat16)
    y, variables = jax.jit(layer.init_with_output)(KEY, X)
    assert list(variables["params"]) == ["kernel"]
    assert variables["params"]["kernel"].dtype == jnp.float32
    assert y.dtype == jnp.bfloat16
    expected = plainly(X, variables["params"]["kernel"])
    np.testing.assert_allclose(np.float32(y), expected, rtol=0.02, atol=0.02)
