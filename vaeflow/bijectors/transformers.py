"""Transformers: families of elementwise bijectors, built from the raw outputs of a network.

Couplings and autoregressive maps y_i = f(x_i; theta_i) choose the member by theta_i. Zeros give the
identity, or a map near it.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.elementwise import ElementwiseAffine
from vaeflow.bijectors.monotone import BernsteinPolynomial, MonotoneNetwork
from vaeflow.bijectors.spline import RationalQuadraticSpline

LARGEST_LOG_SCALE = 8.0
"""Bound b on the magnitude of `bounded_log_scale`."""


@dataclasses.dataclass(frozen=True)
class SigmoidLogScale:
    """Computes log(m + (1 - m) sigmoid(raw + 2)): factors between the floor m and 1.

    The floor bounds how much the inverse can amplify, by 1 / m a step, and so keeps samples finite
    however far from the data they stray.

    Source: the published code of Kingma & Dhariwal 2018, which has m = 0.

    Attributes:
      floor: Smallest factor m, above 0 and below 1.
    """

    floor: float = 1e-3

    def __post_init__(self) -> None:
        """Checks the floor.

        Raises:
          ValueError: If the floor isn't between 0 and 1.
        """
        if not 0 < self.floor < 1:
            raise ValueError(f"floor must be above 0 and below 1, got {self.floor}")

    def __call__(self, raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Computes the logarithm of the factor from a network's raw output."""
        return jnp.log(self.floor + (1 - self.floor) * jax.nn.sigmoid(raw + 2))


def bounded_log_scale(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes b tanh(raw / b) with b = 8: the identity near zero, bounded by b far from it."""
    return LARGEST_LOG_SCALE * jnp.tanh(raw / LARGEST_LOG_SCALE)


@dataclasses.dataclass(frozen=True)
class AffineTransformer:
    """Affine maps y = x exp(s) + t: `ElementwiseAffine`.

    The parameters of a map are t and a raw log scale, of which s is `bounded_log_scale`.
    """

    num_parameters = 2

    def __call__(
        self, raw: Float[Array, "*batch_and_event parameters"], event_ndims: int = 1
    ) -> ElementwiseAffine:
        """Builds the bijector."""
        return ElementwiseAffine(raw[..., 0], bounded_log_scale(raw[..., 1]), event_ndims)


@dataclasses.dataclass(frozen=True)
class SplineTransformer:
    """Rational-quadratic splines with linear tails: `RationalQuadraticSpline`.

    The parameters of a map are the widths, the heights and the derivatives.

    Attributes:
      num_bins: Number of bins.
      bound: Upper end of the interval of the map that isn't linear, and minus its lower end.
    """

    num_bins: int = 8
    bound: float = 4.0

    def __post_init__(self) -> None:
        """Checks the number of bins.

        Raises:
          ValueError: If `num_bins` is below 1.
        """
        if self.num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {self.num_bins}")

    @property
    def num_parameters(self) -> int:
        """Number of parameters of one spline."""
        return 3 * self.num_bins - 1

    def __call__(
        self, raw: Float[Array, "*batch_and_event parameters"], event_ndims: int = 1
    ) -> RationalQuadraticSpline:
        """Builds the bijector."""
        widths, heights, derivatives = jnp.split(raw, [self.num_bins, 2 * self.num_bins], axis=-1)
        return RationalQuadraticSpline(widths, heights, derivatives, self.bound, event_ndims)


@dataclasses.dataclass(frozen=True)
class BernsteinTransformer:
    """Increasing polynomials with linear tails: `BernsteinPolynomial`.

    Attributes:
      degree: Degree of the polynomials.
      bound: Upper end of the interval of the map that isn't linear, and minus its lower end.
    """

    degree: int = 8
    bound: float = 4.0

    @property
    def num_parameters(self) -> int:
        """Number of parameters of one polynomial."""
        return self.degree

    def __call__(
        self, raw: Float[Array, "*batch_and_event parameters"], event_ndims: int = 1
    ) -> BernsteinPolynomial:
        """Builds the bijector."""
        return BernsteinPolynomial(raw, self.bound, event_ndims)


@dataclasses.dataclass(frozen=True)
class MonotoneTransformer:
    """Increasing networks: `MonotoneNetwork`.

    With these an autoregressive map is a neural autoregressive flow. Zeros give an increasing odd
    function near the identity, not the identity itself: units that start equal would stay equal.

    Attributes:
      num_units: Number of hidden units.
    """

    num_units: int = 8

    @property
    def num_parameters(self) -> int:
        """Number of parameters of one network."""
        return 3 * self.num_units

    def __call__(
        self, raw: Float[Array, "*batch_and_event parameters"], event_ndims: int = 1
    ) -> MonotoneNetwork:
        """Builds the bijector."""
        weights, slopes, offsets = jnp.split(raw, 3, axis=-1)
        spread = jnp.linspace(-1, 1, self.num_units) if self.num_units > 1 else jnp.zeros(1)
        return MonotoneNetwork(weights, slopes, offsets + spread, event_ndims)
