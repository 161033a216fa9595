"""Base classes of flows, and stacks of equal steps.

`Flow` owns the prelude of every flow: it prepares the context and the data of `init`. `SteppedFlow`
adds steps that are compiled as one loop, `VectorFlow` is K such steps over vectors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import name_in_tables
from vaeflow._util.checks import (
    as_array,
    bound,
    check_context,
    check_finite,
    check_sizes,
    one_hot_labels,
)
from vaeflow.bijectors import Bijector, Chain, ElementwiseAffine, Inverse, Scan
from vaeflow.typing import FlowStep

PyTree = Any

name_in_tables(distrax.Bijector)

Backward = Literal["plain", "remat", "reversible"]
"""How a stack of steps backpropagates; see `StackedFlow`."""

NOISE_BATCH_SIZE = 64
"""Number of noise samples that initialise a flow which is given no data."""


def initial_data(
    module: nn.Module,
    data: Array | None,
    event_shape: tuple[int, ...],
    batch_shape: tuple[int, ...] | None,
) -> Array | None:
    """Returns the batch that `init` sends through a flow: the data, or else standard normal noise.

    Args:
      module: The flow.
      data: The first batch, ``[batch, *event]``, or None.
      event_shape: Shape of an event.
      batch_shape: Batch axes of the context, or None where there is no context.

    Returns:
      Float32 data of shape ``[batch, *event]``, or None outside `init`.

    Raises:
      ValueError: If the data's events have another shape, a value of theirs is known and isn't
        finite, or the context has another batch axis.
    """
    if not module.is_initializing():
        return None
    data = None if data is None else as_array("data", data)
    if batch_shape is not None and (
        len(batch_shape) != 1 or (data is not None and batch_shape[0] != len(data))
    ):
        rows = "one" if data is None else f"{len(data)} rows on one"
        raise ValueError(
            f"context must have {rows} batch axis in init, got batch axes {batch_shape}"
        )
    if data is None:
        shape = (*(batch_shape or (NOISE_BATCH_SIZE,)), *event_shape)
        return jax.random.normal(module.make_rng("params"), shape, jnp.float32)
    if data.ndim != len(event_shape) + 1 or data.shape[1:] != tuple(event_shape):
        raise ValueError(
            f"data must have shape (batch, {', '.join(map(str, event_shape))}), got {data.shape}"
        )
    if not len(data):
        raise ValueError(f"data must have a row or more in init, got shape {data.shape}")
    check_finite("data", data)
    return data.astype(jnp.float32)


class Flow(nn.Module):
    """A module that owns parameters and returns a bijector, forward from noise to data.

    A subclass implements `build`, and `check_fields` where its fields can be wrong. All fields but
    the shape of an event are keyword-only.

    Attributes:
      event_shape: Shape of the data.
      num_classes: Number of classes where the context is an integer label, otherwise None.
    """

    event_shape: tuple[int, ...]
    _: dataclasses.KW_ONLY
    num_classes: int | None = None

    context_ndims: ClassVar[int] = 1
    """Number of trailing axes that make a context: 1 for vectors, 3 for feature maps."""

    @property
    def noise_shape(self) -> tuple[int]:
        """Shape of the noise: a vector with as many dimensions as the data."""
        return (math.prod(self.event_shape),)

    def check_fields(self) -> None:
        """Validates the fields.

        Raises:
          ValueError: If one of them is out of range.
        """

    def context_features(self, params: PyTree, given: int) -> int | None:
        """Number of features of the context that parameters were made for, 0 for none.

        None where it isn't known, so that any context will do; the number `given` where that is one
        of several that would fit.
        """
        del params, given
        return None

    @bound
    def __call__(
        self, *, context: Array | None = None, data: Float[Array, "batch *event"] | None = None
    ) -> Bijector:
        """Builds the bijector, forward from noise to data.

        Args:
          context: Labels ``[*batch]`` where there are classes; otherwise floats
            ``[*batch, *context]`` with as many trailing axes as `context_ndims`, or None.
          data: In `init`, the batch from which data-dependent parameters are initialised; without
            it `init` uses standard normal noise. Otherwise ignored, except for its batch axes,
            which are those of the probes in flows with `num_probes`.

        A label of no class makes the values and the log-determinants of its row NaN.

        Raises:
          ValueError: If a field is out of range; the data don't fit; or the context is absent,
            present, or of a shape or type unlike that of `init`, or holds a label that is known and
            of no class.
        """
        self.check_fields()
        check_sizes(self)
        return self.bijector(context, data)

    @nn.compact
    def bijector(self, context: Array | None, data: Array | None) -> Bijector:
        """Builds the bijector; arguments as in a call."""
        inside = None
        if self.num_classes is not None:
            context, inside = one_hot_labels(context, self.num_classes)
        features = None
        if not self.is_initializing():
            features = self.context_features(self.variables["params"], _width(context))
        positions = () if self.context_ndims == 1 else tuple(self.event_shape[:2])
        context = check_context(context, features=features, positions=positions)
        context_batch = None
        if context is not None:
            context_batch = context.shape[: context.ndim - self.context_ndims]
        batch_shape = context_batch or ()
        if data is not None:
            batch_shape = jnp.shape(data)[: jnp.ndim(data) - len(self.event_shape)]
        data = initial_data(self, data, self.event_shape, context_batch)
        bijector = self.build(context, data, batch_shape)
        if inside is None:
            return bijector
        # Networks, and loops above all, needn't be sound for NaN.
        zeros = jnp.zeros(self.noise_shape, jnp.float32)
        marks = jnp.where(inside.reshape(inside.shape + (1,) * zeros.ndim), zeros, jnp.nan)
        return Chain([bijector, ElementwiseAffine(marks, marks, event_ndims=zeros.ndim)])

    def build(
        self, context: Array | None, data: Array | None, batch_shape: tuple[int, ...]
    ) -> Bijector:
        """Builds the bijector inside the compact call.

        Args:
          context: Floats, with labels as one-hot vectors, or None.
          data: ``[batch, *event]`` in `init`, otherwise None.
          batch_shape: Batch axes of the data given, or else of the context.
        """
        raise NotImplementedError


class StackedFlow(nn.Module):
    """K equal steps with parameters of their own, applied as one `vaeflow.bijectors.Scan`.

    `init` passes the data through one step after another, so that each step is initialised on its
    actual input. Data enter the first step; the caller decides in which direction that is.

    Attributes:
      step: The step, equal in all but its parameters.
      num_steps: Number of steps K.
      scan: Whether to compile the steps as one loop; otherwise one by one.
      backward: How to backpropagate: "plain" stores all activations; "remat" recomputes hidden
        layers; "reversible" recomputes them from inverted steps, which stores the least.
    """

    step: FlowStep
    _: dataclasses.KW_ONLY
    num_steps: int
    scan: bool = True
    backward: Backward = "plain"

    @nn.compact
    def __call__(
        self,
        *,
        context: Float[Array, "*batch_and_context"] | None = None,
        data: Float[Array, "batch *event"] | None = None,
        draws: PyTree | None = None,
    ) -> Scan:
        """Builds the bijector.

        Args:
          context: Context of all steps, or None.
          data: Input of the first step; needed by `init`, otherwise ignored.
          draws: Random numbers that a step receives among its variables, as "draws"; the first
            axis of each leaf is the step.

        Raises:
          ValueError: If `init` isn't given data, `backward` has another value, or the context is
            unlike that of `init`, where the step has `context_features`.
        """
        if self.backward not in get_args(Backward):
            raise ValueError(f"backward must be one of {get_args(Backward)}, got {self.backward!r}")
        if self.is_initializing():
            if data is None:
                raise ValueError("StackedFlow: data must be given to init, got None")
            initial = self._initial(data, context)
            variables = {"params": self.param("steps", lambda _: initial.pop("params"))}
            for collection, tree in initial.items():
                variables[collection] = self.variable(
                    collection, "steps", lambda tree=tree: tree
                ).value
        else:
            variables = {
                collection: self.get_variable(collection, "steps")
                for collection in self.step.collections
            }
            # A flow has checked the context of its stacks.
            if hasattr(self.step, "context_features") and not isinstance(self.parent, Flow):
                one = _of_one(variables["params"])
                features = self.step.context_features(one, _width(context))
                check_context(context, features=features)
        if draws is not None:
            variables["draws"] = draws
        return Scan(
            self.step,
            variables,
            context,
            event_ndims=self.step.event_ndims,
            backward=self.backward,
            unroll=not self.scan,
        )

    def _initial(self, data: Array, context: Array | None) -> PyTree:
        def one_step(data, key):
            variables = self.step.init(key, data, context)
            return self.step(variables, context).forward(data).astype(data.dtype), variables

        return jax.lax.scan(
            one_step, data, jax.random.split(self.make_rng("params"), self.num_steps)
        )[1]


@dataclasses.dataclass(frozen=True)
class StepOf:
    """The `FlowStep` that calls the methods of a `SteppedFlow`, compared by the flow's fields.

    Attributes:
      flow: The flow, unbound.
    """

    flow: SteppedFlow

    @property
    def event_ndims(self) -> int:
        """Number of trailing axes that make an event."""
        return len(self.flow.event_shape)

    @property
    def collections(self) -> tuple[str, ...]:
        """Names of the collections of a step's variables."""
        return self.flow.step_collections

    def init(self, key: Array, data: Array, context: Array | None) -> PyTree:
        """Creates the variables of one step from its input."""
        return self.flow.init_step(key, data, context)

    def context_features(self, params: PyTree, given: int) -> int | None:
        """Number of features of the context of one step, as in `Flow.context_features`."""
        return self.flow.step_context_features(params, given)

    def __call__(self, variables: PyTree, context: Array | None) -> Bijector:
        """Builds the bijector of one step."""
        return self.flow.step(variables, context)


def _width(context: Array | None) -> int:
    return jnp.shape(context)[-1] if context is not None and jnp.ndim(context) else 0


def _of_one(params: PyTree) -> PyTree:
    """Shapes of the parameters of one of the steps of a stack."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)


class SteppedFlow(Flow, kw_only=True):
    """A flow of equal steps, in one or several stacks.

    A subclass implements a step by `init_step` and `step`, with ``@nn.nowrap``: they are called on
    an unbound copy and read its fields alone.

    Attributes:
      num_steps: Number of steps K of a stack.
      scan: Whether to compile the steps of a stack as one loop; otherwise one by one.
      backward: How to backpropagate: "plain", "remat" or "reversible", as in `StackedFlow`.
    """

    num_steps: int = 4
    scan: bool = True
    backward: Backward = "plain"

    step_collections: ClassVar[tuple[str, ...]] = ("params",)
    """Names of the Flax collections of a step's variables."""

    @nn.nowrap
    def init_step(self, key: Array, data: Array, context: Array | None) -> dict[str, Any]:
        """Creates the variables of one step, ``{"params": ..., ...}``, from its input."""
        raise NotImplementedError

    @nn.nowrap
    def step(self, variables: dict[str, Any], context: Array | None) -> Bijector:
        """Builds the bijector of one step from its variables."""
        raise NotImplementedError

    @nn.nowrap
    def step_context_features(self, params: PyTree, given: int) -> int | None:
        """Number of features of the context of one step, as in `Flow.context_features`."""
        del params, given
        return None

    def context_features(self, params: PyTree, given: int) -> int | None:
        """Number of features of the context that parameters were made for, 0 for none."""
        parts = (params[name] for name in sorted(params))
        stacks = (part.get("steps") for part in parts if isinstance(part, Mapping))
        first = next((stack for stack in stacks if stack is not None), None)
        return None if first is None else self.step_context_features(_of_one(first), given)

    def stack(self, name: str) -> StackedFlow:
        """Creates the submodule of K steps."""
        return StackedFlow(
            StepOf(self.clone(parent=None, name=None)),
            num_steps=self.num_steps,
            scan=self.scan,
            backward=self.backward,
            name=name,
        )


class VectorFlow(SteppedFlow, kw_only=True):
    """K equal steps over vectors, with or without a context.

    A subclass implements a step and sets `to_noise`: whether the forward of a step takes data
    towards noise, or noise towards data. That is the direction in which the subclass is cheap,
    where only one is.

    Shapes: noise and data are ``[*batch, channel]``.

    Attributes:
      event_shape: Shape of the data: (channel,).
    """

    to_noise: ClassVar[bool]
    min_channels: ClassVar[int] = 1

    def check_fields(self) -> None:
        """Checks that the event is a vector with enough channels."""
        check_vector_shape(self, self.min_channels)

    def draws(self, batch_shape: tuple[int, ...]) -> PyTree | None:
        """Samples the random numbers of all steps, along the first axis, or returns None.

        Args:
          batch_shape: Batch axes of the data, or else of the context, if there is either.
        """
        del batch_shape

    def build(self, context, data, batch_shape) -> Bijector:
        """Builds the bijector inside the compact call; arguments as in `Flow.build`."""
        draws = self.draws(batch_shape)
        if data is not None and not self.to_noise:
            data = initial_data(self, None, self.event_shape, data.shape[:-1])
        stack = self.stack("steps")(context=context, data=data, draws=draws)
        return Inverse(stack) if self.to_noise else stack


def check_vector_shape(flow: Flow, min_channels: int = 1) -> None:
    """Checks the shape of an event of a flow over vectors.

    Raises:
      ValueError: If it isn't (channel,) with enough channels.
    """
    if len(flow.event_shape) != 1 or flow.event_shape[0] < min_channels:
        raise ValueError(
            f"{type(flow).__name__}: event_shape must be (channel,) with at least "
            f"{min_channels} channels, got {flow.event_shape}"
        )
