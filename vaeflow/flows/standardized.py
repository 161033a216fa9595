"""Flows of data whose entries have places of their own."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from vaeflow.bijectors import Bijector, Chain, ElementwiseAffine, actnorm_parameters
from vaeflow.flows.wrapped import Wrapped
from vaeflow.nn import from_first_batch


class Standardized(Wrapped):
    """Ends a flow with a scale and a shift of every entry, taken from the first batch.

    x = y exp(log_scale) + shift, entry by entry, with y from the flow inside; `shift` and
    `log_scale` start at the mean and the log standard deviation of each entry over the batch given
    to `init`, and are learned from there. Convolutions treat all places alike; in aligned images,
    such as faces, each pixel has a brightness of its own, which this tells the flow.

    Shapes: those of the flow inside.

    Attributes:
      flow: A module of this package.
    """

    @nn.compact
    def __call__(
        self, context: Array | None = None, *, data: Float[Array, "batch *event"] | None = None
    ) -> Bijector:
        """Builds the bijector, forward from noise to data; arguments as the flow inside."""
        if self.is_initializing() and data is None:
            shift = self.param("shift", nn.initializers.zeros, self.event_shape)
            log_scale = self.param("log_scale", nn.initializers.zeros, self.event_shape)
        else:
            shift = from_first_batch(self, "shift", lambda: self._statistics(data)[0])
            log_scale = from_first_batch(self, "log_scale", lambda: self._statistics(data)[1])
        affine = ElementwiseAffine(shift, log_scale, event_ndims=len(self.event_shape))
        if data is not None:
            data = affine.inverse(data)
        return Chain([affine, self.flow(context, data=data)])

    def _statistics(self, data: Array) -> tuple[Array, Array]:
        shift, log_scale = actnorm_parameters(data.reshape(len(data), -1))
        return (-shift).reshape(self.event_shape), (-log_scale).reshape(self.event_shape)
