"""Coupling layers, and transformers: the families of elementwise maps that they choose from.

With x = [a, b] split along the last axis, y = [a, f(b; theta(a))]. The Jacobian is triangular and
log|det dy/dx| that of f; both directions cost one pass of the conditioner theta. A transformer
builds the elementwise f from the raw outputs of a network, for couplings and for autoregressive
maps; zeros give the identity, or a map near it.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import sum_event
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.elementwise import ElementwiseAffine
from vaeflow.bijectors.monotone import BernsteinPolynomial, MonotoneNetwork
from vaeflow.bijectors.spline import RationalQuadraticSpline
from vaeflow.typing import Transformer

LARGEST_LOG_SCALE = 8.0
"""Bound on the magnitude of a `BoundedLogScale` whose own bounds are wider."""


@dataclasses.dataclass(frozen=True)
class SigmoidLogScale:
    """Computes t = log(m + (1 - m) sigmoid(raw + 2)), bounded below: factors of at most 1.

    Below three quarters of the lower bound, t bends towards it as in `BoundedLogScale`. Bound and
    floor m limit how much the inverse can amplify, by default by exp(3) = 20 a step, and so keep
    samples finite far from the data.

    Source: the published code of Kingma & Dhariwal 2018, which has neither.

    Attributes:
      floor: Smallest factor m without the bound, above 0 and below 1.
      lower: Lower bound of the log scale, below zero; ``-math.inf`` lifts it.
    """

    floor: float = 1e-3
    lower: float = -3.0

    def __post_init__(self) -> None:
        """Checks the floor and the bound.

        Raises:
          ValueError: If the floor isn't between 0 and 1, or the bound isn't below zero.
        """
        if not 0 < self.floor < 1:
            raise ValueError(f"floor must be above 0 and below 1, got {self.floor}")
        if not self.lower < 0:
            raise ValueError(f"lower must be below 0, got {self.lower}")

    def __call__(self, raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Computes the logarithm of the factor from a network's raw output."""
        if math.isinf(self.lower):
            return jnp.log(self.floor + (1 - self.floor) * jax.nn.sigmoid(raw + 2))
        return _bounded_sigmoid(raw, self.floor, self.lower)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _bounded_sigmoid(raw: Array, floor: float, lower: float) -> Array:
    log_scale = jnp.log(floor + (1 - floor) * jax.nn.sigmoid(raw + 2))
    return _bend(log_scale, lower, math.inf)


@_bounded_sigmoid.defjvp
def _(floor: float, lower: float, primals: tuple[Array], tangents: tuple[Array]):
    share = jax.nn.sigmoid(primals[0] + 2)
    factor = floor + (1 - floor) * share
    log_scale = jnp.log(factor)
    slope = (1 - floor) * share * (1 - share) / factor * _slope_of_bend(log_scale, lower, math.inf)
    return _bend(log_scale, lower, math.inf), slope * tangents[0]


@dataclasses.dataclass(frozen=True)
class BoundedLogScale:
    """Computes a log scale that is smoothly bounded on both sides.

    It is t = 8 tanh(raw / 8), near raw itself around zero, up to three quarters of each bound; from
    there on it bends, with two continuous derivatives, towards the bound b:

        s = t - u^3 / (u^2 + u w + w^2), u = t - 3 b / 4, w = b / 4.

    By default factors are between exp(-2) = 0.14 and exp(6) = 403: a density concentrates where a
    map towards noise expands, and may do so by much, while strong contractions, and long tails of
    data with them, are rarely wanted, and take the digits by which the inverse finds its way back.
    Infinite bounds leave t, between -8 and 8.

    Other libraries bound log scales as well: by a learned multiple of tanh, Dinh, Sohl-Dickstein &
    Bengio 2017, "Density estimation using Real NVP", section 4.1.

    Attributes:
      lower: Lower bound, below zero.
      upper: Upper bound, above zero.
    """

    lower: float = -2.0
    upper: float = 6.0

    def __post_init__(self) -> None:
        """Checks the bounds.

        Raises:
          ValueError: If zero isn't between them.
        """
        if not self.lower < 0 < self.upper:
            raise ValueError(
                f"lower must be below 0 and upper above it, got {self.lower} and {self.upper}"
            )

    def __call__(self, raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Computes the logarithm of the factor from a network's raw output."""
        if math.isinf(self.lower) and math.isinf(self.upper):
            return LARGEST_LOG_SCALE * jnp.tanh(raw / LARGEST_LOG_SCALE)
        return _bounded(raw, self.lower, self.upper)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _bounded(raw: Array, lower: float, upper: float) -> Array:
    return _bend(LARGEST_LOG_SCALE * jnp.tanh(raw / LARGEST_LOG_SCALE), lower, upper)


@_bounded.defjvp
def _(lower: float, upper: float, primals: tuple[Array], tangents: tuple[Array]):
    # Backpropagation keeps the slope alone, and no intermediate value.
    ratio = jnp.tanh(primals[0] / LARGEST_LOG_SCALE)
    log_scale = LARGEST_LOG_SCALE * ratio
    slope = (1 - ratio**2) * _slope_of_bend(log_scale, lower, upper)
    return _bend(log_scale, lower, upper), slope * tangents[0]


def _bend(values: Array, lower: float, upper: float) -> Array:
    """Bounds on both sides: the identity up to three quarters of each bound."""
    for sign, u, w in _sides(values, lower, upper):
        values -= sign * u * (u * u) / (u * (u + w) + w * w)
    return values


def _slope_of_bend(values: Array, lower: float, upper: float) -> Array:
    slope = jnp.ones_like(values)
    for _, u, w in _sides(values, lower, upper):
        inverse = 1 / (u * (u + w) + w * w)
        slope -= (u * inverse) ** 2 * (u * (u + 2 * w) + 3 * w * w)
    return slope


def _sides(values: Array, lower: float, upper: float) -> list[tuple[int, Array, float]]:
    """For each bound that log scales can reach: its sign, u and w of `BoundedLogScale`."""
    return [
        (sign, jnp.maximum(sign * values - 3 * bound / 4, 0), bound / 4)
        for sign, bound in ((1, upper), (-1, -lower))
        if 3 * bound / 4 < LARGEST_LOG_SCALE
    ]


@dataclasses.dataclass(frozen=True)
class AffineTransformer:
    """Affine maps y = x exp(s) + t: `ElementwiseAffine`.

    The parameters of a map are t and a raw log scale, with s = log_scale(raw).

    Attributes:
      log_scale: Static function from the raw log scale to s; ``BoundedLogScale(-math.inf,
        math.inf)`` lifts the bounds of the default.
    """

    log_scale: Callable[[Array], Array] = BoundedLogScale()

    num_parameters = 2

    def __call__(
        self, raw: Float[Array, "*batch_and_event parameters"], event_ndims: int = 1
    ) -> ElementwiseAffine:
        """Builds the bijector."""
        return ElementwiseAffine(raw[..., 0], self.log_scale(raw[..., 1]), event_ndims)


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
        spread = (
            jnp.linspace(-1, 1, self.num_units, dtype=raw.dtype)
            if self.num_units > 1
            else jnp.zeros(1, raw.dtype)
        )
        return MonotoneNetwork(weights, slopes, offsets + spread, event_ndims)


Network = Callable[[Array], Array]


class _Coupling(Bijector):
    """Splits the channels, calls the conditioner, and leaves the elementwise map to subclasses."""

    static_fields = ("split",)

    def __init__(
        self,
        conditioner: Network,
        split: int,
        event_ndims: int,
        *,
        is_constant_log_det: bool = False,
    ):
        super().__init__(event_ndims_in=event_ndims, is_constant_log_det=is_constant_log_det)
        self.conditioner = conditioner
        self.split = split

    @property
    @abc.abstractmethod
    def _num_parameters(self) -> int:
        """Number of parameters of each transformed channel."""

    @abc.abstractmethod
    def _transform(self, parameters: Array, b: Array, inverse: bool) -> tuple[Array, Array]:
        """Computes f(b; parameters), or its inverse, with its log-determinant."""

    def _couple(self, x: Array, inverse: bool) -> tuple[Array, Array]:
        if not 0 <= self.split < x.shape[-1]:
            raise ValueError(
                f"{self.name}: split must be between 0 and the number of channels - 1, "
                f"got {self.split} for an array of shape {x.shape}"
            )
        a, b = x[..., : self.split], x[..., self.split :]
        b, log_det = self._transform(self._parameters(a, b), b, inverse)
        return jnp.concatenate([a.astype(b.dtype), b], axis=-1), log_det

    def _parameters(self, a: Array, b: Array) -> Array:
        expected = (*b.shape[:-1], self._num_parameters * b.shape[-1])
        parameters = self.conditioner(a)
        if parameters.shape != expected:
            raise ValueError(
                f"{self.name}: the conditioner must return an array of shape {expected}, "
                f"got {parameters.shape}"
            )
        # The network may compute in bfloat16, the map itself may not.
        return parameters.astype(jnp.promote_types(b.dtype, jnp.float32))

    def _forward(self, x):
        return self._couple(x, inverse=False)

    def _inverse(self, y):
        return self._couple(y, inverse=True)


class AffineCoupling(_Coupling):
    """Affine coupling: shifts and scales the last channels given the first.

    With x = [a, b] split along the last axis, y = [a, (b + t) exp(s)], where t and the raw log
    scale come from ``conditioner(a)`` and s = log_scale(raw).
    log|det dy/dx| = sum of s. Both directions cost one pass of the conditioner.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, 2 (channel - split)]``, shifts first.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP", section 3.2;
    shifting before scaling, as Kingma & Dhariwal 2018 do.
    """

    static_fields = ("split", "log_scale")
    _num_parameters = 2

    def __init__(
        self,
        conditioner: Network,
        split: int,
        event_ndims: int = 1,
        log_scale: Callable[[Array], Array] = BoundedLogScale(),
    ):
        """Builds the coupling.

        Args:
          conditioner: A `Conditioner`, or another pytree that can be called.
          split: Number of channels that the conditioner reads; 0 makes it unconditional.
          event_ndims: Number of trailing axes that make an event.
          log_scale: Static function from the network's raw output to the logarithm of the factor.
        """
        super().__init__(conditioner, split, event_ndims)
        self.log_scale = log_scale

    def _transform(self, parameters, b, inverse):
        shift, raw = jnp.split(parameters, 2, axis=-1)
        log_scale = self.log_scale(raw)
        log_det = sum_event(log_scale, self.event_ndims_in)
        if inverse:
            return b * jnp.exp(-log_scale) - shift, -log_det
        return (b + shift) * jnp.exp(log_scale), log_det


class AdditiveCoupling(_Coupling):
    """Additive coupling: shifts the last channels given the first.

    With x = [a, b] split along the last axis, y = [a, b + conditioner(a)]; the log-determinant is
    zero. Both directions cost one pass of the conditioner.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, channel - split]``.

    Source: Dinh, Krueger & Bengio 2014, "NICE: Non-linear independent components estimation",
    section 3.2.
    """

    _num_parameters = 1

    def __init__(self, conditioner: Network, split: int, event_ndims: int = 1):
        """Builds the coupling.

        Args:
          conditioner: A `Conditioner`, or another pytree that can be called.
          split: Number of channels that the conditioner reads; 0 makes it unconditional.
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(conditioner, split, event_ndims, is_constant_log_det=True)

    def _transform(self, parameters, b, inverse):
        log_det = jnp.zeros(b.shape[: b.ndim - self.event_ndims_in], jnp.float32)
        return (b - parameters if inverse else b + parameters), log_det


class TransformedCoupling(_Coupling):
    """Coupling by a family of elementwise maps, chosen given the first channels.

    With x = [a, b] split along the last axis, y = [a, f(b)], where f is the elementwise bijector
    that `transformer` builds from ``conditioner(a)``. log|det dy/dx| is that of f. Both directions
    cost one pass of the conditioner and that direction of f.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, (channel - split) parameters]``, the
    parameters of one channel next to each other. (`AffineCoupling` has all shifts first, and shifts
    before it scales, so it isn't this class with an `AffineTransformer`.)

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows", section 2.1.
    """

    static_fields = ("split", "transformer")

    def __init__(
        self, conditioner: Network, split: int, transformer: Transformer, event_ndims: int = 1
    ):
        """Builds the coupling.

        Args:
          conditioner: A `Conditioner`, or another pytree that can be called.
          split: Number of channels that the conditioner reads; 0 makes it unconditional.
          transformer: The family, such as `SplineTransformer`.
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(conditioner, split, event_ndims)
        self.transformer = transformer

    @property
    def _num_parameters(self) -> int:
        return self.transformer.num_parameters

    def _transform(self, parameters, b, inverse):
        raw = parameters.reshape((*b.shape, self._num_parameters))
        bijector = self.transformer(raw, self.event_ndims_in)
        return bijector.inverse_and_log_det(b) if inverse else bijector.forward_and_log_det(b)
