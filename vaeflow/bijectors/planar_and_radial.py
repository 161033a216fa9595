"""Planar and radial bijectors of vectors.

Source: Rezende & Mohamed 2015, "Variational inference with normalizing flows".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import Bijector, prepare_vectors
from vaeflow.bijectors.numerical import solve_monotone

SMALLEST_SQUARE = 1e-12
"""Squared length of a weight up to which it counts as zero: the constraint divides by it."""


class Planar(Bijector):
    """Planar map: y = x + u_hat h(w . x + b).

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
          weight: The normal w of the planes.
          scale: The direction u in which they are shifted, before the constraint.
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
            h = jnp.tanh(s)
            return h, h**2 + stretch * (1 - h**2)
        slopes = jnp.where(s > 0, 1.0, self.negative_slope).astype(s.dtype)
        slopes = jnp.where(jnp.isnan(s), s, slopes)
        return slopes * s, (1 - slopes) + slopes * stretch

    def _forward(self, x):
        x = prepare_vectors(self.name, x, self.weight.shape[-1], self.bias.shape)
        direction, stretch = self.constrained()
        s = jnp.sum(self.weight * x, axis=-1) + self.bias
        h, determinant = self._activation(s, stretch)
        return x + direction * h[..., None], jnp.log(determinant)

    def _inverse(self, y):
        y = prepare_vectors(self.name, y, self.weight.shape[-1], self.bias.shape)
        direction, stretch = self.constrained()
        # With s = w . x + b: s + (w . u_hat) h(s) = w . y + b.
        target = jnp.sum(self.weight * y, axis=-1) + self.bias
        if self.negative_slope is None:
            s = solve_monotone(_image_along_weight, stretch, target)
        else:
            s = target / self._activation(target, stretch)[1]
        h, determinant = self._activation(s, stretch)
        return y - direction * h[..., None], -jnp.log(determinant)


def _image_along_weight(stretch: Array, s: Array) -> Array:
    """Computes w . y + b = s + (w . u_hat) tanh(s) from s = w . x + b."""
    h = jnp.tanh(s)
    return (s - h) + stretch * h


class Radial(Bijector):
    """Radial map around a centre, contracting or expanding: y = x + beta_hat (x - c) / (alpha + r).

    r = ||x - c||, alpha = softplus(raw_alpha) and beta_hat = -alpha + softplus(raw_beta) > -alpha,
    which makes the map invertible. With h = 1 / (alpha + r) and d dimensions,
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
          center: The fixed point c.
          raw_alpha: Length scale alpha of the map, before softplus.
          raw_beta: Strength beta before the constraint; the map is the identity where it equals
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
        # Both factors are sums of positive terms, which don't cancel.
        total = alpha + radius
        inner, outer = alpha / total, radius / total
        tangential = jnp.log((gamma + radius) / total)
        radial = jnp.log(outer * (1 + inner) + inner * gamma / total)
        return (self.center.shape[-1] - 1) * tangential + radial

    def _forward(self, x):
        offset, radius, alpha, gamma = self._prepare(x)
        factor = (gamma + radius) / (alpha + radius)
        y = self.center + factor[..., None] * offset
        return y, self._log_det(radius, alpha, gamma)

    def _inverse(self, y):
        offset, distance, alpha, gamma = self._prepare(y)
        # distance = r (gamma + r) / (alpha + r): r^2 - (distance - gamma) r - alpha distance = 0.
        middle = distance - gamma
        unit = jax.lax.stop_gradient(alpha + gamma + distance)  # squares in it don't overflow
        discriminant = (middle / unit) ** 2 + 4 * (alpha / unit) * (distance / unit)
        root = unit * jnp.sqrt(discriminant) + jnp.abs(middle)
        radius = jnp.where(middle >= 0, root / 2, 2 * alpha * distance / root)
        factor = (alpha + radius) / (gamma + radius)
        return self.center + factor[..., None] * offset, -self._log_det(radius, alpha, gamma)


def _length(vectors: Array) -> Array:
    """Euclidean norms of vectors of any size, with the gradient zero at zero rather than NaN."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(vectors), axis=-1, keepdims=True))
    # Not `size > 0`: a NaN has to stay one.
    is_zero = size == 0
    unit = jnp.where(is_zero, 1.0, size)
    square = jnp.where(is_zero[..., 0], 1.0, jnp.sum((vectors / unit) ** 2, axis=-1))
    return jnp.where(is_zero[..., 0], 0.0, unit[..., 0] * jnp.sqrt(square))
