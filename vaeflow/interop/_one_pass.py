"""Values and log-determinants of a bijector, where another library asks for them one by one."""

from __future__ import annotations

import distrax
from jaxtyping import Array


class OnePass:
    """A bijector that computes the value and the log-determinant at once, and keeps the second.

    NumPyro and TFP ask for y = f(x), then for log|det df/dx| at that x and y. Each would be a pass
    through the flow of its own, and the second perhaps in the slow direction. The log-determinant
    of the last value is kept until it is asked for. It is found by the identity of the arrays, so
    that the result is the same as without, but for rounding.
    """

    def __init__(self, bijector: distrax.Bijector):
        """Wraps a bijector.

        Args:
          bijector: The bijector, forward from noise to data.
        """
        self.bijector = bijector
        self._kept: tuple[Array, Array, Array] | None = None

    def forward(self, x: Array) -> Array:
        """Computes y = f(x)."""
        y, log_det = self.bijector.forward_and_log_det(x)
        self._kept = x, y, log_det
        return y

    def inverse(self, y: Array) -> Array:
        """Computes x = f^-1(y)."""
        x, log_det = self.bijector.inverse_and_log_det(y)
        self._kept = x, y, -log_det
        return x

    def log_det(self, x: Array | None, y: Array | None) -> Array:
        """Computes log|det df/dx| at x, or at the preimage of y where x is None."""
        kept, self._kept = self._kept, None
        if kept is not None and (kept[0] is x or kept[1] is y):
            return kept[2]
        if x is None:
            return -self.bijector.inverse_log_det_jacobian(y)
        return self.bijector.forward_log_det_jacobian(x)
