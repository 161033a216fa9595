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
import jax
import jax.numpy as jnp
from jaxtyping import Array

import vaeflow as vf
from vaeflow.testing import Case

bijectors, flows = vf.bijectors, vf.flows


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public class at one event shape.

    Attributes:
      public: The class that the entry is about.
      variant: What sets it apart from other entries of the class.
      make: As for `vaeflow.testing.Case`.
      event_shape: Shape of one event that enters forward.
      context_shape: Shape of one context, or None.
      constant: Names of leaves that may have no gradient.
    """

    public: type
    variant: str
    make: Callable[..., distrax.Bijector]
    event_shape: tuple[int, ...]
    context_shape: tuple[int, ...] | None = None
    constant: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the entry, for the ids of tests."""
        return f"{self.public.__name__}-{self.variant}"

    @functools.cached_property
    def case(self) -> Case:
        """The case of all tests of this entry, which share what it compiles."""
        return Case(
            self.make, self.event_shape, context_shape=self.context_shape, constant=self.constant
        )


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


# Parts that entries are made of.


def normal(key: Array, *shape: int, scale: float = 0.5) -> Array:
    """Normal numbers, small enough that exponentials stay tame."""
    return scale * jax.random.normal(key, shape)


@dataclasses.dataclass(frozen=True)
class Network:
    """A small smooth network for couplings; hashable, as a `Conditioner` wants it."""

    outputs: int
    hidden: int = 5

    def init(self, key: Array, inputs: int, context: int = 0) -> dict[str, Array]:
        """Random variables for so many inputs and so many entries of context."""
        keys = jax.random.split(key, 3)
        return {
            "first": normal(keys[0], inputs + context + 1, self.hidden),
            "second": normal(keys[1], self.hidden, self.outputs),
            "bias": normal(keys[2], self.outputs),
        }

    def apply(self, variables: dict[str, Array], x: Array, context: Array | None) -> Array:
        """Maps ``[batch, *positions, inputs]`` to ``[batch, *positions, outputs]``."""
        parts = [x, jnp.ones((*x.shape[:-1], 1), x.dtype)]
        if context is not None:
            context = context.reshape(context.shape[:1] + (1,) * (x.ndim - 2) + context.shape[1:])
            parts.append(jnp.broadcast_to(context, x.shape[:-1] + context.shape[-1:]))
        hidden = jnp.tanh(jnp.concatenate(parts, axis=-1) @ variables["first"])
        return hidden @ variables["second"] + variables["bias"]


def conditioner(
    key: Array, inputs: int, outputs: int, context: Array | None = None, event_ndims: int = 1
) -> bijectors.Conditioner:
    """A `Network` with random variables."""
    network = Network(outputs)
    variables = network.init(key, inputs, 0 if context is None else context.shape[-1])
    return bijectors.Conditioner(network, variables, context, event_ndims)


def affine(event_ndims: int, *shape: int) -> Callable[[Array], bijectors.ElementwiseAffine]:
    """Makes elementwise affine maps whose parameters have this shape."""

    def make(key: Array) -> bijectors.ElementwiseAffine:
        shift, log_scale = jax.random.split(key)
        return bijectors.ElementwiseAffine(
            normal(shift, *shape), normal(log_scale, *shape), event_ndims
        )

    return make


def amortised_affine(key: Array, context: Array) -> bijectors.ElementwiseAffine:
    """An affine map whose parameters depend on the example."""
    keys = jax.random.split(key)
    weights = [normal(key, context.shape[-1], 4) for key in keys]
    return bijectors.ElementwiseAffine(context @ weights[0], context @ weights[1])


def actnorm(event_ndims: int, channels: int) -> Callable[[Array], bijectors.ActNorm]:
    """Makes actnorms."""

    def make(key: Array) -> bijectors.ActNorm:
        shift, log_scale = jax.random.split(key)
        return bijectors.ActNorm(normal(shift, channels), normal(log_scale, channels), event_ndims)

    return make


def convolution(event_ndims: int, channels: int) -> Callable[[Array], distrax.Bijector]:
    """Makes 1x1 convolutions with a determinant of either sign."""

    def make(key: Array) -> bijectors.Invertible1x1Convolution:
        weight = jax.random.orthogonal(key, channels) + normal(key, channels, channels, scale=0.2)
        return bijectors.Invertible1x1Convolution(weight, event_ndims)

    return make


def plu_convolution(event_ndims: int, channels: int) -> Callable[[Array], distrax.Bijector]:
    """Makes 1x1 convolutions in factors."""

    def make(key: Array) -> bijectors.Invertible1x1ConvolutionPLU:
        weight = convolution(event_ndims, channels)(key).weight
        return bijectors.Invertible1x1ConvolutionPLU(
            **bijectors.plu_factors(weight), event_ndims=event_ndims
        )

    return make


def affine_coupling(
    channels: int, split: int, event_ndims: int = 1, log_scale: Callable | None = None
) -> Callable[..., bijectors.AffineCoupling]:
    """Makes affine couplings, with a context if they are given one."""

    def make(key: Array, context: Array | None = None) -> bijectors.AffineCoupling:
        network = conditioner(key, split, 2 * (channels - split), context, event_ndims)
        static = {} if log_scale is None else {"log_scale": log_scale}
        return bijectors.AffineCoupling(network, split, event_ndims, **static)

    return make


def additive_coupling(
    channels: int, split: int, event_ndims: int = 1
) -> Callable[..., bijectors.AdditiveCoupling]:
    """Makes additive couplings, with a context if they are given one."""

    def make(key: Array, context: Array | None = None) -> bijectors.AdditiveCoupling:
        network = conditioner(key, split, channels - split, context, event_ndims)
        return bijectors.AdditiveCoupling(network, split, event_ndims)

    return make


def chain(key: Array, context: Array | None = None) -> bijectors.Chain:
    """Couplings and other parts in a chain within a chain."""
    keys = jax.random.split(key, 3)
    inner = bijectors.Chain([bijectors.Reverse(), affine_coupling(4, 2)(keys[0], context)])
    return bijectors.Chain([affine(1, 4)(keys[1]), inner, additive_coupling(4, 1)(keys[2])])


def factor_out(key: Array) -> bijectors.FactorOut:
    """One channel goes through an affine map, two leave."""
    return bijectors.FactorOut(
        bijectors.Chain([affine(1, 4)(key), bijectors.Reshape((2, 2, 1), (4,))]), (2, 2, 3), 1
    )


@dataclasses.dataclass(frozen=True)
class CouplingStep:
    """One step of a stack: a coupling between affine maps."""

    channels: int = 4

    def init(self, key: Array, context: int = 0) -> dict[str, Any]:
        """Random variables."""
        keys = jax.random.split(key, 3)
        split = self.channels // 2
        return {
            "affine": (normal(keys[0], self.channels), normal(keys[1], self.channels)),
            "coupling": self.network.init(keys[2], split, context),
        }

    @property
    def network(self) -> Network:
        """The coupling's network."""
        return Network(2 * (self.channels - self.channels // 2))

    def __call__(self, variables: dict[str, Any], context: Array | None) -> bijectors.Chain:
        """The bijector of one step."""
        network = bijectors.Conditioner(self.network, variables["coupling"], context)
        return bijectors.Chain(
            [
                bijectors.Reverse(),
                bijectors.AffineCoupling(network, self.channels // 2),
                bijectors.ElementwiseAffine(*variables["affine"]),
            ]
        )


def scan(depth: int = 3, **options: Any) -> Callable[..., bijectors.Scan]:
    """Makes stacks of coupling steps."""

    def make(key: Array, context: Array | None = None) -> bijectors.Scan:
        step = CouplingStep()
        size = 0 if context is None else context.shape[-1]
        init = jax.vmap(lambda key: step.init(key, size))
        return bijectors.Scan(step, init(jax.random.split(key, depth)), context, **options)

    return make


class Bend(bijectors.Bijector):
    """y = a x + b tanh(x) entry by entry, with a, b > 0: smooth, increasing, no closed inverse."""

    def __init__(self, log_slope: Array, log_bend: Array):
        super().__init__(1)
        self.log_slope = log_slope
        self.log_bend = log_bend

    def _forward(self, x: Array) -> tuple[Array, Array]:
        bijectors.base.check_event_shape(self.name, x.shape, self.log_slope.shape[-1:])
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        slope, bend = jnp.exp(self.log_slope), jnp.exp(self.log_bend)
        flat = jnp.tanh(x)
        log_slopes = jnp.log(slope + bend * (1 - flat**2))
        return slope * x + bend * flat, jnp.sum(log_slopes, axis=-1)

    def _inverse(self, y: Array) -> tuple[Array, Array]:
        raise NotImplementedError("Bend has no inverse in closed form")


def numerical_inverse(key: Array, context: Array | None = None) -> bijectors.NumericalInverse:
    """A bend with the inverse that it lacks."""
    keys = jax.random.split(key)
    shape = (3,) if context is None else (context.shape[-1], 3)
    parameters = [normal(key, *shape) for key in keys]
    if context is not None:
        parameters = [context @ weight for weight in parameters]
    return bijectors.NumericalInverse(Bend(*parameters))


def inverse(make: Callable[..., distrax.Bijector]) -> Callable[..., bijectors.Inverse]:
    """Makes the inverses of what `make` makes."""
    return lambda *arguments: bijectors.Inverse(make(*arguments))


BIJECTORS: Sequence[Entry] = (
    Entry(bijectors.ElementwiseAffine, "scalar", affine(0), ()),
    Entry(bijectors.ElementwiseAffine, "vector", affine(1, 4), (4,)),
    Entry(bijectors.ElementwiseAffine, "image", affine(3, 2, 2, 3), (2, 2, 3)),
    Entry(bijectors.ElementwiseAffine, "channels", affine(3, 3), (2, 2, 3)),
    Entry(bijectors.ElementwiseAffine, "context", amortised_affine, (4,), (2,)),
    Entry(bijectors.ActNorm, "vector", actnorm(1, 4), (4,)),
    Entry(bijectors.ActNorm, "image", actnorm(3, 3), (2, 4, 3)),
    Entry(bijectors.Invertible1x1Convolution, "vector", convolution(1, 4), (4,)),
    Entry(bijectors.Invertible1x1Convolution, "image", convolution(3, 3), (2, 4, 3)),
    Entry(
        bijectors.Invertible1x1ConvolutionPLU,
        "image",
        plu_convolution(3, 3),
        (2, 4, 3),
        constant=("permutation", "sign"),
    ),
    Entry(bijectors.AffineCoupling, "vector", affine_coupling(5, 2), (5,)),
    Entry(bijectors.AffineCoupling, "one-entry", affine_coupling(1, 0), (1,)),
    Entry(
        bijectors.AffineCoupling,
        "image",
        affine_coupling(3, 1, 3, bijectors.sigmoid_log_scale),
        (2, 2, 3),
    ),
    Entry(bijectors.AffineCoupling, "context", affine_coupling(4, 2), (4,), (2,)),
    Entry(bijectors.AdditiveCoupling, "vector", additive_coupling(4, 2), (4,)),
    Entry(bijectors.AdditiveCoupling, "context", additive_coupling(3, 1, 3), (2, 2, 3), (2,)),
    Entry(bijectors.Squeeze, "rows", lambda key: bijectors.Squeeze(), (2, 4, 2)),
    Entry(bijectors.Squeeze, "thirds", lambda key: bijectors.Squeeze(3), (6, 3, 1)),
    Entry(
        bijectors.Squeeze,
        "checkerboard",
        lambda key: bijectors.Squeeze(checkerboard=True),
        (4, 2, 2),
    ),
    Entry(bijectors.Permute, "vector", lambda key: bijectors.Permute((2, 0, 3, 1)), (4,)),
    Entry(bijectors.Permute, "image", lambda key: bijectors.Permute((2, 0, 1), 3), (2, 2, 3)),
    Entry(bijectors.Reverse, "vector", lambda key: bijectors.Reverse(), (5,)),
    Entry(bijectors.Reverse, "image", lambda key: bijectors.Reverse(3), (2, 2, 3)),
    Entry(bijectors.Reshape, "image", lambda key: bijectors.Reshape((12,), (2, 2, 3)), (12,)),
    Entry(bijectors.Chain, "vector", chain, (4,)),
    Entry(bijectors.Chain, "context", chain, (4,), (2,)),
    Entry(
        bijectors.Chain,
        "image",
        lambda key: bijectors.Chain([actnorm(3, 8)(key), bijectors.Squeeze()]),
        (2, 4, 2),
    ),
    Entry(bijectors.Inverse, "vector", inverse(affine_coupling(4, 2)), (4,)),
    Entry(bijectors.Inverse, "flat-to-image", inverse(factor_out), (12,)),
    Entry(bijectors.FactorOut, "image", factor_out, (2, 2, 3)),
    Entry(bijectors.Scan, "plain", scan(), (4,)),
    Entry(bijectors.Scan, "context", scan(), (4,), (2,)),
    Entry(bijectors.Scan, "remat", scan(remat=True), (4,)),
    Entry(bijectors.Scan, "unrolled", scan(unroll=True), (4,)),
    Entry(bijectors.Scan, "reversible", scan(reversible=True, segment=2), (4,)),
    Entry(bijectors.Scan, "reversible-context", scan(reversible=True), (4,), (2,)),
    Entry(bijectors.NumericalInverse, "vector", numerical_inverse, (3,)),
    Entry(bijectors.NumericalInverse, "context", numerical_inverse, (3,), (2,)),
)
"""Bijectors, at parameters that are random throughout."""
