"""Convolutions of images with kernels and gradients that suit CPUs, and upsampling convolutions.

`convolution` computes what `jax.lax.conv_general_dilated` does; see `vaeflow.nn.convolution_cpu`
for its matrix products. The upsampling layers compute four phases by one convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from vaeflow._util.arrays import compute_dtype
from vaeflow.nn import convolution_cpu


def upsampled_size(shape: tuple[int, ...], size: tuple[int, int] | None) -> tuple[int, int]:
    """Returns the height and width of the output of an upsampling convolution.

    Args:
      shape: Shape of its input, [batch, height, width, channel].
      size: The height and width asked for, or None for twice those of the input.

    Raises:
      ValueError: If the size is larger than twice that of the input.
    """
    doubled = (2 * shape[1], 2 * shape[2])
    height, width = size or doubled
    if height > doubled[0] or width > doubled[1]:
        raise ValueError(f"size must be at most {doubled} for x of shape {shape}, got {size}")
    return height, width


def depth_to_space(
    x: Float[Array, "batch height width phases_and_features"],
) -> Float[Array, "batch doubled_height doubled_width feature"]:
    """Moves four groups of channels to the pixels of 2x2 blocks, in row-major order.

    On images equal to `vaeflow.bijectors.Squeeze().inverse`, which this package doesn't import.
    """
    batch, rows, columns, channels = x.shape
    blocks = x.reshape(batch, rows, columns, 2, 2, channels // 4)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * rows, 2 * columns, channels // 4)


default_kernel_init = nn.initializers.lecun_normal()


def convolution(
    x: Float[Array, "batch height width channel"],
    kernel: Float[Array, "kernel_height kernel_width channel feature"],
    strides: tuple[int, int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "SAME",
) -> Float[Array, "batch out_height out_width feature"]:
    """Convolves images with a kernel.

    The same function as `jax.lax.conv_general_dilated` on channel-last images. CPUs compute it and
    its derivatives by matrix products (`vaeflow.nn.convolution_cpu`), which is faster where one
    side of the kernel has few channels and, within `jax.lax.scan`, where the compiler's own
    derivative falls back to a plain loop nest. Other platforms use the native convolution.

    Args:
      x: Images.
      kernel: One filter for each pair of input channel and feature.
      strides: Vertical and horizontal stride.
      padding: "SAME", "VALID", the rows and columns of zeros to add before and after, or "REFLECT":
        as many as "SAME", mirrored at the outermost ones.

    Returns:
      The convolved images, of the wider dtype of both.

    Raises:
      ValueError: If x isn't a batch of images, or its channels differ from the kernel's.
    """
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[-1] != kernel.shape[2]:
        raise ValueError(
            "convolution: expected images [batch, height, width, channel] and a kernel "
            f"[height, width, channel, feature], got shapes {x.shape} and {kernel.shape}"
        )
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    if padding == "REFLECT":
        same = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, "SAME")
        x, padding = jnp.pad(x, ((0, 0), *same, (0, 0)), mode="reflect"), "VALID"
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padding = tuple((int(before), int(after)) for before, after in padding)
    pointwise = kernel.shape[:2] == (1, 1) and tuple(strides) == (1, 1)
    if pointwise and padding == ((0, 0), (0, 0)):
        # As a product of two matrices, so that the kernel's gradient is one too: fastest on CPUs.
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])
    return _convolve.bind(x, kernel, size=None, strides=tuple(strides), padding=padding)


# A convolution and the gradients to its images and to its kernel are three bilinear functions, each
# the transpose of the others in one of their arguments. As primitives they have derivatives of any
# order in both modes, always by these three; other transposes would fall back to the compiler's.


def _bilinear(name: str) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=("size", "strides", "padding")))
    return primitive


_convolve, _image_gradient, _kernel_gradient = map(
    _bilinear, ("convolve", "image_gradient", "kernel_gradient")
)


def _convolve_natively(x: Array, kernel: Array, *, size: None = None, **options: Any) -> Array:
    del size
    return convolution_cpu.convolve_natively(x, kernel, **options)


def _convolve_on_cpu(x: Array, kernel: Array, *, size: None = None, **options: Any) -> Array:
    del size
    return convolution_cpu.convolve(x, kernel, **options)


def _image_gradient_natively(dy: Array, kernel: Array, *, size: Any, **options: Any) -> Array:
    shape = (dy.shape[0], *size, kernel.shape[2])
    images = jax.ShapeDtypeStruct(shape, dy.dtype)
    transpose = jax.linear_transpose(lambda x: _convolve_natively(x, kernel, **options), images)
    return transpose(dy)[0]


def _kernel_gradient_natively(x: Array, dy: Array, *, size: Any, **options: Any) -> Array:
    kernel = jax.ShapeDtypeStruct((*size, x.shape[-1], dy.shape[-1]), x.dtype)
    transpose = jax.linear_transpose(
        lambda kernel: _convolve_natively(x, kernel, **options), kernel
    )
    return transpose(dy)[0]


def _register(
    primitive: Primitive,
    natively: Callable[..., Array],
    on_cpu: Callable[..., Array],
    to_first: Callable[..., Array],
    to_second: Callable[..., Array],
    rows: bool,
) -> None:
    """Defines a primitive.

    Args:
      primitive: The primitive, of two arrays.
      natively: Its function by the compiler's own operations.
      on_cpu: Its function by matrix products.
      to_first: The cotangent of its first argument, from those of its result and the arguments.
      to_second: The cotangent of its second argument.
      rows: Whether each row of the result is that of a row of the first argument.
    """

    def result(a, b, **options):
        shape = jax.eval_shape(functools.partial(natively, **options), *map(_struct, (a, b))).shape
        return a.update(shape=shape, weak_type=False)

    def mapped(arrays, axes, **options):
        a, b = arrays
        if rows and axes[1] is None:
            a = jnp.moveaxis(a, axes[0], 0)
            y = primitive.bind(a.reshape(-1, *a.shape[2:]), b, **options)
            return y.reshape(*a.shape[:2], *y.shape[1:]), 0
        one = functools.partial(
            lax.platform_dependent,
            cpu=functools.partial(on_cpu, **options),
            default=functools.partial(natively, **options),
        )
        return jax.vmap(one, in_axes=tuple(axes))(a, b), 0

    primitive.def_abstract_eval(result)
    mlir.register_lowering(primitive, mlir.lower_fun(natively, multiple_results=False))
    mlir.register_lowering(
        primitive, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu"
    )
    ad.defbilinear(primitive, to_first, to_second)
    batching.primitive_batchers[primitive] = mapped


def _struct(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


_register(
    _convolve,
    _convolve_natively,
    _convolve_on_cpu,
    lambda dy, x, kernel, *, size, **options: _image_gradient.bind(
        dy, kernel, size=x.aval.shape[1:3], **options
    ),
    lambda dy, x, kernel, *, size, **options: _kernel_gradient.bind(
        x, dy, size=kernel.aval.shape[:2], **options
    ),
    rows=True,
)
_register(
    _image_gradient,
    _image_gradient_natively,
    convolution_cpu.image_gradient,
    lambda x, dy, kernel, *, size, **options: _convolve.bind(x, kernel, size=None, **options),
    lambda x, dy, kernel, *, size, **options: _kernel_gradient.bind(
        x, dy, size=kernel.aval.shape[:2], **options
    ),
    rows=True,
)
_register(
    _kernel_gradient,
    _kernel_gradient_natively,
    convolution_cpu.kernel_gradient,
    lambda kernel, x, dy, *, size, **options: _image_gradient.bind(
        dy, kernel, size=x.aval.shape[1:3], **options
    ),
    lambda kernel, x, dy, *, size, **options: _convolve.bind(x, kernel, size=None, **options),
    rows=False,
)


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
        kernel = self.transform_kernel(self.param("kernel", self.kernel_init, shape, jnp.float32))
        dtype = compute_dtype(self.dtype, x, kernel)
        y = convolution(x.astype(dtype), kernel.astype(dtype), self.strides, self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(dtype)
        return y

    def transform_kernel(
        self, kernel: Float[Array, "kernel_height kernel_width channel feature"]
    ) -> Float[Array, "kernel_height kernel_width channel feature"]:
        """Computes the kernel to convolve with from the parameter: here the parameter itself."""
        return kernel


class ZeroConv(nn.Module):
    """A zero-initialised 3x3 convolution: y = (x * kernel + bias) exp(3 log_scale).

    All three parameters are initially zero, so the map that it parametrises starts at its default;
    the factor, multiplied into the kernel, speeds up the growth of the output.

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
        kernel = self.param("kernel", zeros, (3, 3, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        log_scale = self.param("log_scale", zeros, (self.features,), jnp.float32)
        scale = jnp.exp(3 * log_scale)
        dtype = compute_dtype(self.dtype, x, kernel)
        y = convolution(x.astype(dtype), (kernel * scale).astype(dtype))
        return y + bias * scale


class TransposedConv(nn.Module):
    """A transposed 4x4 convolution of stride 2.

    Rows 2i - 1 and 2i of the output read rows i - 1 and i of the input, likewise columns: so it is
    a 2x2 convolution to four times the features, one quarter for each pixel of a 2x2 block. As the
    stride divides the size of the kernel, all pixels read equally many of the input.

    Attributes:
      features: Number of output channels.
      dtype: Type to compute in.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], size: tuple[int, int] | None = None
    ) -> Float[Array, "batch out_height out_width feature"]:
        """Maps ``[batch, height, width, channel]`` to twice the height and width.

        Args:
          x: Images.
          size: Height and width to keep, at most twice those of x, or None for all.

        Raises:
          ValueError: If the size is larger.
        """
        height, width = upsampled_size(x.shape, size)
        phases = Conv(4 * self.features, (2, 2), padding=((1, 1), (1, 1)), dtype=self.dtype)(x)
        return depth_to_space(phases)[:, 1 : 1 + height, 1 : 1 + width]


class UpsampleConv(nn.Module):
    """Nearest-neighbour upsampling by 2, then a 5x5 convolution.

    Along an axis, a row of the output reads three rows of the input: the five taps fall on them as
    (2, 2, 1) in even rows and (1, 2, 2) in odd ones. So it is computed as a 3x3 convolution of the
    input to four times the features, one quarter for each pixel of a 2x2 block, whose kernel holds
    sums of taps: 36 products in place of 100. The input is padded with its outermost pixels, so the
    upsampled image is mirrored with its outermost pixels repeated, whereas "REFLECT", and the
    published program, leave them out.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    appendix B; it avoids the checkerboard artifacts of Odena, Dumoulin & Olah 2016, "Deconvolution
    and checkerboard artifacts".

    Attributes:
      features: Number of output channels.
      use_bias: Whether to add a bias to each feature.
      dtype: Type to compute in; parameters are float32.
      kernel_init: Initialiser of the 5x5 kernel.
    """

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = default_kernel_init

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], size: tuple[int, int] | None = None
    ) -> Float[Array, "batch out_height out_width feature"]:
        """Maps ``[batch, height, width, channel]`` to twice the height and width.

        Args:
          x: Images.
          size: Height and width to keep, at most twice those of x, or None for all.

        Raises:
          ValueError: If the size is larger.
        """
        height, width = upsampled_size(x.shape, size)
        channels = x.shape[-1]
        kernel = self.param(
            "kernel", self.kernel_init, (5, 5, channels, self.features), jnp.float32
        )
        # [tap of 3, phase of 2, tap of 5]
        falls_on = np.zeros((3, 2, 5), np.float32)
        for phase in range(2):
            for tap in range(5):
                falls_on[(phase + tap) // 2, phase, tap] = 1
        summed = jnp.einsum("ipr,jqs,rscf->ijcpqf", falls_on, falls_on, kernel)
        summed = summed.reshape(3, 3, channels, 4 * self.features)
        dtype = compute_dtype(self.dtype, x, kernel)
        padded = jnp.pad(x.astype(dtype), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        phases = convolution(padded, summed.astype(dtype), padding="VALID")
        y = depth_to_space(phases)[:, :height, :width]
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(dtype)
        return y


@jax.custom_jvp
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes max(x, 0), differentiated through its result.

    The next layer stores the result for its own gradient anyway, so nothing else has to be stored,
    which halves what a loop over layers writes to memory. The derivative at zero is zero.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals, tangents):
    y = relu(*primals)
    return y, _where_positive(y, *tangents)


# Recomputes the mask in the backward pass, rather than storing it.
@functools.partial(jax.checkpoint, prevent_cse=False)
def _where_positive(y, change):
    return jnp.where(y > 0, change, 0)
