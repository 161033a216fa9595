"""K equal steps, with parameters of their own."""

from __future__ import annotations

from typing import Any, Protocol

import distrax
import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vaeflow.bijectors import Scan

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
      depth: Number of steps K.
      scan: Whether to compile the steps as one loop; otherwise one by one.
      remat: Whether to backpropagate by computing hidden layers again, as `Scan` does.
      reversible: Whether to backpropagate by inverting the steps.
    """

    step: FlowStep
    depth: int
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
        return Scan(
            self.step,
            variables,
            context,
            event_ndims=self.step.event_ndims,
            reversible=self.reversible,
            remat=self.remat,
            unroll=not self.scan,
        )

    def _initial(self, data: Array, context: Array | None) -> PyTree:
        def one_step(data, key):
            variables = self.step.init(key, data, context)
            return self.step(variables, context).forward(data), variables

        return jax.lax.scan(one_step, data, jax.random.split(self.make_rng("params"), self.depth))[
            1
        ]
