"""Couplings that transform one part of an event by maps of any family, given the other."""

from __future__ import annotations

import jax.numpy as jnp

from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.coupling import Network, conditioned, split_channels
from vaeflow.bijectors.transformers import Transformer


class TransformedCoupling(Bijector):
    """Maps each of the last channels by a member of a family, given the first channels.

    With x = [a, b] split along the last axis, y = [a, f(b)], where f is the elementwise bijector
    that `transformer` makes of ``conditioner(a)``. log|det dy/dx| is that of f. Both directions
    cost one pass of the conditioner and that direction of f.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, (channel - split) parameters]``: for
    each channel in turn its parameters.

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows", section 2.1.
    """

    static_fields = ("split", "transformer")

    def __init__(
        self, conditioner: Network, split: int, transformer: Transformer, event_ndims: int = 1
    ):
        """Builds the coupling.

        Args:
          conditioner: A `Conditioner`, or another pytree that can be called.
          split: Number of channels that the conditioner reads; 0 makes it a map without condition.
          transformer: The family, such as `SplineTransformer`.
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(event_ndims_in=event_ndims)
        self.conditioner = conditioner
        self.split = split
        self.transformer = transformer

    def _transformed(self, x, inverse):
        condition, transformed = split_channels(self, x)
        groups = self.transformer.parameters
        raw = conditioned(self, condition, transformed, groups)
        bijector = self.transformer(raw.reshape((*transformed.shape, groups)), self.event_ndims_in)
        apply = bijector.inverse_and_log_det if inverse else bijector.forward_and_log_det
        transformed, log_det = apply(transformed)
        condition = condition.astype(transformed.dtype)
        return jnp.concatenate([condition, transformed], axis=-1), log_det

    def _forward(self, x):
        return self._transformed(x, inverse=False)

    def _inverse(self, y):
        return self._transformed(y, inverse=True)
