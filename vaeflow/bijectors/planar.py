"""Planar maps of vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.amortised import prepare_vectors
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.numerical import solve_monotone

SMALLEST_SQUARE = 1e-12
"""Squared length of a weight under which it counts as zero: the constraint divides by it."""


class Planar(Bijector):
    """Stretches or squeezes space along one direction: y = x + u_hat h(w . x + b).

    h is tanh, or a leaky ReLU. Where w isn't zero, u_hat = u + (m(w . u) - w . u) w / ||w||^2 with
    m(a) = softplus(a) - 1, so that w . u_hat > -1; as h' is at most 1 for both choices of h, the
    map is invertible. log|det dy/dx| = log(1 + (w . u_hat) h'(w . x + b)). Where ||w|| is at most
    1e-6, u_hat = u, and the map is invertible for ||u|| < 1e6.

    Forward is the cheap direction. The inverse solves one scalar monotone equation in w . x for
    each example: in closed form for a leaky ReLU, by `solve_monotone` for tanh, with NaN where the
    search fails.

    Shapes: events are ``[dimension]``; `weight` and `scale` are ``[*parameters, dimension]`` and
    `bias` is ``[*parameters]``, whose batch axes broadcast against those of the input.

    Source: Rezende & Mohamed 2015, "Variational inference with normalizing flows", and its
    appendix A.1.
    """

    static_fields = ("negative_slope",)

    def __init__(
        self,
        weight: Float[Array, "*parameters dimension"],
        scale: Float[Array, "*parameters dimension"],
        bias: Float[Array, "*parameters"],
        negative_slope: float | None = None,
    ):
        """Builds the map.

        Args:
          weight: The normal w of the planes that move together.
          scale: The direction u in which they move, before the constraint.
          bias: The offset b.
          negative_slope: None for tanh; the slope below zero, in [0, 1), for a leaky ReLU.

        Raises:
          ValueError: If the shapes of the parameters disagree, or the slope isn't in [0, 1).
        """
        super().__init__(event_ndims_in=1)
        weight, scale, bias = jnp.asarray(weight), jnp.asarray(scale), jnp.asarray(bias)
        if weight.ndim < 1 or weight.shape != scale.shape or weight.shape[:-1] != bias.shape:
            raise ValueError(
                "weight, scale and bias must have shapes [*batch, dimension], [*batch, dimension] "
                f"and [*batch], got {weight.shape}, {scale.shape} and {bias.shape}"
            )
        if negative_slope is not None and not 0 <= negative_slope < 1:
            raise ValueError(f"negative_slope must be None or in [0, 1), got {negative_slope}")
        self.weight = weight
        self.scale = scale
        self.bias = bias
        self.negative_slope = negative_slope

    def constrained(self) -> tuple[Float[Array, "*parameters dimension"], Float[Array, "*p"]]:
        """Computes u_hat and 1 + w . u_hat, the second without cancellation."""
        square = jnp.sum(self.weight**2, axis=-1)
        product = jnp.sum(self.weight * self.scale, axis=-1)
        is_zero = square <= SMALLEST_SQUARE
        # Softplus of less than -87 is zero in float32, which has no logarithm.
        positive = jnp.maximum(jax.nn.softplus(product), jnp.finfo(product.dtype).tiny)
        stretch = jnp.where(is_zero, 1 + product, positive)
        # Where the weight is zero, so is the correction, and neither branch divides by zero.
        correction = (stretch - 1 - product) / jnp.where(is_zero, 1.0, square)
        correction = jnp.where(is_zero, 0.0, correction)
        return self.scale + correction[..., None] * self.weight, stretch

    def _activation(self, s: Array, stretch: Array) -> tuple[Array, Array]:
        """Computes h(s), and the determinant there."""
        if self.negative_slope is None:
            bent = jnp.tanh(s)
            return bent, bent**2 + stretch * (1 - bent**2)
        slopes = jnp.where(s > 0, 1.0, self.negative_slope).astype(s.dtype)
        slopes = jnp.where(jnp.isnan(s), s, slopes)
        return slopes * s, (1 - slopes) + slopes * stretch

    def _forward(self, x):
        x = prepare_vectors(self.name, x, self.weight.shape[-1], self.bias.shape)
        direction, stretch = self.constrained()
        s = jnp.sum(self.weight * x, axis=-1) + self.bias
        bent, determinant = self._activation(s, stretch)
        return x + direction * bent[..., None], jnp.log(determinant)

    def _inverse(self, y):
        y = prepare_vectors(self.name, y, self.weight.shape[-1], self.bias.shape)
        direction, stretch = self.constrained()
        # With s = w . x + b: s + (w . u_hat) h(s) = w . y + b.
        target = jnp.sum(self.weight * y, axis=-1) + self.bias
        if self.negative_slope is None:
            s = solve_monotone(_bent_line, stretch, target)
        else:
            s = target / self._activation(target, stretch)[1]
        bent, determinant = self._activation(s, stretch)
        return y - direction * bent[..., None], -jnp.log(determinant)


def _bent_line(stretch: Array, s: Array) -> Array:
    bent = jnp.tanh(s)
    return (s - bent) + stretch * bent
