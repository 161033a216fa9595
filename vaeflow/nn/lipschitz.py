"""Networks that bring no two inputs further apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.nn.spectral import clip_spectral_norm

SWISH_LIPSCHITZ = 1.1
"""At least the largest slope of x sigmoid(beta x), which is 1.0998 for every beta."""


def lip_swish(x: Float[Array, "*shape"], beta: Float[Array, ""]) -> Float[Array, "*shape"]:
    """Computes x sigmoid(beta x) / 1.1, whose slope lies in (-1, 1), for a positive beta.

    Unlike ReLU or ELU it has a slope near 1 and a second derivative at the same places, so that
    log-determinants of a network with a bounded slope have gradients.

    Source: Chen, Behrmann, Duvenaud & Jacobsen 2019, "Residual flows for invertible generative
    modeling", section 3.3.
    """
    return x * jax.nn.sigmoid(beta * x) / SWISH_LIPSCHITZ


class LipschitzMLP(nn.Module):
    """A multilayer perceptron on vectors with a Lipschitz constant below one, zero at first.

    Each of the K kernels is scaled down so that its largest singular value is at most
    lipschitz^(1/K), and the nonlinearity is `lip_swish`, so ||g(x, c) - g(x', c)|| <=
    lipschitz ||x - x'|| at all values of the parameters, not only at those that training reaches:
    the bound on the singular values is never below them. The context enters the first layer and
    isn't bounded. Everything is computed in float32 or wider, since `vaeflow.bijectors.Residual`
    has to tell when it has found a solution.

    Source: Chen, Behrmann, Duvenaud & Jacobsen 2019, "Residual flows for invertible generative
    modeling"; how kernels are bounded, see `vaeflow.nn.spectral_bound`.

    Attributes:
      features: Number of outputs.
      hidden: Sizes of the hidden layers.
      lipschitz: Bound on the Lipschitz constant of the whole network, in (0, 1).
    """

    features: int
    hidden: Sequence[int] = (64, 64)
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
        sizes = (x.shape[-1], *self.hidden, self.features)
        parameters = {}
        for index in range(len(sizes) - 1):
            last = index == len(self.hidden)
            shapes = {
                f"kernel_{index}": (zeros if last else orthogonal, sizes[index : index + 2]),
                f"bias_{index}": (zeros, sizes[index + 1 : index + 2]),
            }
            if not last:
                shapes[f"beta_{index}"] = (nn.initializers.constant(0.5), ())
            for name, (init, shape) in shapes.items():
                parameters[name] = self.param(name, init, shape)
        if context is not None:
            shape = (context.shape[-1], sizes[1])
            parameters["context"] = self.param("context", nn.initializers.lecun_normal(), shape)
        return self.apply_normalized(self.normalized({"params": parameters}), x, context)

    @nn.nowrap
    def normalized(self, variables: dict[str, Any]) -> dict[str, Array]:
        """Bounds the kernels: all that can be computed before the input is known."""
        coefficient = self.lipschitz ** (1 / (len(self.hidden) + 1))
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
        for index in range(len(self.hidden) + 1):
            sums = _product(x, normalized[f"kernel_{index}"]) + normalized[f"bias_{index}"]
            if index == 0 and context is not None:
                sums = sums + _product(context, normalized["context"])
            x = sums if index == len(self.hidden) else lip_swish(sums, normalized[f"beta_{index}"])
        return x


def _product(x: Array, kernel: Array) -> Array:
    # Accelerators would otherwise multiply float32 in fewer bits, and no iteration would settle.
    return jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)
