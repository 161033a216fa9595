"""Facts that other libraries ask for: ranges of bijectors, supports of distributions, gradients.

They follow from classes. Elementwise maps onto an interval are known, and so is which classes map
the reals onto the reals; of other classes nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import distrax
import numpy as np

from vaeflow import bijectors, distributions
from vaeflow._util.checks import known


class Bounds(NamedTuple):
    """An open interval of the real line, or a box of them.

    Attributes:
      lower: A number, or an array that broadcasts to events; None where there is no lower end.
      upper: The upper end, likewise.
    """

    lower: Any = None
    upper: Any = None

    @property
    def real(self) -> bool:
        """Whether there is no end."""
        return self.lower is None and self.upper is None


REAL = Bounds()

# Elementwise maps from the reals onto an interval.
_ONTO = {
    bijectors.Exp: lambda _: Bounds(0.0, None),
    bijectors.Softplus: lambda _: Bounds(0.0, None),
    bijectors.Sigmoid: lambda bijector: Bounds(bijector.lower, bijector.upper),
    distrax.Sigmoid: lambda _: Bounds(0.0, 1.0),
    distrax.Tanh: lambda _: Bounds(-1.0, 1.0),
}
# Maps of distrax from the reals onto the reals.
_ONTO_REALS = (
    distrax.DiagLinear,
    distrax.DiagPlusLowRankLinear,
    distrax.LowerUpperTriangularAffine,
    distrax.RationalQuadraticSpline,
    distrax.ScalarAffine,
    distrax.Shift,
    distrax.TriangularLinear,
    distrax.UnconstrainedAffine,
)
_SHUFFLES = (bijectors.Permute, bijectors.Reverse, bijectors.Reshape, bijectors.Squeeze)


def image(
    bijector: distrax.Bijector, domain: Bounds = REAL, inverse: bool = False
) -> Bounds | None:
    """The image of an interval under a bijector, or under its inverse; None where it isn't known.

    Args:
      bijector: The bijector; compositions are followed into their parts.
      domain: The interval that each element of the input lies in.
      inverse: Whether the input is that of the inverse.
    """
    parts = _parts(bijector)
    if parts is not None:
        bounds: Bounds | None = domain
        for part in parts if inverse else reversed(parts):
            bounds = None if bounds is None else image(part, bounds, inverse)
        return bounds
    if _composed(bijector, "inverse", distrax.Inverse):
        return image(_inside(bijector), domain, not inverse)
    if isinstance(bijector, distrax.Block):
        return image(bijector.bijector, domain, inverse)
    if type(bijector) in _ONTO:
        onto = _ONTO[type(bijector)](bijector)
        start, end = (onto, REAL) if inverse else (REAL, onto)
        return end if _same(domain, start) else None
    if domain.real:
        return REAL if _maps_reals(bijector) else None
    if isinstance(bijector, bijectors.ElementwiseAffine):
        return _affine(bijector, domain, inverse)
    if isinstance(bijector, _SHUFFLES) and all(np.ndim(end or 0.0) == 0 for end in domain):
        return domain
    return None


def domain_and_range(bijector: distrax.Bijector) -> tuple[Bounds, Bounds] | None:
    """The intervals that a bijector maps from and to, one of them the reals; None if unknown."""
    end = image(bijector)
    if end is not None:
        return REAL, end
    start = image(bijector, inverse=True)
    return None if start is None else (start, REAL)


def support(distribution: distrax.Distribution) -> Bounds | None:
    """The interval of each element of a continuous distribution's samples; None if unknown."""
    for kinds, bounds in _SUPPORTS:
        if isinstance(distribution, kinds):
            return bounds(distribution)
    return None


def _of_transformed(distribution: distrax.Transformed) -> Bounds | None:
    base = support(distribution.distribution)
    return None if base is None else image(distribution.bijector, base)


def _of_mixture(components: distrax.Distribution) -> Bounds | None:
    """That of the components, if it is one number a side: arrays may differ between them."""
    bounds = support(components)
    single = bounds is not None and all(end is None or isinstance(end, float) for end in bounds)
    return bounds if single else None


def _box(lower: Any, upper: Any) -> Bounds:
    """Bounds by two arrays; one number a side where the elements are known and equal."""

    def end(values: Any) -> Any:
        now = known(values)
        same = now is not None and now.size and np.all(now == now.flat[0])
        return float(now.flat[0]) if same else values

    return Bounds(end(lower), end(upper))


def is_reparameterized(distribution: distrax.Distribution) -> bool:
    """Whether samples are known to be differentiable in the parameters."""
    if isinstance(distribution, (distrax.Independent, distrax.Transformed)):
        return is_reparameterized(distribution.distribution)
    return isinstance(distribution, _REPARAMETERIZED)


def _same(first: Bounds, second: Bounds) -> bool:
    """Whether the ends are known numbers, and equal."""
    return all(
        one is two or (isinstance(one, float) and isinstance(two, float) and one == two)
        for one, two in zip(first, second, strict=True)
    )


def _parts(bijector: distrax.Bijector) -> Sequence[distrax.Bijector] | None:
    chained = _composed(bijector, "chain", distrax.Chain)
    return list(bijector.bijectors) if chained else None


def _composed(bijector: distrax.Bijector, how: str, of_distrax: type) -> bool:
    """Whether a bijector is composed of others in a way, by this package's classes or distrax's."""
    return getattr(bijector, "composition", None) == how or isinstance(bijector, of_distrax)


def _inside(bijector: distrax.Bijector) -> distrax.Bijector:
    return bijector._bijector if isinstance(bijector, distrax.Inverse) else bijector.bijector


def _maps_reals(bijector: distrax.Bijector) -> bool:
    if not type(bijector).__module__.startswith(bijectors.__name__ + "."):
        return type(bijector) in _ONTO_REALS
    # One around another, such as FactorOut, has the range of the other.
    inside = getattr(bijector, "bijector", None)
    return inside is None or image(inside) == REAL


def _affine(bijector: bijectors.ElementwiseAffine, domain: Bounds, inverse: bool) -> Bounds:
    def moved(end: Any) -> Any:
        if end is None:
            return None
        event = bijector.shift.shape[-bijector.event_ndims_in :] if bijector.event_ndims_in else ()
        ends = np.broadcast_to(np.float32(end), event) if np.ndim(end) == 0 else end
        method = bijector.inverse if inverse else bijector.forward
        return method(ends)

    return Bounds(*(moved(end) for end in domain))


_REPARAMETERIZED = (
    distrax.Beta,
    distrax.Dirichlet,
    distrax.Gamma,
    distrax.Gumbel,
    distrax.Laplace,
    distrax.Logistic,
    distrax.Normal,
    distrax.Uniform,
    distributions.Concrete,
    distributions.FullGaussian,
    distributions.UniformBox,
)
_SUPPORTS: tuple[tuple[Any, Any], ...] = (
    (
        (
            distrax.Normal,
            distrax.Laplace,
            distrax.Logistic,
            distrax.Gumbel,
            distrax.MultivariateNormalFromBijector,
            distributions.FullGaussian,
        ),
        lambda _: REAL,
    ),
    ((distrax.Gamma,), lambda _: Bounds(0.0, None)),
    ((distrax.Beta,), lambda _: Bounds(0.0, 1.0)),
    ((distributions.ContinuousBernoulli,), lambda _: Bounds(0.0, 1.0)),
    ((distrax.Uniform,), lambda uniform: _box(uniform.low, uniform.high)),
    ((distributions.UniformBox,), lambda box: _box(box._low, box._high)),
    ((distrax.Transformed,), _of_transformed),
    ((distrax.Independent,), lambda independent: support(independent.distribution)),
    ((distrax.MixtureSameFamily,), lambda each: _of_mixture(each.components_distribution)),
)
