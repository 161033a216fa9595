"""Transposed convolutions against a gradient, and nearest-neighbour resizing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow.nn.autoregressive_map import resize_nearest
from vaeflow.nn.convolution import TransposedConv

KEY = jax.random.key(0)


def test_transposed_conv_is_the_gradient_of_a_convolution_of_stride_two():
    layer = TransposedConv(3)

    @jax.jit
    def run(x):
        y, variables = layer.init_with_output(KEY, x)
        squares = variables["params"]["Conv_0"]["kernel"].reshape(2, 2, 6, 2, 2, 3)
        # Tap (i, j) of the 2x2 window, pixel (a, b) of the square: row 2 (1 - i) + a of the kernel.
        kernel = jnp.transpose(squares[::-1, ::-1], (0, 3, 1, 4, 5, 2)).reshape(4, 4, 3, 6)

        def convolve(y):
            return jax.lax.conv_general_dilated(
                y, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        expected = jax.vjp(convolve, jnp.zeros((2, 8, 10, 3)))[1](x)[0]
        return y, layer.apply(variables, x, (7, 9)), expected

    x = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    y, kept, expected = jax.device_get(run(x))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(kept, expected[:, :7, :9], atol=1e-5)
    with pytest.raises(ValueError, match=r"size must be at most \(8, 10\).* got \(9, 9\)"):
        jax.eval_shape(lambda x: layer.init(KEY, x, (9, 9)), x)


def test_resize_nearest_repeats_pixels():
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    larger, same = jax.jit(lambda x: [resize_nearest(x, size) for size in ((3, 6), (2, 3))])(x)
    np.testing.assert_array_equal(
        np.asarray(larger)[0, :, :, 0],
        [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]],
    )
    np.testing.assert_array_equal(same, x)
