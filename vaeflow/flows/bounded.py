"""Flows onto an interval."""

from __future__ import annotations

from jaxtyping import Array, Float

from vaeflow.bijectors import Bijector, Chain, Sigmoid
from vaeflow.flows.wrapped import Wrapped


class BoundedFlow(Wrapped):
    """Ends a flow with a sigmoid, so that every entry of the data lies in an interval.

    Where data pile up at an end of their range, such as the black background of digits, the logit
    spreads them out and the flow inside has no narrow peak to fit.

    Shapes: those of the flow inside.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, section 4.1 (logit of a margin plus the pixel).

    Attributes:
      flow: A module of this package, from noise to unbounded data.
      lower: Lower end of the interval.
      upper: Upper end of the interval.
    """

    lower: float
    upper: float

    def __call__(
        self, context: Array | None = None, *, data: Float[Array, "batch *event"] | None = None
    ) -> Bijector:
        """Builds the bijector, forward from noise to data; arguments as the flow inside."""
        bound = Sigmoid(self.lower, self.upper, event_ndims=len(self.event_shape))
        if data is not None:
            data = bound.inverse(data)
        return Chain([bound, self.flow(context, data=data)])
