"""Convolutions of images whose pixels are doubled first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaeflow.nn.convolution import convolution, default_kernel_init
from vaeflow.nn.phases import depth_to_space, doubled_size


class UpsampleConv(nn.Module):
    """Repeats each pixel twice in both directions, then convolves 5x5; no overlapping strides.

    Along an axis, a row of the result sees three rows of the input: the five taps fall on them as
    (2, 2, 1) in even rows and (1, 2, 2) in odd ones. So it is computed as a 3x3 convolution of the
    input to four times the features, one quarter for each pixel of a 2x2 square, whose kernel is
    made of sums of taps: 36 products in place of 100. Beyond its edges the input is continued by
    its outermost pixels. So the doubled image is mirrored with its outermost pixels repeated, where
    "REFLECT", and the published program, leave them out.

    Source of the layer: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image
    translation", appendix B; of what it is for: Odena, Dumoulin & Olah 2016, "Deconvolution and
    checkerboard artifacts".

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
        height, width = doubled_size(x.shape, size)
        channels = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (5, 5, channels, self.features))
        # [tap of 3, phase of 2, tap of 5]
        falls_on = np.zeros((3, 2, 5), np.float32)
        for phase in range(2):
            for tap in range(5):
                falls_on[(phase + tap) // 2, phase, tap] = 1
        summed = jnp.einsum("ipr,jqs,rscf->ijcpqf", falls_on, falls_on, kernel)
        summed = summed.reshape(3, 3, channels, 4 * self.features)
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        squares = convolution(padded, summed.astype(self.dtype), padding="VALID")
        y = depth_to_space(squares)[:, :height, :width]
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y
