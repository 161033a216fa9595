"""Radial maps of vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.amortised import prepare_vectors
from vaeflow.bijectors.base import Bijector


class Radial(Bijector):
    """Draws space towards a centre or pushes it away: y = x + beta_hat (x - c) / (alpha + r).

    r = ||x - c||, alpha = softplus(raw_alpha) and beta_hat = -alpha + softplus(raw_beta) > -alpha,
    which makes the map invertible. With h = 1 / (alpha + r) and d entries,
    log|det dy/dx| = (d - 1) log(1 + beta_hat h) + log(1 + beta_hat h - beta_hat r h^2).

    The inverse is in closed form: the distance of x from the centre is the positive root of a
    quadratic in that of y. Both directions cost the same.

    Shapes: events are ``[dimension]``; `center` is ``[*parameters, dimension]``, `raw_alpha` and
    `raw_beta` are ``[*parameters]``, whose batch axes broadcast against those of the input.

    Source: Rezende & Mohamed 2015, "Variational inference with normalizing flows", and its
    appendix A.2.
    """

    def __init__(
        self,
        center: Float[Array, "*parameters dimension"],
        raw_alpha: Float[Array, "*parameters"],
        raw_beta: Float[Array, "*parameters"],
    ):
        """Builds the map.

        Args:
          center: The point c, which stays in its place.
          raw_alpha: Distance within which the map acts most, before softplus.
          raw_beta: Strength before the constraint; the map is the identity where it equals
            `raw_alpha`.

        Raises:
          ValueError: If the shapes of the parameters disagree.
        """
        super().__init__(event_ndims_in=1)
        center = jnp.asarray(center)
        raw_alpha, raw_beta = jnp.asarray(raw_alpha), jnp.asarray(raw_beta)
        if center.ndim < 1 or not center.shape[:-1] == raw_alpha.shape == raw_beta.shape:
            raise ValueError(
                "center, raw_alpha and raw_beta must have shapes [*batch, dimension], [*batch] and "
                f"[*batch], got {center.shape}, {raw_alpha.shape} and {raw_beta.shape}"
            )
        self.center = center
        self.raw_alpha = raw_alpha
        self.raw_beta = raw_beta

    def _prepare(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Computes x - c, its length, alpha, and gamma = alpha + beta_hat."""
        offset = prepare_vectors(self.name, x, self.center.shape[-1], self.raw_alpha.shape)
        offset = offset - self.center
        alpha, gamma = jax.nn.softplus(self.raw_alpha), jax.nn.softplus(self.raw_beta)
        return offset, _length(offset), alpha, gamma

    def _log_det(self, radius: Array, alpha: Array, gamma: Array) -> Array:
        # Both factors written as sums of positive terms, which don't cancel.
        total = alpha + radius
        inner, outer = alpha / total, radius / total
        around = jnp.log((gamma + radius) / total)
        along = jnp.log(outer * (1 + inner) + inner * gamma / total)
        return (self.center.shape[-1] - 1) * around + along

    def _forward(self, x):
        offset, radius, alpha, gamma = self._prepare(x)
        factor = (gamma + radius) / (alpha + radius)
        y = self.center + factor[..., None] * offset
        return y, self._log_det(radius, alpha, gamma)

    def _inverse(self, y):
        offset, distance, alpha, gamma = self._prepare(y)
        # distance = r (gamma + r) / (alpha + r): r^2 - (distance - gamma) r - alpha distance = 0.
        middle = distance - gamma
        root = jnp.sqrt(middle**2 + 4 * alpha * distance) + jnp.abs(middle)
        radius = jnp.where(middle >= 0, root / 2, 2 * alpha * distance / root)
        factor = (alpha + radius) / (gamma + radius)
        return self.center + factor[..., None] * offset, -self._log_det(radius, alpha, gamma)


def _length(vectors: Array) -> Array:
    """Euclidean norms, with the gradient zero at zero rather than NaN."""
    square = jnp.sum(vectors**2, axis=-1)
    # Not `square > 0`: a NaN has to stay one.
    is_zero = square == 0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, square)))
