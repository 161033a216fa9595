"""Base classes of flows, and how context, data and probe noise reach them."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors import Bijector, Inverse, Scan

ROWS_OF_NOISE = 64
"""Number of examples drawn to initialise a flow that is given no data."""


def prepare_context(context: Array | None, classes: int | None) -> Array | None:
    """Turns class labels into one-hot vectors and leaves other contexts as they are.

    Args:
      context: None, integer labels ``[*batch]``, or an array of floats.
      classes: Number of classes where the context is a label, otherwise None.

    Raises:
      ValueError: If there are classes but the context isn't made of integers, or the reverse.
    """
    if context is None:
        if classes is not None:
            raise ValueError(f"context: labels of {classes} classes are needed, got None")
        return None
    context = jnp.asarray(context)
    integer = jnp.issubdtype(context.dtype, jnp.integer)
    if integer != (classes is not None):
        raise ValueError(
            "context must hold integer labels where classes is given and floats where it isn't; "
            f"got dtype {context.dtype} and num_classes={classes}"
        )
    return jax.nn.one_hot(context, classes) if integer else context


def initial_data(
    module: nn.Module,
    data: Array | None,
    event_shape: tuple[int, ...],
    batch: tuple[int, ...] | None,
) -> Array | None:
    """Chooses what `init` sends through a flow: the data given, or else standard normal noise.

    Args:
      module: The flow.
      data: The first batch, ``[batch, *event]``, or None.
      event_shape: Shape of an event.
      batch: Batch axes of the context, or None where there is no context.

    Returns:
      Float32 data of shape ``[*batch, *event]``, or None outside `init`.

    Raises:
      ValueError: If the data's events have another shape, or the context another batch axis.
    """
    if not module.is_initializing():
        return None
    if batch is not None and (len(batch) != 1 or (data is not None and batch[0] != len(data))):
        rows = "one" if data is None else f"{len(data)} rows on one"
        raise ValueError(f"context must have {rows} batch axis in init, got batch axes {batch}")
    if data is None:
        shape = ((ROWS_OF_NOISE,) if batch is None else batch) + tuple(event_shape)
        return jax.random.normal(module.make_rng("params"), shape)
    if data.ndim != len(event_shape) + 1 or data.shape[1:] != tuple(event_shape):
        raise ValueError(
            f"data must have shape (batch, {', '.join(map(str, event_shape))}), got {data.shape}"
        )
    return data.astype(jnp.float32)


def probe_key(module: nn.Module) -> Array | None:
    """Gives the key of a flow's probe noise, or None where its log-determinants are to be exact.

    They are estimated where the flow's field `probes` isn't zero and `apply` is given an rng named
    "probe", as losses give it in training; otherwise they are exact, as in evaluation.

    Args:
      module: A flow with an integer field `probes`, in a call.

    Raises:
      ValueError: If `probes` is negative.
    """
    if module.probes < 0:
        raise ValueError(f"{type(module).__name__}: probes must be at least 0, got {module.probes}")
    if module.is_initializing() or not module.probes or not module.has_rng("probe"):
        return None
    return module.make_rng("probe")


def probe_batch(data: Array | None, context: Array | None, event_ndims: int = 1) -> tuple[int, ...]:
    """Gives the batch axes of probe noise: those of the data, or else of the context.

    With neither there are none, and all examples share their noise.

    Args:
      data: ``[*batch, *event]``, of which only the shape matters, or None.
      context: Vectors ``[*batch, feature]``, or None.
      event_ndims: Number of trailing axes that make an event of the data.
    """
    if data is not None:
        return data.shape[: data.ndim - event_ndims]
    return () if context is None else context.shape[:-1]


def random_signs(key: Array, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Draws +1 and -1 alike, the probes whose estimates of traces vary least.

    Source: Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix for
    Laplacian smoothing splines".
    """
    return jax.random.rademacher(key, shape, jnp.float32)


PyTree = Any


class FlowStep(Protocol):
    """One step of a `StackedFlow`: a frozen dataclass, compared by value.

    Attributes:
      event_ndims: Number of trailing axes that make an event.
      collections: Names of the Flax collections of its variables, "params" first.
    """

    event_ndims: int
    collections: tuple[str, ...]

    def init(self, key: Array, data: Array, context: Array | None) -> PyTree:
        """Creates the variables of one step, ``{"params": ..., ...}``, from its input."""

    def __call__(self, variables: PyTree, context: Array | None) -> distrax.Bijector:
        """Builds the bijector of one step."""


class StackedFlow(nn.Module):
    """Owns the parameters of K equal steps and applies them as one `vaeflow.bijectors.Scan`.

    `init` passes the data through one step after another, so each step is initialised on what it
    will receive. Data enter the first step; the caller says in which direction that is.

    Attributes:
      step: The step, equal in all but its parameters.
      num_steps: Number of steps K.
      scan: Whether to compile the steps as one loop; otherwise one by one.
      remat: Whether to backpropagate by computing hidden layers again, as `Scan` does.
      reversible: Whether to backpropagate by inverting the steps.
    """

    step: FlowStep
    num_steps: int
    scan: bool = True
    remat: bool = False
    reversible: bool = False

    @nn.compact
    def __call__(
        self,
        context: Float[Array, "*batch_and_context"] | None = None,
        *,
        data: Float[Array, "batch *event"] | None = None,
        draws: PyTree | None = None,
    ) -> Scan:
        """Builds the bijector.

        Args:
          context: What all steps are conditioned on, or None.
          data: Input of the first step; needed by `init`, otherwise ignored.
          draws: Random numbers that a step finds beside its variables, as "draws"; each leaf has
            one entry a step along its first axis.

        Raises:
          ValueError: If `init` isn't given data.
        """
        if self.is_initializing():
            if data is None:
                raise ValueError("Stack: data must be given to init, got None")
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
        if draws is not None:
            variables["draws"] = draws
        if self.reversible and self.remat:
            raise ValueError("reversible and remat exclude each other: reversible stores less")
        return Scan(
            self.step,
            variables,
            context,
            event_ndims=self.step.event_ndims,
            backward="reversible" if self.reversible else "remat" if self.remat else "plain",
            unroll=not self.scan,
        )

    def _initial(self, data: Array, context: Array | None) -> PyTree:
        def one_step(data, key):
            variables = self.step.init(key, data, context)
            return self.step(variables, context).forward(data), variables

        return jax.lax.scan(
            one_step, data, jax.random.split(self.make_rng("params"), self.num_steps)
        )[1]


class VectorFlow(nn.Module):
    """K equal steps over vectors, with or without a context.

    A subclass adds the fields of its step and says in `step` what a step is, and in `to_noise`
    which way it runs: whether its forward takes data towards noise, or noise towards data. That is
    the direction in which the subclass is cheap, where only one is.

    Shapes: noise and data are ``[*batch, channel]``.

    Attributes:
      event_shape: Shape of the data: (channel,).
      num_steps: Number of steps K.
      num_classes: Number of classes where the context is an integer label, otherwise None.
      scan: Whether to compile the steps as one loop; otherwise one by one.
      remat: Whether to backpropagate by computing hidden layers again, as `Scan` does.
      reversible: Whether to backpropagate by inverting the steps.
    """

    event_shape: tuple[int]
    num_steps: int = 4
    num_classes: int | None = None
    scan: bool = True
    remat: bool = False
    reversible: bool = False

    to_noise: ClassVar[bool]
    least_channels: ClassVar[int] = 1
    context_ndims: ClassVar[int] = 1

    def step(self) -> FlowStep:
        """The step, equal in all but its variables; called in the subclass's own fields."""
        raise NotImplementedError

    def draws(self, batch: tuple[int, ...]) -> PyTree | None:
        """Random numbers that the steps need, one entry a step along the first axis, or None.

        Args:
          batch: Batch axes of the data, or else of the context, if there is either.
        """
        del batch

    @property
    def noise_shape(self) -> tuple[int]:
        """Shape of the noise: that of the data."""
        return tuple(self.event_shape)

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        data: Float[Array, "batch channel"] | None = None,
    ) -> Bijector:
        """Builds the bijector, forward from noise to data.

        Args:
          context: Labels ``[*batch]`` or vectors ``[*batch, feature]``, or None.
          data: In `init`, the batch on which the steps are initialised where they run from data to
            noise; otherwise only its batch axes matter, to `draws`. Without it `init` uses standard
            normal noise.

        Raises:
          ValueError: If the event isn't a vector of enough entries, or the data or the context
            doesn't fit.
        """
        if len(self.event_shape) != 1 or self.event_shape[0] < self.least_channels:
            raise ValueError(
                f"{type(self).__name__}: event_shape must be (channel,) with at least "
                f"{self.least_channels} channels, got {self.event_shape}"
            )
        context = prepare_context(context, self.num_classes)
        draws = self.draws(probe_batch(data, context))
        batch = None if context is None else context.shape[:-1]
        data = initial_data(self, data, self.event_shape, batch)
        if data is not None and not self.to_noise:
            data = initial_data(self, None, self.event_shape, data.shape[:-1])
        stack = StackedFlow(
            self.step(),
            num_steps=self.num_steps,
            scan=self.scan,
            remat=self.remat,
            reversible=self.reversible,
            name="steps",
        )(context, data=data, draws=draws)
        return Inverse(stack) if self.to_noise else stack
