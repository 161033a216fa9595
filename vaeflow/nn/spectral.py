"""Kernels whose largest singular value is bounded."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.convolution import Conv

GRAM_ITERATIONS = 6
"""Number of times that `spectral_bound` squares the kernel."""


def spectral_bound(kernel: Float[Array, "input output"]) -> Float[Array, ""]:
    """Computes a bound on the largest singular value of a kernel that is never below it.

    With A_0 = W and A_i+1 = A_i^T A_i, the largest singular value of A_t is that of W to the power
    2^t, and the Frobenius norm is at least as large: s(W) <= ||A_t||_F^(1 / 2^t). The bound exceeds
    s(W) by a factor of at most rank(W)^(1 / 2^(t+1)): for t = 6 by 3% where 64 singular values are
    all equal, and by nothing to speak of where few are near the largest.

    A few steps of the power method give a number below s(W) instead, unless a vector is carried
    along from one update to the next, which is state; a singular value decomposition is exact, but
    slow on accelerators. This is a handful of small products, smooth in W, that depend on W alone.

    Source: Delattre, Barthelemy, Araujo & Allauzen 2023, "Efficient bound of Lipschitz constant for
    convolutional layers by Gram iteration", section 3, for dense layers.

    Args:
      kernel: W, with finite entries of any size.
    """
    # The bound is homogeneous in W, so this factor needs no derivative.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(kernel), initial=0))
    is_zero = largest == 0
    unit = jnp.where(is_zero, 1, kernel) / jnp.where(is_zero, 1, largest)
    if unit.shape[0] < unit.shape[1]:
        unit = unit.T
    power = 1.0
    log_bound = jnp.zeros((), unit.dtype)
    for _ in range(GRAM_ITERATIONS):
        unit = jnp.matmul(unit.T, unit, precision=jax.lax.Precision.HIGHEST)
        norm = jnp.sqrt(jnp.sum(unit**2))
        unit = unit / norm
        power = power / 2
        log_bound = log_bound + power * jnp.log(norm)
    return jnp.where(is_zero, 0, largest * jnp.exp(log_bound))


def clip_spectral_norm(
    kernel: Float[Array, "input output"], coefficient: float
) -> Float[Array, "input output"]:
    """Scales a kernel down, where need be, so that no singular value exceeds the coefficient.

    Source: Gouk, Frank, Pfahringer & Cree 2021, "Regularisation of neural networks by enforcing
    Lipschitz continuity", equation 8; Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen 2019,
    "Invertible residual networks", equation 2.
    """
    return kernel * (coefficient / jnp.maximum(coefficient, spectral_bound(kernel)))


class SpectralConv(Conv):
    """A convolution whose kernel is divided by the spectral norm of its matrix.

    The matrix has a row for each tap and channel and a column for each feature. Its norm is
    `spectral_bound`, which depends on the kernel alone: no vector is carried from one update to the
    next, and a model behaves alike in training and after it. That of a kernel of zeros stays zero.

    Source: Miyato, Kataoka, Koyama & Yoshida 2018, "Spectral normalization for generative
    adversarial networks", section 2.1.
    """

    def effective(
        self, kernel: Float[Array, "kernel_height kernel_width channel feature"]
    ) -> Float[Array, "kernel_height kernel_width channel feature"]:
        """The kernel, divided by its norm."""
        norm = spectral_bound(kernel.reshape(-1, kernel.shape[-1]))
        return kernel / jnp.where(norm == 0, 1, norm)
