"""How the entries of the registry make their bijectors: random parameters throughout."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vaeflow import bijectors
from vaeflow.bijectors.linear import plu_factors
from vaeflow.flows.base import StepOf


def numbers(key: Array, *shape: int, scale: float = 0.5) -> Array:
    """Uniform numbers of mean 0 and this deviation, by a hash: a draw of JAX's is much to compile.

    Small enough that exponentials stay tame.
    """
    first, second = jax.random.key_data(key)
    bits = jnp.arange(1, math.prod(shape) + 1, dtype=jnp.uint32).reshape(shape) * np.uint32(
        0x9E3779B9
    )
    bits = bits + first
    for constant in (0x85EBCA6B, 0xC2B2AE35):
        bits = (bits ^ (bits >> 15)) * np.uint32(constant) + second
    return (
        scale * math.sqrt(3) * ((bits ^ (bits >> 16)).astype(jnp.result_type(float)) / 2.0**31 - 1)
    )


@dataclasses.dataclass(frozen=True)
class Network:
    """A small smooth network for couplings; hashable, as a `Conditioner` wants it."""

    outputs: int
    hidden: int = 5

    def init(self, key: Array, inputs: int, context: int = 0) -> dict[str, Array]:
        """Random variables for so many inputs and so many entries of context."""
        keys = jax.random.split(key, 3)
        return {
            "first": numbers(keys[0], inputs + context + 1, self.hidden),
            "second": numbers(keys[1], self.hidden, self.outputs),
            "bias": numbers(keys[2], self.outputs),
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
            numbers(shift, *shape), numbers(log_scale, *shape), event_ndims
        )

    return make


def amortised_affine(key: Array, context: Array) -> bijectors.ElementwiseAffine:
    """An affine map whose parameters depend on the example."""
    keys = jax.random.split(key)
    weights = [numbers(key, context.shape[-1], 4) for key in keys]
    return bijectors.ElementwiseAffine(context @ weights[0], context @ weights[1])


def actnorm(event_ndims: int, channels: int) -> Callable[[Array], bijectors.ActNorm]:
    """Makes actnorms."""

    def make(key: Array) -> bijectors.ActNorm:
        shift, log_scale = jax.random.split(key)
        return bijectors.ActNorm(
            numbers(shift, channels), numbers(log_scale, channels), event_ndims
        )

    return make


def convolution(event_ndims: int, channels: int) -> Callable[[Array], distrax.Bijector]:
    """Makes 1x1 convolutions with a determinant of either sign."""

    def make(key: Array) -> bijectors.Invertible1x1Convolution:
        weight = jax.random.orthogonal(key, channels) + numbers(key, channels, channels, scale=0.2)
        return bijectors.Invertible1x1Convolution(weight, event_ndims)

    return make


def plu_convolution(event_ndims: int, channels: int) -> Callable[[Array], distrax.Bijector]:
    """Makes 1x1 convolutions in factors."""

    def make(key: Array) -> bijectors.Invertible1x1ConvolutionPLU:
        weight = convolution(event_ndims, channels)(key).weight
        return bijectors.Invertible1x1ConvolutionPLU(**plu_factors(weight), event_ndims=event_ndims)

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


def spline(
    event_ndims: int, *shape: int, bins: int = 4, circular: bool = False
) -> Callable[[Array], bijectors.RationalQuadraticSpline]:
    """Makes splines whose parameters have this shape, and an axis of bins."""

    def make(key: Array) -> bijectors.RationalQuadraticSpline:
        keys = jax.random.split(key, 3)
        sizes = (bins, bins, bins if circular else bins - 1)
        parameters = [
            numbers(part, *shape, size, scale=1.0) for part, size in zip(keys, sizes, strict=True)
        ]
        return bijectors.RationalQuadraticSpline(*parameters, 3.0, event_ndims, circular)

    return make


def amortised_spline(key: Array, context: Array) -> bijectors.RationalQuadraticSpline:
    """A spline whose parameters depend on the example."""
    keys = jax.random.split(key, 3)
    parameters = [
        jnp.tensordot(context, numbers(part, context.shape[-1], 4, size), 1)
        for part, size in zip(keys, (3, 3, 2), strict=True)
    ]
    return bijectors.RationalQuadraticSpline(*parameters)


def transformed_coupling(
    channels: int, split: int, transformer: bijectors.Transformer
) -> Callable[..., bijectors.TransformedCoupling]:
    """Makes couplings by maps of a family, with a context if they are given one."""

    def make(key: Array, context: Array | None = None) -> bijectors.TransformedCoupling:
        network = conditioner(key, split, transformer.num_parameters * (channels - split), context)
        return bijectors.TransformedCoupling(network, split, transformer)

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
            "affine": (numbers(keys[0], self.channels), numbers(keys[1], self.channels)),
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
    parameters = [numbers(key, *shape) for key in keys]
    if context is not None:
        parameters = [context @ weight for weight in parameters]
    return bijectors.NumericalInverse(Bend(*parameters))


def inverse(make: Callable[..., distrax.Bijector]) -> Callable[..., bijectors.Inverse]:
    """Makes the inverses of what `make` makes."""
    return lambda *arguments: bijectors.Inverse(make(*arguments))


ROWS = 8
"""Number of examples that flows are initialised on."""

NOISE = 0.1
"""Deviation of the noise that is added to a flow's parameters, relative to the root mean square of
each where that isn't zero."""


def flow(
    module: nn.Module, *, noise: float = NOISE, context_shape: tuple[int, ...] | None = None
) -> Callable[..., distrax.Bijector]:
    """Makes bijectors of a flow: initialised on random data, with noise on every parameter."""
    shape = module.event_shape if hasattr(module, "event_shape") else module.step.flow.event_shape

    def init(key: Array, data: Array, context: Array | None) -> Any:
        return module.init(key, context=context, data=data)

    def apply(variables: Any, context: Array | None) -> distrax.Bijector:
        return module.apply(variables, context=context)

    return _initialised(init, apply, shape, noise, context_shape)


def flow_step(
    step: StepOf,
    *,
    noise: float = NOISE,
    context_shape: tuple[int, ...] | None = None,
) -> Callable[..., distrax.Bijector]:
    """Makes bijectors of one step of a flow, likewise."""
    return _initialised(step.init, step, step.flow.event_shape, noise, context_shape)


def _initialised(
    init: Callable[[Array, Array, Array | None], Any],
    apply: Callable[[Any, Array | None], distrax.Bijector],
    data_shape: tuple[int, ...],
    noise: float,
    context_shape: tuple[int, ...] | None,
) -> Callable[..., distrax.Bijector]:
    @functools.cache
    def variables() -> Any:
        @jax.jit
        def initialised() -> Any:
            keys = jax.random.split(jax.random.key(7), 3)
            data = jax.random.normal(keys[0], (ROWS, *data_shape))
            contexts = None
            if context_shape is not None:
                contexts = jax.random.normal(keys[1], (ROWS, *context_shape))
            return init(keys[2], data, contexts)

        # Compiled ahead of the call, so that what is kept holds no tracers where `make` has them.
        return initialised.lower().compile()()

    @jax.jit
    def bijector(variables: Any, key: Array, context: Array | None) -> distrax.Bijector:
        leaves, structure = jax.tree.flatten(variables["params"])
        # Drawn at once: each draw is much to compile.
        ends = np.cumsum([leaf.size for leaf in leaves])
        parts = jnp.split(numbers(key, ends[-1], scale=noise), ends[:-1])
        noisy = [
            leaf + part.reshape(leaf.shape) * _size(leaf)
            for part, leaf in zip(parts, leaves, strict=True)
        ]
        return apply(variables | {"params": jax.tree.unflatten(structure, noisy)}, context)

    def make(key: Array, context: Array | None = None) -> distrax.Bijector:
        return bijector(variables(), key, context)

    return make


def _size(leaf: Array) -> Array:
    size = jnp.sqrt(jnp.mean(leaf**2))
    return jnp.where(size > 0, size, 1.0)
