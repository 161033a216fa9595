"""Couplings that bend one part of an event by splines given the other."""

from __future__ import annotations

import jax.numpy as jnp

from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.coupling import Network, _conditioned, _split
from vaeflow.bijectors.spline import RationalQuadraticSpline


class SplineCoupling(Bijector):
    """Bends the last channels by rational-quadratic splines given the first.

    With x = [a, b] split along the last axis, y = [a, f(b)], where f is a
    `RationalQuadraticSpline` with linear tails whose parameters are ``conditioner(a)``.
    log|det dy/dx| is that of f. Both directions cost one pass of the conditioner.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, (channel - split) (3 bins - 1)]``:
    for each channel in turn the widths, the heights and the slopes.

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows", section 3.2.
    """

    static_fields = ("split", "bins", "bound")

    def __init__(
        self,
        conditioner: Network,
        split: int,
        bins: int = 8,
        bound: float = 4.0,
        event_ndims: int = 1,
    ):
        """Builds the coupling.

        Args:
          conditioner: A `Conditioner`, or another pytree that can be called.
          split: Number of channels that the conditioner reads; 0 makes it a map without condition.
          bins: Number of bins of each spline.
          bound: Upper end of the interval of the splines, and minus its lower end.
          event_ndims: Number of trailing axes that make an event.

        Raises:
          ValueError: If `bins` is below 1.
        """
        super().__init__(event_ndims_in=event_ndims)
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self.conditioner = conditioner
        self.split = split
        self.bins = bins
        self.bound = float(bound)

    def _bent(self, x, inverse):
        condition, bent = _split(self, x)
        parameters = _conditioned(self, condition, bent, 3 * self.bins - 1)
        parameters = parameters.reshape((*bent.shape, 3 * self.bins - 1))
        widths, heights, slopes = jnp.split(parameters, [self.bins, 2 * self.bins], axis=-1)
        spline = RationalQuadraticSpline(widths, heights, slopes, self.bound, self.event_ndims_in)
        bend = spline.inverse_and_log_det if inverse else spline.forward_and_log_det
        bent, log_det = bend(bent)
        return jnp.concatenate([condition.astype(bent.dtype), bent], axis=-1), log_det

    def _forward(self, x):
        return self._bent(x, inverse=False)

    def _inverse(self, y):
        return self._bent(y, inverse=True)
