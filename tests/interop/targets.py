"""Densities with known posteriors, and maps of which tests know everything."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf

FUNNEL_DEVIATION = 3.0
CURVATURE, SPREAD = 0.5, 2.0


def funnel(x):
    """Log-density of Neal's funnel: v ~ N(0, 9), and the others N(0, exp(v)) given v."""
    v, rest = x[0], x[1:]
    log_v = -0.5 * (v / FUNNEL_DEVIATION) ** 2
    return log_v - 0.5 * jnp.sum(rest**2) * jnp.exp(-v) - 0.5 * len(rest) * v


def banana(x):
    """Log-density of a banana: x_1 ~ N(0, s^2), and x_2 ~ N(b (x_1^2 - s^2), 1) given x_1."""
    center = CURVATURE * (x[0] ** 2 - SPREAD**2)
    return -0.5 * (x[0] / SPREAD) ** 2 - 0.5 * (x[1] - center) ** 2


BANANA_DEVIATIONS = np.asarray([SPREAD, np.sqrt(1 + 2 * CURVATURE**2 * SPREAD**4)])
"""Means are zero."""


class Linear(vf.bijectors.Bijector):
    """y = L x + m, and how often each direction was passed."""

    static_fields = ("passes",)

    def __init__(self, mean, factor, passes=None):
        super().__init__(event_ndims_in=1, is_constant_jacobian=True)
        self.mean, self.factor, self.passes = mean, factor, passes

    def _log_det(self, x):
        log_det = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(self.factor))))
        return jnp.broadcast_to(log_det, x.shape[:-1])

    def _forward(self, x):
        if self.passes is not None:
            self.passes.forward += self.passes.counts(x)
        return x @ self.factor.T + self.mean, self._log_det(x)

    def _inverse(self, y):
        if self.passes is not None:
            self.passes.inverse += self.passes.counts(y)
        rows = jnp.reshape(y - self.mean, (-1, y.shape[-1]))
        x = jax.scipy.linalg.solve_triangular(self.factor, rows.T, lower=True).T
        return jnp.reshape(x, y.shape), -self._log_det(y)


class Passes:
    """Numbers of passes through a bijector: of values, or while a function is traced."""

    def __init__(self, traced=False):
        self.traced = traced
        self.forward = self.inverse = 0

    def counts(self, x):
        return isinstance(x, jax.core.Tracer) == self.traced


class LinearFlow(nn.Module):
    """The flow of a `Linear`, which represents every Gaussian exactly."""

    event_shape: tuple[int, ...]
    passes: Passes | None = None
    num_classes: int | None = None
    context_ndims: int = 1

    @property
    def noise_shape(self):
        return self.event_shape

    @nn.compact
    def __call__(self, *, context=None, data=None):
        (size,) = self.event_shape
        mean = self.param("mean", nn.initializers.zeros, (size,))
        factor = self.param("factor", lambda _: jnp.eye(size))
        # The diagonal stays positive whatever the parameters.
        diagonal = jnp.exp(jnp.diagonal(factor) - 1)
        bijector = Linear(mean, jnp.tril(factor, -1) + jnp.diag(diagonal), self.passes)
        if context is None:
            return bijector
        return vf.bijectors.Chain(
            [vf.bijectors.ElementwiseAffine(context, jnp.zeros(size)), bijector]
        )


class BananaMap(vf.bijectors.Bijector):
    """The map from a standard normal to the banana."""

    def __init__(self):
        super().__init__(event_ndims_in=1)

    def _forward(self, x):
        first = SPREAD * x[..., 0]
        second = x[..., 1] + CURVATURE * (first**2 - SPREAD**2)
        return jnp.stack([first, second], -1), jnp.full(x.shape[:-1], np.log(SPREAD))

    def _inverse(self, y):
        second = y[..., 1] - CURVATURE * (y[..., 0] ** 2 - SPREAD**2)
        x = jnp.stack([y[..., 0] / SPREAD, second], -1)
        return x, jnp.full(y.shape[:-1], -np.log(SPREAD))


class BananaFlow(nn.Module):
    """The flow of a `BananaMap`, without parameters."""

    event_shape: tuple[int, ...] = (2,)
    noise_shape: tuple[int, ...] = (2,)
    num_classes: int | None = None
    context_ndims: int = 1

    @nn.compact
    def __call__(self, *, context=None, data=None):
        return BananaMap()
