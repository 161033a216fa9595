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

from vaeflow.nn import taps

default_kernel_init = nn.initializers.lecun_normal()


def convolution(
    x: Float[Array, "batch height width channel"],
    kernel: Float[Array, "kernel_height kernel_width channel feature"],
    strides: tuple[int, int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "SAME",
) -> Float[Array, "batch out_height out_width feature"]:
    """Convolves images with a kernel.

    The same function as `jax.lax.conv_general_dilated` on channel-last images. CPUs compute it and
    its derivatives by matrix products (`vaeflow.nn.taps`), which is faster where one side of the
    kernel has few channels and, within `jax.lax.scan`, where the compiler's own derivative falls
    back to a plain loop nest. Other platforms keep the native one. Reverse-mode derivatives only.

    Args:
      x: Images.
      kernel: One filter for each pair of input channel and feature.
      strides: Vertical and horizontal stride.
      padding: "SAME", "VALID", the rows and columns of zeros to add before and after, or "REFLECT":
        as many as "SAME", mirrored at the outermost ones.

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
    if padding == "REFLECT":
        same = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, "SAME")
        x, padding = jnp.pad(x, ((0, 0), *same, (0, 0)), mode="reflect"), "VALID"
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
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(taps.convolve, strides=strides, padding=padding),
        default=functools.partial(taps.convolve_natively, strides=strides, padding=padding),
    )


def _convolution_forward(x, kernel, strides, padding):
    return _convolution(x, kernel, strides, padding), (x, kernel)


def _convolution_backward(strides, padding, residuals, dy):
    def native(x, kernel, dy):
        convolve = functools.partial(taps.convolve_natively, strides=strides, padding=padding)
        return jax.vjp(convolve, x, kernel)[1](dy)

    written_out = functools.partial(taps.gradients, strides=strides, padding=padding)
    return lax.platform_dependent(*residuals, dy, cpu=written_out, default=native)


_convolution.defvjp(_convolution_forward, _convolution_backward)


class Conv(nn.Module):
    """Convolves images and adds a bias.

    Attributes:
      features: Number of output channels.
      kernel_size: Height and width of the kernel.
      strides: Vertical and horizontal stride.
      padding: As for `convolution`.
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
        kernel = self.effective(self.param("kernel", self.kernel_init, shape))
        y = convolution(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y

    def effective(
        self, kernel: Float[Array, "kernel_height kernel_width channel feature"]
    ) -> Float[Array, "kernel_height kernel_width channel feature"]:
        """What is convolved with, made of the parameter: here the kernel itself."""
        return kernel


class ZeroConv(nn.Module):
    """A 3x3 convolution that starts at zero: y = (x * kernel + bias) exp(3 log_scale).

    All three parameters are zero at first, so whatever it parametrises starts at its default; the
    factor, multiplied into the kernel, lets the output grow as fast as other layers can follow.

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
        scale = jnp.exp(3 * log_scale)
        y = convolution(x.astype(self.dtype), (kernel * scale).astype(self.dtype))
        return y + bias * scale
