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


def layer_and_parameters(x, features=2):
    layer = UpsampleConv(features)
    parameters = layer.init(KEY, x)["params"]
    assert parameters["kernel"].shape == (5, 5, x.shape[-1], features)
    return layer, {"kernel": parameters["kernel"], "bias": np.float32([0.5, -2.0])}


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (2, 1), (1, 1)])
def test_equals_doubling_mirroring_and_convolving(size):
    x = np.random.RandomState(0).normal(size=(2, *size, 3)).astype(np.float32)
    layer, parameters = layer_and_parameters(x)
    expected = plainly(x, parameters["kernel"]) + parameters["bias"]
    y = layer.apply({"params": parameters}, x)
    assert y.shape == (2, 2 * size[0], 2 * size[1], 2)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_has_the_gradients_of_doubling_mirroring_and_convolving():
    x = np.random.RandomState(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    layer, parameters = layer_and_parameters(x)
    dy = np.random.RandomState(1).normal(size=(2, 8, 6, 2)).astype(np.float32)
    _, pull_back = jax.vjp(lambda x, p: layer.apply({"params": p}, x), x, parameters)
    dx, gradient = pull_back(dy)
    expected = jax.vjp(differentiable, x, parameters["kernel"])[1](dy)
    np.testing.assert_allclose(dx, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient["kernel"], expected[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient["bias"], dy.sum((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("size", [(7, 5), (8, 6), (7, 6), (1, 2)])
def test_a_size_crops_the_last_rows_and_columns(size):
    x = np.random.RandomState(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    layer, parameters = layer_and_parameters(x)
    full = layer.apply({"params": parameters}, x)
    part = layer.apply({"params": parameters}, x, size)
    np.testing.assert_array_equal(part, full[:, : size[0], : size[1]])
    assert part.shape[1:3] == size


@pytest.mark.parametrize("size", [(9, 6), (8, 7)])
def test_a_size_above_twice_the_images_raises(size):
    with pytest.raises(ValueError, match=r"size must be at most \(8, 6\) for x of shape") as error:
        UpsampleConv(2).init(KEY, jnp.ones((1, 4, 3, 3)), size)
    assert f"got {size}" in str(error.value)


def test_upsample_conv_dtype_and_missing_bias():
    x = np.random.RandomState(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    layer = UpsampleConv(2, use_bias=False, dtype=jnp.bfloat16)
    variables = layer.init(KEY, x)
    assert list(variables["params"]) == ["kernel"]
    assert variables["params"]["kernel"].dtype == jnp.float32
    y = layer.apply(variables, x)
    assert y.dtype == jnp.bfloat16
    expected = plainly(x, variables["params"]["kernel"])
    np.testing.assert_allclose(np.float32(y), expected, rtol=0.02, atol=0.02)
