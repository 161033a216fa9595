"""Convolutions and their gradients as matrix products over the taps of the kernel, for CPUs.

CPUs are fastest at products of matrices with many rows and columns; the compiler's own convolution
reaches less where one side of the kernel has few channels, and its derivative within `jax.lax.scan`
falls back to a plain loop nest. So where the input has few channels, the windows of all taps are
gathered first (im2col); where the output has few, every pixel is multiplied by all taps, and the
products that fall on each output pixel are added up (col2im). Where both sides are wide, forward is
the native convolution and only the kernel's gradient is a product for each tap.

`benchmarks/README.md` has the measurements.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

WIDEST_PATCH = 512
"""Wider patches (taps times channels) aren't gathered: each tap is multiplied on its own."""

Pair = tuple[int, int]

Padding = tuple[Pair, Pair]


def convolve(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    """Convolves images [batch, height, width, channel] with a kernel [..., channel, feature]."""
    thin = _thin_side(kernel.shape, strides)
    if thin == "input":
        return _gather(x, kernel.shape, strides, padding) @ _as_matrix(kernel)
    if thin == "output":
        return _scatter(x, kernel, padding)
    return convolve_natively(x, kernel, strides, padding)


def convolve_natively(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    """Convolves by the compiler's own operation."""
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)


def image_gradient(dy: Array, kernel: Array, size: Pair, strides: Pair, padding: Padding) -> Array:
    """Pulls the cotangent of the convolved images back to images of this height and width."""
    thin = _thin_side(kernel.shape, strides)
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    back = _back(kernel.shape, padding)
    if thin == "output":
        return _gather(dy, kernel.shape, strides, back) @ _as_matrix(flipped)
    if thin == "input" and strides == (1, 1):
        return _scatter(dy, flipped, back)
    return _image_gradient_natively(flipped, dy, size, strides, back)


def kernel_gradient(x: Array, dy: Array, size: Pair, strides: Pair, padding: Padding) -> Array:
    """Pulls the cotangent of the convolved images back to a kernel of this height and width."""
    shape = (*size, x.shape[-1], dy.shape[-1])
    thin = _thin_side(shape, strides)
    if thin == "output":
        height, width, channels, features = shape
        patches = _gather(dy, shape, strides, _back(shape, padding))
        product = _rows_product(x, patches).reshape(channels, height, width, features)
        dkernel = product[:, ::-1, ::-1].transpose(1, 2, 0, 3)
    else:
        windows = _windows(x, shape, strides, padding)
        if thin == "input":
            windows = [jnp.concatenate(windows, axis=-1)]
        dkernel = jnp.stack([_rows_product(window, dy) for window in windows]).reshape(shape)
    return dkernel.astype(x.dtype)


def _back(shape: tuple[int, ...], padding: Padding) -> Padding:
    """The padding of a convolution with the flipped kernel that goes back to the images."""
    sizes = zip(shape[:2], padding, strict=True)
    return tuple((size - 1 - before, size - 1 - after) for size, (before, after) in sizes)


def _thin_side(shape: tuple[int, ...], strides: Pair) -> Literal["input", "output"] | None:
    """The side of the kernel with few channels, if its patches are narrow enough."""
    height, width, channels, features = shape
    if channels <= features and height * width * channels <= WIDEST_PATCH:
        return "input"
    if features < channels and height * width * features <= WIDEST_PATCH and strides == (1, 1):
        return "output"
    return None


def _as_matrix(kernel: Array) -> Array:
    return kernel.reshape(-1, kernel.shape[-1])


def _gather(x: Array, shape: tuple[int, ...], strides: Pair, padding: Padding) -> Array:
    """Concatenates the windows of all taps (im2col): [batch, height, width, tap * channel]."""
    return jnp.concatenate(_windows(x, shape, strides, padding), axis=-1)


def _windows(x: Array, shape: tuple[int, ...], strides: Pair, padding: Padding) -> list[Array]:
    """Slices the window that each tap reads from the padded image."""
    padded = _pad(x, (1, 2), padding)
    rows, columns = (n - k + 1 for n, k in zip(padded.shape[1:3], shape[:2], strict=True))
    return [
        padded[:, i : i + rows : strides[0], j : j + columns : strides[1]]
        for i in range(shape[0])
        for j in range(shape[1])
    ]


def _scatter(x: Array, kernel: Array, padding: Padding) -> Array:
    """Multiplies every pixel by all taps, and adds up the products of each output pixel."""
    height, width, channels, features = kernel.shape
    taps = _as_matrix(jnp.swapaxes(kernel, 2, 3))
    # Channels come first, so that the terms of the sum are contiguous along the width.
    parts = lax.dot_general(
        taps,
        x.reshape(-1, channels),
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )
    parts = _pad(parts.reshape(height, width, features, *x.shape[:3]), (4, 5), padding)
    rows, columns = (n - k + 1 for n, k in zip(parts.shape[4:], (height, width), strict=True))
    total = sum(
        parts[i, j, :, :, i : i + rows, j : j + columns]
        for i in range(height)
        for j in range(width)
    )
    # The compiler would otherwise fuse the sum into each reader of the result and recompute it.
    return lax.optimization_barrier(jnp.moveaxis(total, 0, -1).astype(x.dtype))


def _image_gradient_natively(
    flipped: Array, dy: Array, size: Pair, strides: Pair, back: Padding
) -> Array:
    """Convolves the cotangent, dilated by the strides, with the flipped kernel."""
    margins = []
    for axis, (before, _) in enumerate(back):
        spread = (dy.shape[axis + 1] - 1) * strides[axis] + 1
        margins.append((before, size[axis] + flipped.shape[axis] - 1 - spread - before))
    return lax.conv_general_dilated(
        dy, flipped, (1, 1), margins, lhs_dilation=strides, dimension_numbers=DIMENSIONS
    )


def _pad(x: Array, axes: Pair, padding: Padding) -> Array:
    """Pads two axes with zeros; negative numbers crop."""
    config = [(0, 0, 0)] * x.ndim
    for axis, (before, after) in zip(axes, padding, strict=True):
        config[axis] = (before, after, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _rows_product(a: Array, b: Array) -> Array:
    """Sums the outer products of the channels of a and b over examples and positions."""
    a, b = (array.reshape(-1, array.shape[-1]) for array in (a, b))
    return lax.dot_general(
        a,
        b,
        (((0,), (0,)), ((), ())),
        preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
    )
