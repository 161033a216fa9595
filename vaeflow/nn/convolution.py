"""Convolutions whose gradients stay fast inside a compiled loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

WIDEST_PATCH = 512
"""Patches with more entries than this are not gathered: each tap is multiplied on its own."""

default_kernel_init = nn.initializers.lecun_normal()


def convolution(
    x: Float[Array, "batch height width channel"],
    kernel: Float[Array, "kernel_height kernel_width channel feature"],
    strides: tuple[int, int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "SAME",
) -> Float[Array, "batch out_height out_width feature"]:
    """Convolves images with a kernel.

    The same function as `jax.lax.conv_general_dilated` on channel-last images. Its derivative is
    written out for CPUs, where the compiler's own falls back to a plain loop nest inside
    `jax.lax.scan`: the input's as a convolution with the flipped kernel, the kernel's as matrix
    products. Other platforms keep the native one. Reverse-mode derivatives only.

    Args:
      x: Images.
      kernel: One filter for each pair of input channel and feature.
      strides: Vertical and horizontal stride.
      padding: "SAME", "VALID", or the rows and columns to add before and after.

    Returns:
      The convolved images, of the dtype of x.

    Raises:
      ValueError: If x isn't a batch of images, or its channels differ from the kernel's.
    """
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[-1] != kernel.shape[2]:
        raise ValueError(
            "convolution: expected images [batch, height, width, channel] and a kernel "
            f"[height, width, channel, feature], got shapes {x.shape} and {kernel.shape}"
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padding = tuple((int(before), int(after)) for before, after in padding)
    pointwise = kernel.shape[:2] == (1, 1) and tuple(strides) == (1, 1)
    if pointwise and padding == ((0, 0), (0, 0)):
        # In two dimensions, as the kernel's gradient is then the product that CPUs are fastest at.
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)
    return _convolution(x, kernel, tuple(strides), padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)


def _convolution_forward(x, kernel, strides, padding):
    return _convolution(x, kernel, strides, padding), (x, kernel)


def _convolution_backward(strides, padding, residuals, dy):
    def native(x, kernel, dy):
        convolve = functools.partial(
            lax.conv_general_dilated,
            window_strides=strides,
            padding=padding,
            dimension_numbers=DIMENSIONS,
        )
        return jax.vjp(convolve, x, kernel)[1](dy)

    def written_out(x, kernel, dy):
        return (
            _input_gradient(x.shape, kernel, dy, strides, padding),
            _kernel_gradient(x, kernel, dy, strides, padding),
        )

    return lax.platform_dependent(*residuals, dy, cpu=written_out, default=native)


_convolution.defvjp(_convolution_forward, _convolution_backward)


def _input_gradient(shape, kernel, dy, strides, padding):
    """Convolves the cotangent, spread out by the strides, with the flipped kernel."""
    back = []
    for axis in range(2):
        before = kernel.shape[axis] - 1 - padding[axis][0]
        spread = (dy.shape[axis + 1] - 1) * strides[axis] + 1
        back.append((before, shape[axis + 1] + kernel.shape[axis] - 1 - spread - before))
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return lax.conv_general_dilated(
        dy, flipped, (1, 1), back, lhs_dilation=strides, dimension_numbers=DIMENSIONS
    )


def _kernel_gradient(x, kernel, dy, strides, padding):
    """Multiplies input and cotangent, one of them shifted by every offset of the kernel.

    Offsets are gathered on the side with fewer channels, into a single matrix product.
    """
    height, width, channels, features = kernel.shape
    taps = [(i, j) for i in range(height) for j in range(width)]
    if strides == (1, 1) and features < channels and len(taps) * features <= WIDEST_PATCH:
        back = [
            (n - 1 - before, n - 1 - after)
            for n, (before, after) in zip((height, width), padding, strict=True)
        ]
        patches = _shifted(dy, taps[::-1], x.shape[1:3], strides, back)
        product = _rows_product(x, jnp.concatenate(patches, axis=-1))
        gradient = product.reshape(channels, height, width, features).transpose(1, 2, 0, 3)
    else:
        patches = _shifted(x, taps, dy.shape[1:3], strides, padding)
        if len(taps) * channels <= WIDEST_PATCH:
            gradient = _rows_product(jnp.concatenate(patches, axis=-1), dy)
        else:
            gradient = jnp.stack([_rows_product(patch, dy) for patch in patches])
    return gradient.reshape(kernel.shape).astype(kernel.dtype)


def _shifted(image, taps, shape, strides, padding):
    """Cuts a window of the given shape out of the padded image at every offset."""
    padded = lax.pad(
        image, jnp.zeros((), image.dtype), ((0, 0, 0), *((*pad, 0) for pad in padding), (0, 0, 0))
    )
    return [
        padded[
            :,
            i : i + (shape[0] - 1) * strides[0] + 1 : strides[0],
            j : j + (shape[1] - 1) * strides[1] + 1 : strides[1],
        ]
        for i, j in taps
    ]


def _rows_product(a, b):
    """Sums the outer products of the channels of a and b over examples and positions."""
    a, b = (array.reshape(-1, array.shape[-1]) for array in (a, b))
    return lax.dot_general(
        a,
        b,
        (((0,), (0,)), ((), ())),
        preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
    )


class Conv(nn.Module):
    """Convolves images and adds a bias.

    Attributes:
      features: Number of output channels.
      kernel_size: Height and width of the kernel.
      strides: Vertical and horizontal stride.
      padding: "SAME", "VALID", or the rows and columns to add before and after.
      use_bias: Whether to add a bias to each feature.
      dtype: Type to compute in; parameters are float32.
      kernel_init: Initialiser of the kernel.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: str | Sequence[tuple[int, int]] = "SAME"
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = default_kernel_init

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channel"]) -> Array:
        """Maps ``[batch, height, width, channel]`` to ``[batch, height, width, feature]``."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = convolution(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y


class ZeroConv(nn.Module):
    """A 3x3 convolution that starts at zero: y = (x * kernel + bias) exp(3 log_scale).

    All three parameters are zero at first, so whatever it parametrises starts at its default; the
    factor lets the output grow as fast as other layers can follow.

    Source: Kingma & Dhariwal 2018, section 3.3 and their published code.

    Attributes:
      features: Number of output channels.
      dtype: Type to convolve in; the result is float32 or wider.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channel"]) -> Array:
        """Maps ``[batch, height, width, channel]`` to ``[batch, height, width, feature]``."""
        zeros = nn.initializers.zeros
        kernel = self.param("kernel", zeros, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", zeros, (self.features,))
        log_scale = self.param("log_scale", zeros, (self.features,))
        y = convolution(x.astype(self.dtype), kernel.astype(self.dtype))
        return (y + bias) * jnp.exp(3 * log_scale)
