"""Lipschitz-bounded networks and spectral normalisation.

Kernels are bounded by Gram iteration (Delattre et al. 2023): a deterministic upper bound on the
spectral norm, without the state of a power iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import matmul
from vaeflow.nn.convolution import Conv

GRAM_ITERATIONS = 6
"""Number of squarings in `spectral_bound`."""


def spectral_bound(kernel: Float[Array, "input output"]) -> Float[Array, ""]:
    """Computes an upper bound on the largest singular value of a kernel.

    With A_0 = W and A_i+1 = A_i^T A_i, the largest singular value of A_t is that of W to the power
    2^t, and the Frobenius norm is at least as large: s(W) <= ||A_t||_F^(1 / 2^t). The bound exceeds
    s(W) by a factor of at most rank(W)^(1 / 2^(t+1)): for t = 6 by 3% where 64 singular values are
    all equal, and by a negligible amount where few are near the largest.

    A few steps of the power method underestimate s(W), unless a vector is kept from one update to
    the next, which is state; a singular value decomposition is exact, but slow on accelerators.
    This takes a few small products and is a smooth function of W alone.

    Source: Delattre, Barthelemy, Araujo & Allauzen 2023, "Efficient bound of Lipschitz constant for
    convolutional layers by Gram iteration", section 3, for dense layers.

    Args:
      kernel: W, with finite elements of any size.
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
    """Scales a kernel down, if necessary, so that no singular value exceeds the coefficient.

    Source: Gouk, Frank, Pfahringer & Cree 2021, "Regularisation of neural networks by enforcing
    Lipschitz continuity", equation 8; Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen 2019,
    "Invertible residual networks", equation 2.
    """
    return kernel * (coefficient / jnp.maximum(coefficient, spectral_bound(kernel)))


class SpectralConv(Conv):
    """A convolution whose kernel is divided by the spectral norm of its matrix.

    The matrix has a row for each tap and channel and a column for each feature. Its norm is
    `spectral_bound`, which depends on the kernel alone: there is no state, and a model is the same
    function in training and evaluation. A kernel of zeros stays zero.

    Source: Miyato, Kataoka, Koyama & Yoshida 2018, "Spectral normalization for generative
    adversarial networks", section 2.1.
    """

    def transform_kernel(
        self, kernel: Float[Array, "kernel_height kernel_width channel feature"]
    ) -> Float[Array, "kernel_height kernel_width channel feature"]:
        """Divides the kernel by its norm."""
        norm = spectral_bound(kernel.reshape(-1, kernel.shape[-1]))
        return kernel / jnp.where(norm == 0, 1, norm)


SWISH_LIPSCHITZ = 1.1
"""Upper bound on the slope of x sigmoid(beta x), at most 1.0998 for every beta."""


def lip_swish(x: Float[Array, "*shape"], beta: Float[Array, ""]) -> Float[Array, "*shape"]:
    """Computes x sigmoid(beta x) / 1.1, whose slope lies in (-1, 1), for a positive beta.

    Unlike ReLU or ELU it has a slope near 1 and a second derivative at the same places, so that
    log-determinants of a network with a bounded slope have gradients.

    Source: Chen, Behrmann, Duvenaud & Jacobsen 2019, "Residual flows for invertible generative
    modeling", section 3.3.
    """
    return x * jax.nn.sigmoid(beta * x) / SWISH_LIPSCHITZ


class LipschitzMLP(nn.Module):
    """A multilayer perceptron on vectors with a Lipschitz constant below one, initially zero.

    Each of the K kernels is scaled down so that its largest singular value is at most
    lipschitz^(1/K), and the nonlinearity is `lip_swish`, so ||g(x, c) - g(x', c)|| <=
    lipschitz ||x - x'|| at all values of the parameters, since `spectral_bound` is an upper bound.
    The context enters the first layer and isn't bounded. Everything is computed in float32 or
    wider, since the fixed-point iteration of `vaeflow.bijectors.Residual` must converge.

    Source: Chen, Behrmann, Duvenaud & Jacobsen 2019, "Residual flows for invertible generative
    modeling"; for the bound on kernels see `vaeflow.nn.lipschitz.spectral_bound`.

    Attributes:
      features: Number of outputs.
      hidden_sizes: Sizes of the hidden layers.
      lipschitz: Bound on the Lipschitz constant of the whole network, in (0, 1).
    """

    features: int
    hidden_sizes: Sequence[int] = (64, 64)
    lipschitz: float = 0.9

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch channel"], context: Float[Array, "batch feature"] | None = None
    ) -> Float[Array, "batch out"]:
        """Maps ``[batch, channel]`` to ``[batch, features]``, given a context if there is one.

        Raises:
          ValueError: If `lipschitz` isn't in (0, 1).
        """
        if not 0 < self.lipschitz < 1:
            raise ValueError(f"LipschitzMLP: lipschitz must be in (0, 1), got {self.lipschitz}")
        orthogonal, zeros = nn.initializers.orthogonal(), nn.initializers.zeros
        sizes = (x.shape[-1], *self.hidden_sizes, self.features)
        params = {}
        for index in range(len(sizes) - 1):
            last = index == len(self.hidden_sizes)
            shapes = {
                f"kernel_{index}": (zeros if last else orthogonal, sizes[index : index + 2]),
                f"bias_{index}": (zeros, sizes[index + 1 : index + 2]),
            }
            if not last:
                shapes[f"beta_{index}"] = (nn.initializers.constant(0.5), ())
            for name, (init, shape) in shapes.items():
                params[name] = self.param(name, init, shape, jnp.float32)
        if context is not None:
            shape = (context.shape[-1], sizes[1])
            params["context"] = self.param(
                "context", nn.initializers.lecun_normal(), shape, jnp.float32
            )
        return self.apply_normalized(self.normalized({"params": params}), x, context)

    @nn.nowrap
    def context_features(self, params: dict[str, Any]) -> int:
        """Number of features of the context that parameters were made for, 0 for none."""
        return params["context"].shape[0] if "context" in params else 0

    @nn.nowrap
    def normalized(self, variables: dict[str, Any]) -> dict[str, Array]:
        """Computes the bounded kernels and positive betas, which don't depend on the input."""
        coefficient = self.lipschitz ** (1 / (len(self.hidden_sizes) + 1))
        return {
            name: clip_spectral_norm(value, coefficient)
            if name.startswith("kernel")
            else jax.nn.softplus(value)
            if name.startswith("beta")
            else value
            for name, value in variables["params"].items()
        }

    @nn.nowrap
    def apply_normalized(
        self,
        normalized: dict[str, Array],
        x: Float[Array, "batch channel"],
        context: Float[Array, "batch feature"] | None,
    ) -> Float[Array, "batch out"]:
        """Applies the network, given what `normalized` returns."""
        for index in range(len(self.hidden_sizes) + 1):
            sums = matmul(x, normalized[f"kernel_{index}"]) + normalized[f"bias_{index}"]
            if index == 0 and context is not None:
                sums = sums + matmul(context, normalized["context"])
            x = (
                sums
                if index == len(self.hidden_sizes)
                else lip_swish(sums, normalized[f"beta_{index}"])
            )
        return x
