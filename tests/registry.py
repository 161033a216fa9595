"""Every public bijector and flow, made at several event shapes and with contexts.

A new class gets one entry here, and with it all the checks of `vaeflow.testing`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import distrax
import pytest

from tests import (
    makers,
    makers_autoregressive,
    makers_continuous,
    makers_linear,
    makers_monotone,
    makers_residual,
    vector_makers,
)
from vaeflow import bijectors, flows
from vaeflow.bijectors.orthogonal import orthonormal_columns
from vaeflow.flows.base import StepOf
from vaeflow.testing import Case


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public class at one event shape.

    Attributes:
      public: The class that the entry is about.
      variant: What sets it apart from other entries of the class.
      make: As for `vaeflow.testing.Case`.
      event_shape: Shape of one event that enters forward.
      context_shape: Shape of one context, or None.
      module: The flow, where the entry is about one.
      constant: Names of leaves that may have no gradient.
      tolerance: Of comparisons between values.
      slow: Whether its laws are left to `-m slow`: what it adds to other entries isn't worth the
        time that its programs take to compile.
      heavy: Whether each of its programs takes seconds to compile: tests that compile more of them
        than values and gradients take are left to `-m slow`.
    """

    public: type
    variant: str
    make: Callable[..., distrax.Bijector]
    event_shape: tuple[int, ...]
    context_shape: tuple[int, ...] | None = None
    module: Any = None
    constant: tuple[str, ...] = ()
    tolerance: float = 1e-4
    slow: bool = False
    heavy: bool = False

    @property
    def name(self) -> str:
        """Name of the entry, for the ids of tests."""
        return f"{self.public.__name__}-{self.variant}"

    @functools.cached_property
    def case(self) -> Case:
        """The case of all tests of this entry, which share what it compiles."""
        return Case(
            self.make,
            self.event_shape,
            context_shape=self.context_shape,
            constant=self.constant,
            tolerance=self.tolerance,
        )


COSTLY = frozenset({"differentiation", "jit", "pytree"})
"""Checks of large programs, or that make or call a bijector without `jax.jit`, where each operation
is a program: left to the slow tests, but for what other tests show."""

STRUCTURAL = frozenset({"batch axes", "low precision", "scan", "vmap"})
"""Checks of what JAX does to a class rather than of its mathematics: they follow the code of the
class, not the shape of the event, and compile programs of their own."""


def representatives(entries: Iterable[Entry]) -> set[str]:
    """Names of one entry for each class: the first with a context, else the first."""
    chosen: dict[type, Entry] = {}
    for entry in entries:
        first = chosen.setdefault(entry.public, entry)
        if (first.slow, first.context_shape is None) > (entry.slow, entry.context_shape is None):
            chosen[entry.public] = entry
    return {entry.name for entry in chosen.values()}


def parameters(entries: Iterable[Entry]) -> list[Any]:
    """Entries to parametrise a test over."""
    return [pytest.param(entry, id=entry.name, marks=_marks(entry.slow)) for entry in entries]


def laws(entries: Sequence[Entry], checks: Iterable[str], structural: set[str]) -> list[Any]:
    """Pairs of an entry and a check to parametrise a test over.

    Args:
      entries: What to test.
      checks: Names of checks of `vaeflow.testing`.
      structural: Names of the entries whose structural checks aren't left to the slow tests.
    """
    return [
        pytest.param(
            entry,
            check,
            id=f"{entry.name}-{check}",
            marks=_marks(
                entry.slow
                or check in COSTLY
                or (check in STRUCTURAL and (entry.heavy or entry.name not in structural))
            ),
        )
        for entry in entries
        for check in checks
    ]


def _marks(slow: bool) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if slow else []


def public_classes() -> set[type]:
    """Every public bijector, and every public class of flows, but those that are only abstract."""
    named_bijectors = {getattr(bijectors, name) for name in bijectors.__all__}
    named_flows = {getattr(flows, name) for name in flows.__all__}
    return {
        value
        for value in named_bijectors | named_flows
        if inspect.isclass(value)
        and not inspect.isabstract(value)
        and not getattr(value, "_is_protocol", False)
        and (value in named_flows or issubclass(value, distrax.Bijector))
    }


def missing(entries: Iterable[Entry]) -> set[type]:
    """The public classes that no entry is about."""
    return public_classes() - {entry.public for entry in entries}


_SPLINES = bijectors.SplineTransformer(num_bins=3)

BIJECTORS: Sequence[Entry] = (
    Entry(bijectors.ElementwiseAffine, "scalar", makers.affine(0), ()),
    Entry(bijectors.ElementwiseAffine, "vector", makers.affine(1, 4), (4,), slow=True),
    Entry(bijectors.ElementwiseAffine, "image", makers.affine(3, 2, 2, 3), (2, 2, 3)),
    Entry(bijectors.ElementwiseAffine, "channels", makers.affine(3, 3), (2, 2, 3)),
    Entry(bijectors.ElementwiseAffine, "context", makers.amortised_affine, (4,), (2,)),
    Entry(bijectors.ActNorm, "vector", makers.actnorm(1, 4), (4,)),
    Entry(bijectors.ActNorm, "image", makers.actnorm(3, 3), (2, 4, 3)),
    Entry(bijectors.Invertible1x1Convolution, "vector", makers.convolution(1, 4), (4,)),
    Entry(bijectors.Invertible1x1Convolution, "image", makers.convolution(3, 3), (2, 4, 3)),
    Entry(
        bijectors.Invertible1x1ConvolutionPLU,
        "image",
        makers.plu_convolution(3, 3),
        (2, 4, 3),
    ),
    Entry(bijectors.AffineCoupling, "vector", makers.affine_coupling(5, 2), (5,)),
    Entry(bijectors.AffineCoupling, "one-entry", makers.affine_coupling(1, 0), (1,)),
    Entry(
        bijectors.AffineCoupling,
        "image",
        makers.affine_coupling(3, 1, 3, bijectors.SigmoidLogScale()),
        (2, 2, 3),
    ),
    Entry(bijectors.AffineCoupling, "context", makers.affine_coupling(4, 2), (4,), (2,)),
    Entry(bijectors.AdditiveCoupling, "vector", makers.additive_coupling(4, 2), (4,)),
    Entry(
        bijectors.AdditiveCoupling, "context", makers.additive_coupling(3, 1, 3), (2, 2, 3), (2,)
    ),
    Entry(bijectors.Squeeze, "rows", lambda key: bijectors.Squeeze(), (2, 4, 2)),
    Entry(bijectors.Squeeze, "thirds", lambda key: bijectors.Squeeze(3), (6, 3, 1), slow=True),
    Entry(
        bijectors.Squeeze,
        "checkerboard",
        lambda key: bijectors.Squeeze(checkerboard=True),
        (4, 2, 2),
    ),
    Entry(bijectors.Sigmoid, "unit", lambda key: bijectors.Sigmoid(), (4,)),
    Entry(bijectors.Sigmoid, "image", lambda key: bijectors.Sigmoid(-3, 2, 3), (2, 2, 1)),
    Entry(bijectors.RationalQuadraticSpline, "scalar", makers.spline(0), ()),
    Entry(bijectors.RationalQuadraticSpline, "vector", makers.spline(1, 4), (4,), slow=True),
    Entry(
        bijectors.RationalQuadraticSpline, "image", makers.spline(3, 2, 2, 3), (2, 2, 3), slow=True
    ),
    Entry(bijectors.RationalQuadraticSpline, "circular", makers.spline(1, 4, circular=True), (4,)),
    Entry(bijectors.RationalQuadraticSpline, "context", makers.amortised_spline, (4,), (2,)),
    Entry(
        bijectors.TransformedCoupling,
        "vector",
        makers.transformed_coupling(5, 2, bijectors.SplineTransformer(num_bins=3)),
        (5,),
    ),
    Entry(
        bijectors.TransformedCoupling,
        "context",
        makers.transformed_coupling(4, 2, bijectors.SplineTransformer(num_bins=3)),
        (4,),
        (2,),
        heavy=True,
    ),
    Entry(
        bijectors.MaskedAutoregressive,
        "affine",
        makers_autoregressive.masked_autoregressive(4, bijectors.AffineTransformer()),
        (4,),
    ),
    Entry(
        bijectors.MaskedAutoregressive,
        "spline-context",
        makers_autoregressive.masked_autoregressive(3, bijectors.SplineTransformer(num_bins=3)),
        (3,),
        (2,),
        heavy=True,
    ),
    Entry(
        bijectors.MaskedAutoregressive,
        "one-entry",
        makers_autoregressive.masked_autoregressive(1, bijectors.AffineTransformer()),
        (1,),
        constant=("*.kernel_0",),
    ),
    Entry(bijectors.BernsteinPolynomial, "vector", makers_monotone.bernstein(3), (3,), slow=True),
    Entry(
        bijectors.BernsteinPolynomial,
        "context",
        makers_monotone.bernstein(2),
        (2,),
        (2,),
        heavy=True,
    ),
    Entry(
        bijectors.MonotoneNetwork, "vector", makers_monotone.monotone_network(3), (3,), slow=True
    ),
    Entry(
        bijectors.MonotoneNetwork,
        "context",
        makers_monotone.monotone_network(2),
        (2,),
        (2,),
        heavy=True,
    ),
    Entry(
        bijectors.BlockAutoregressive,
        "vector",
        makers_monotone.block_autoregressive(3),
        (3,),
        slow=True,
    ),
    Entry(
        bijectors.BlockAutoregressive,
        "context",
        makers_monotone.block_autoregressive(2),
        (2,),
        (2,),
        heavy=True,
    ),
    Entry(
        bijectors.MaskedAutoregressive,
        "monotone",
        makers_autoregressive.masked_autoregressive(2, bijectors.MonotoneTransformer(3)),
        (2,),
        slow=True,
    ),
    Entry(
        bijectors.TransformedCoupling,
        "bernstein",
        makers.transformed_coupling(3, 1, bijectors.BernsteinTransformer(4)),
        (3,),
        slow=True,
    ),
    Entry(bijectors.Permute, "vector", lambda key: bijectors.Permute((2, 0, 3, 1)), (4,)),
    Entry(bijectors.Permute, "image", lambda key: bijectors.Permute((2, 0, 1), 3), (2, 2, 3)),
    Entry(bijectors.Reverse, "vector", lambda key: bijectors.Reverse(), (5,)),
    Entry(bijectors.Reverse, "image", lambda key: bijectors.Reverse(3), (2, 2, 3)),
    Entry(bijectors.Reshape, "image", lambda key: bijectors.Reshape((12,), (2, 2, 3)), (12,)),
    Entry(bijectors.Chain, "vector", makers.chain, (4,)),
    Entry(bijectors.Chain, "context", makers.chain, (4,), (2,)),
    Entry(
        bijectors.Chain,
        "image",
        lambda key: bijectors.Chain([makers.actnorm(3, 8)(key), bijectors.Squeeze()]),
        (2, 4, 2),
    ),
    Entry(bijectors.Inverse, "vector", makers.inverse(makers.affine_coupling(4, 2)), (4,)),
    Entry(bijectors.Inverse, "flat-to-image", makers.inverse(makers.factor_out), (12,)),
    Entry(bijectors.FactorOut, "image", makers.factor_out, (2, 2, 3)),
    Entry(bijectors.Scan, "plain", makers.scan(), (4,), slow=True),
    Entry(bijectors.Scan, "context", makers.scan(), (4,), (2,)),
    Entry(bijectors.Scan, "remat", makers.scan(backward="remat"), (4,), slow=True),
    Entry(bijectors.Scan, "unrolled", makers.scan(unroll=True), (4,), slow=True),
    Entry(
        bijectors.Scan,
        "reversible",
        makers.scan(backward="reversible", segment=2),
        (4,),
        slow=True,
    ),
    Entry(bijectors.Scan, "reversible-context", makers.scan(backward="reversible"), (4,), (2,)),
    Entry(bijectors.NumericalInverse, "vector", makers.numerical_inverse, (3,)),
    Entry(bijectors.NumericalInverse, "context", makers.numerical_inverse, (3,), (2,)),
    Entry(bijectors.Planar, "vector", vector_makers.planar(4), (4,), slow=True),
    Entry(bijectors.Planar, "one-entry", vector_makers.planar(1), (1,)),
    Entry(bijectors.Planar, "context", vector_makers.planar(3), (3,), (2,)),
    Entry(bijectors.Planar, "leaky", vector_makers.planar(3, 0.1), (3,)),
    Entry(bijectors.Radial, "vector", vector_makers.radial(4), (4,), slow=True),
    Entry(bijectors.Radial, "one-entry", vector_makers.radial(1), (1,)),
    Entry(bijectors.Radial, "context", vector_makers.radial(3), (3,), (2,)),
    Entry(bijectors.Residual, "vector", makers_residual.residual(3), (3,), heavy=True),
    Entry(bijectors.Residual, "context", makers_residual.residual(2), (2,), (2,), slow=True),
    Entry(bijectors.Residual, "one-entry", makers_residual.residual(1), (1,), slow=True),
    Entry(bijectors.Exp, "vector", lambda key: bijectors.Exp(), (4,)),
    Entry(bijectors.Softplus, "image", lambda key: bijectors.Softplus(3), (2, 2, 1)),
    Entry(bijectors.Logit, "interval", lambda key: bijectors.Logit(-6, 6), (4,)),
    Entry(
        bijectors.LULinear,
        "pivoted",
        makers_linear.lu_linear(3, pivoted=True),
        (3,),
    ),
    Entry(
        bijectors.LULinear,
        "plain",
        makers_linear.lu_linear(3, pivoted=False),
        (3,),
    ),
    Entry(bijectors.QRLinear, "vector", makers_linear.qr_linear(4, 3), (4,)),
    Entry(
        bijectors.Sylvester,
        "columns",
        makers_linear.sylvester(3, 2, orthonormal_columns),
        (3,),
        slow=True,
    ),
    Entry(
        bijectors.Sylvester,
        "context",
        makers_linear.sylvester(3, 3, makers_linear.householder),
        (3,),
        (2,),
        heavy=True,
    ),
    Entry(bijectors.Sylvester, "one-entry", makers_linear.sylvester(1, 1, None), (1,)),
    Entry(bijectors.Householder, "vector", makers_linear.reflections(3, 2), (3,)),
    Entry(bijectors.Householder, "context", makers_linear.reflections(2, 1), (2,), (2,)),
    Entry(
        bijectors.MixtureGaussianization,
        "vector",
        makers_monotone.mixture_gaussianization(3),
        (3,),
        slow=True,
    ),
    Entry(
        bijectors.MixtureGaussianization,
        "context",
        makers_monotone.mixture_gaussianization(2),
        (2,),
        (2,),
        heavy=True,
    ),
    Entry(bijectors.Continuous, "context", makers_continuous.continuous(2), (2,), (2,), slow=True),
    # The square of a sign is 1: for one entry the estimate is exact.
    Entry(
        bijectors.Continuous, "probes", makers_continuous.continuous(1, probes=2), (1,), heavy=True
    ),
    Entry(bijectors.Continuous, "vector", makers_continuous.continuous(3), (3,), slow=True),
)
"""Bijectors, at parameters that are random throughout."""


def _flow(module, variant, context_shape=None, **fields) -> Entry:
    make = makers.flow(module, context_shape=context_shape)
    return Entry(type(module), variant, make, module.noise_shape, context_shape, module, **fields)


def _step(flow, variant, context_shape=None, **fields) -> Entry:
    # Slow, as the flow that is made of such steps has an entry too.
    make = makers.flow_step(StepOf(flow), context_shape=context_shape)
    variant = f"step-{variant}"
    return Entry(type(flow), variant, make, flow.event_shape, context_shape, slow=True, **fields)


def _basis(basis, channels, context_shape=None, **fields) -> Entry:
    module = flows.SylvesterFlow((channels,), num_steps=2, basis=basis)
    make = makers.flow(module, context_shape=context_shape)
    return Entry(type(basis), "sylvester", make, (channels,), context_shape, module, **fields)


def _stack(variant, *, slow=False, **options) -> Entry:
    module = flows.StackedFlow(StepOf(_real_nvp(3)), num_steps=3, **options)
    return Entry(flows.StackedFlow, variant, makers.flow(module), (3,), slow=slow)


def _glow(**options) -> flows.Glow:
    return flows.Glow(
        **(
            {"event_shape": (4, 4, 1), "num_levels": 2, "num_steps": 2, "hidden_features": 4}
            | options
        )
    )


def _real_nvp(*event_shape, **options) -> flows.RealNVP:
    return flows.RealNVP(
        event_shape, **({"num_steps": 2, "hidden_features": 4, "num_blocks": 1} | options)
    )


def _neural_spline(channels, **options) -> flows.NeuralSplineFlow:
    return flows.NeuralSplineFlow(
        (channels,), **({"num_steps": 2, "num_bins": 3, "hidden_sizes": (4,)} | options)
    )


def _autoregressive(kind, channels, **options):
    return kind((channels,), **({"num_steps": 2, "hidden_sizes": (4,)} | options))


FLOWS: Sequence[Entry] = (
    _flow(_glow(), "image"),
    _flow(_glow(context_ndims=3, backward="reversible"), "feature-maps", (4, 4, 1), slow=True),
    _flow(_glow(num_levels=1, plu=True), "plu-context", (2,), slow=True),
    _flow(_glow(num_levels=1, scan=False), "unrolled", slow=True),
    _flow(_glow(num_levels=1, backward="remat"), "remat", slow=True),
    _flow(_real_nvp(3), "vector", slow=True),
    _flow(_real_nvp(1), "one-entry", slow=True),
    _flow(_real_nvp(3, backward="reversible"), "vector-context", (2,)),
    _flow(_real_nvp(2, 2, 3, num_levels=1), "image-context", (2,), slow=True),
    _flow(_real_nvp(2, 2, 1, num_levels=1, num_steps=1), "image"),
    _flow(flows.BoundedFlow(_real_nvp(3), -8, 8), "vector"),
    _flow(flows.StandardizedFlow(_real_nvp(3)), "vector"),
    _flow(
        flows.TransformedFlow(
            _real_nvp(3),
            bijectors.ElementwiseAffine,
            {"shift": (0.0, 0.5, 1.0), "log_scale": (0.2, 0.0, -0.2)},
        ),
        "vector",
    ),
    _flow(flows.StandardizedFlow(_real_nvp(3), learned=False), "fixed-vector", slow=True),
    _flow(_neural_spline(3), "vector", slow=True),
    _flow(
        _neural_spline(2, backward="reversible"),
        "vector-context",
        (2,),
        slow=True,
    ),
    _flow(
        _neural_spline(3, autoregressive=True),
        "autoregressive",
        (2,),
        slow=True,
    ),
    _flow(_autoregressive(flows.MaskedAutoregressiveFlow, 3), "vector", slow=True),
    _flow(
        _autoregressive(flows.MaskedAutoregressiveFlow, 2, backward="reversible"), "context", (2,)
    ),
    _flow(_autoregressive(flows.InverseAutoregressiveFlow, 3), "context", (2,)),
    _step(
        flows.MaskedAutoregressiveFlow(
            (3,), transformer=bijectors.SplineTransformer(num_bins=3), hidden_sizes=(4,)
        ),
        "spline",
    ),
    _step(_neural_spline(3), "vector", (2,)),
    _flow(
        flows.BlockAutoregressiveFlow((2,), num_steps=2, hidden_sizes=(3,)),
        "flow-context",
        (2,),
        slow=True,
    ),
    _step(flows.BlockAutoregressiveFlow((3,), hidden_sizes=(3,)), "vector"),
    _flow(flows.NICE((3,), num_steps=2, hidden_sizes=(4,)), "vector-context", (2,)),
    _step(flows.NICE((1,), hidden_sizes=(4,)), "one-entry"),
    _flow(flows.ResidualFlow((2,), num_steps=2, hidden_sizes=(4, 4)), "flow", slow=True),
    _flow(
        flows.ResidualFlow((1,), num_steps=2, hidden_sizes=(4, 4), backward="reversible"),
        "one-entry-context",
        (2,),
        slow=True,
    ),
    _step(flows.ResidualFlow((2,), hidden_sizes=(4,)), "vector"),
    _flow(flows.PlanarFlow((3,), num_steps=2), "flow", slow=True),
    _flow(flows.PlanarFlow((2,), num_steps=2, negative_slope=0.1), "flow-leaky-context", (2,)),
    _step(flows.PlanarFlow((2,)), "context", (2,)),
    _flow(flows.RadialFlow((3,), num_steps=2), "flow"),
    _step(flows.RadialFlow((2,)), "context", (2,)),
    _flow(flows.SylvesterFlow((3,), num_steps=2), "flow"),
    _step(flows.SylvesterFlow((2,), basis=flows.OrthogonalBasis(2)), "context", (2,)),
    _basis(flows.OrthogonalBasis(2), 3, (2,), slow=True),
    _basis(flows.HouseholderBasis(2), 2, slow=True),
    _basis(flows.IdentityBasis(), 2, (2,), slow=True),
    _flow(flows.GaussianizationFlow((2,), num_steps=2, num_components=3), "flow", slow=True),
    _step(flows.GaussianizationFlow((2,), num_components=3, num_reflections=1), "context", (2,)),
    _flow(flows.ContinuousFlow((2,), hidden_sizes=(4,)), "flow", slow=True),
    _flow(
        flows.ContinuousFlow((2,), num_steps=2, hidden_sizes=(4,)), "flow-context", (2,), slow=True
    ),
    _stack("plain", slow=True),
    _stack("reversible", backward="reversible"),
    _step(_glow(event_shape=(2, 2, 3)), "image"),
    _step(_glow(event_shape=(2, 2, 4), plu=True), "plu-context", (2,)),
    _step(_real_nvp(3), "vector-context", (2,)),
    _step(_real_nvp(2, 2, 3), "image"),
)
"""Flows, with noise on every parameter so that layers which start at zero do something."""

ENTRIES: Sequence[Entry] = (*BIJECTORS, *FLOWS)
"""Everything under test."""
