"""What flows of vectors share."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from vaeflow.bijectors import Bijector, Inverse
from vaeflow.flows.context import initial_data, prepare_context
from vaeflow.flows.probes import probe_batch
from vaeflow.flows.stack import FlowStep, StackedFlow

PyTree = Any


class VectorFlow(nn.Module):
    """K equal steps over vectors, with or without a context.

    A subclass adds the fields of its step and says in `step` what a step is, and in `to_noise`
    which way it runs: whether its forward takes data towards noise, or noise towards data. That is
    the direction in which the subclass is cheap, where only one is.

    Shapes: noise and data are ``[*batch, channel]``.

    Attributes:
      event_shape: Shape of the data: (channel,).
      steps: Number of steps K.
      classes: Number of classes where the context is an integer label, otherwise None.
      scan: Whether to compile the steps as one loop; otherwise one by one.
      remat: Whether to backpropagate by computing hidden layers again, as `Scan` does.
      reversible: Whether to backpropagate by inverting the steps.
    """

    event_shape: tuple[int]
    steps: int = 4
    classes: int | None = None
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
        context = prepare_context(context, self.classes)
        draws = self.draws(probe_batch(data, context))
        batch = None if context is None else context.shape[:-1]
        data = initial_data(self, data, self.event_shape, batch)
        if data is not None and not self.to_noise:
            data = initial_data(self, None, self.event_shape, data.shape[:-1])
        stack = StackedFlow(
            self.step(), self.steps, self.scan, self.remat, self.reversible, name="steps"
        )(context, data=data, draws=draws)
        return Inverse(stack) if self.to_noise else stack
