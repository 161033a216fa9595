"""Wrappers of a flow: a standardisation of the data, a bounded range, or a map of your own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jaxtyping import Array, Float

from vaeflow._util.checks import as_array, bound, check_finite
from vaeflow._util.messages import shown
from vaeflow.bijectors import Bijector, Chain, ElementwiseAffine, Sigmoid
from vaeflow.nn.normalization import column_statistics


class Wrapped(nn.Module):
    """A flow followed by another map, with the shapes and contexts of the flow inside.

    Attributes:
      flow: A module of this package.
    """

    flow: nn.Module

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of the data."""
        return self.flow.event_shape

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise."""
        return self.flow.noise_shape

    @property
    def context_ndims(self) -> int:
        """Number of trailing axes that make a context."""
        return self.flow.context_ndims

    @property
    def num_classes(self) -> int | None:
        """Number of classes where the context is a label."""
        return self.flow.num_classes

    @bound
    def __call__(
        self, *, context: Array | None = None, data: Float[Array, "batch *event"] | None = None
    ) -> Bijector:
        """Builds the bijector, forward from noise to data; arguments as the flow inside."""
        if data is not None:
            data = as_array("data", data)
            if self.is_initializing():
                check_finite("data", data)
        return self.bijector(context, data)

    def bijector(self, context: Array | None, data: Array | None) -> Bijector:
        """Builds the bijector; arguments as in a call."""
        raise NotImplementedError


class BoundedFlow(Wrapped):
    """Ends a flow with a sigmoid, so that every dimension of the data lies in an interval.

    Where data accumulate at an end of their range, such as the black background of digits, the
    logit spreads them out and the flow inside has no narrow peak to fit.

    Shapes: those of the flow inside.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, section 4.1 (logit of a margin plus the pixel).

    Attributes:
      flow: A module of this package, from noise to unbounded data.
      lower: Lower end of the interval.
      upper: Upper end of the interval.
    """

    lower: float
    upper: float

    def bijector(self, context, data) -> Bijector:
        """Builds the bijector; arguments as in a call."""
        interval = Sigmoid(self.lower, self.upper, event_ndims=len(self.event_shape))
        if data is not None:
            data = interval.inverse(data)
        return Chain([interval, self.flow(context=context, data=data)])


class TransformedFlow(Wrapped):
    """Ends a flow with a bijector of your own, whose parameters are learned.

    x = g(y; theta) with y from the flow inside, and log|det| the sum of both. The parameters theta
    start at the values given, and data of `init` reach the flow inside through the inverse there.

    Shapes: those of the flow inside.

    Attributes:
      flow: A module of this package.
      make_bijector: g: a class or a function that makes a `vaeflow.bijectors.Bijector` of the
        parameters, given by name, such as a subclass of `Bijector` whose constructor takes arrays.
      initial: Values at first of each parameter by name: a number, or nested sequences of numbers,
        such as ``(0.0, 0.0)`` for one of each of two dimensions. They are float32.
    """

    make_bijector: Callable[..., Bijector]
    initial: Mapping[str, Any]

    def __post_init__(self):
        # Models are arguments of compiled functions, and must be hashable.
        initial = {name: _nested(name, value) for name, value in dict(self.initial).items()}
        self.initial = FrozenDict(initial)
        super().__post_init__()

    @nn.compact
    def bijector(self, context, data) -> Bijector:
        """Builds the bijector; arguments as in a call."""
        parameters = self.param("bijector", self._initial_parameters)
        own = self.make_bijector(**parameters)
        if not isinstance(own, Bijector) or own.event_ndims_in != len(self.event_shape):
            raise ValueError(
                "make_bijector must make a Bijector of events of "
                f"{len(self.event_shape)} axes, got {type(own).__name__}"
                + (f" of {own.event_ndims_in}" if isinstance(own, Bijector) else "")
            )
        if data is not None:
            data = own.inverse(data)
        return Chain([own, self.flow(context=context, data=data)])

    def _initial_parameters(self, key: Array) -> dict[str, Array]:
        del key
        return {name: jnp.asarray(value, jnp.float32) for name, value in self.initial.items()}


def _nested(name: str, value: Any) -> Any:
    """A number, or tuples of numbers.

    Raises:
      ValueError: If the value isn't made of finite numbers.
    """
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        array = np.full((), np.nan)
    if not np.isfinite(array).all():
        raise ValueError(
            f"initial[{name!r}] must hold finite numbers, got {shown(repr(value), 80)}"
        )

    def tuples(item: Any) -> Any:
        return tuple(tuples(inner) for inner in item) if isinstance(item, list) else item

    return tuples(array.tolist())


class StandardizedFlow(Wrapped):
    """Ends a flow with a scale and a shift of every dimension, taken from the first batch.

    x = y exp(log_scale) + shift, elementwise, with y from the flow inside; `shift` and `log_scale`
    start at the mean and the log standard deviation of each dimension over the batch given to
    `init`, and are learned from there. Convolutions don't depend on the position, but in aligned
    images, such as faces, each pixel has a mean brightness of its own: this map models it.

    In a table each column has its own unit, and no learning rate suits all of them: with `learned`
    false, scale and shift are constants, in the collection "constants", and all that is learned has
    the unit of a standard deviation. Contexts have units as well: with `context`, the flow inside
    is given (context - context_shift) exp(-context_log_scale), by constants of the same batch.

    Shapes: those of the flow inside.

    Attributes:
      flow: A module of this package.
      learned: Whether scale and shift are parameters.
      context: Whether contexts, vectors of reals, are standardised too.
    """

    learned: bool = True
    context: bool = False

    @nn.compact
    def bijector(self, context, data) -> Bijector:
        """Builds the bijector; arguments as in a call."""
        shift, log_scale = self._constants("", data, self.event_shape, self.learned)
        affine = ElementwiseAffine(shift, log_scale, event_ndims=len(self.event_shape))
        if data is not None:
            data = affine.inverse(data)
        if self.context and context is not None:
            context = self._standardized(as_array("context", context))
        return Chain([affine, self.flow(context=context, data=data)])

    def _standardized(self, context: Array) -> Array:
        if not jnp.issubdtype(context.dtype, jnp.floating) or self.context_ndims != 1:
            raise ValueError(
                "context must be vectors of reals where it is standardised, got "
                f"{context.dtype} and context_ndims={self.context_ndims}"
            )
        rows = context.reshape(-1, context.shape[-1]) if self.is_initializing() else None
        shift, log_scale = self._constants("context_", rows, context.shape[-1:], learned=False)
        if context.shape[-1:] != shift.shape:
            raise ValueError(
                f"context must have shape [*batch, {shift.shape[0]}], got {context.shape}"
            )
        return ElementwiseAffine(shift, log_scale).inverse(context)

    def _constants(
        self, prefix: str, data: Array | None, shape: tuple[int, ...], learned: bool
    ) -> tuple[Array, Array]:
        """Shift and log scale, which `init` takes from the data."""
        names = (f"{prefix}shift", f"{prefix}log_scale")
        if self.is_initializing():
            initial = (jnp.zeros(shape, jnp.float32),) * 2
            if data is not None:
                statistics = column_statistics(data)
                # Parameters are float32, whatever the data are.
                initial = statistics.mean, statistics.log_scale()
            for name, value in zip(names, initial, strict=True):
                value = value.astype(jnp.float32)
                if learned:
                    self.param(name, lambda _, value=value: value)
                else:
                    self.variable("constants", name, lambda value=value: value)
        collection = "params" if learned else "constants"
        shift, log_scale = (self.get_variable(collection, name) for name in names)
        return shift, log_scale
