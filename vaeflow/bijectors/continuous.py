"""Continuous bijectors: the flow of an ordinary differential equation dx/dt = f(t, x).

The log-determinant is the integral of the trace of df/dx, exact or by Hutchinson's estimator.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vaeflow._util.arrays import check_event_shape
from vaeflow.bijectors.base import Bijector, Conditioner
from vaeflow.bijectors.ode import Accuracy, diffrax, solve_rows

PyTree = Any


class Continuous(Bijector):
    """Continuous map: vectors move along a velocity field from time 0 to time 1.

    y = x(1) where dx/dt = f(t, x(t), context) and x(0) = x; log|det dy/dx| is the integral over
    time of the trace of df/dx along the path. The inverse goes from time 1 back to time 0. Both
    directions cost the same. Each example is solved, with its log-determinant, to the tolerances
    `rtol` and `atol` with step sizes of its own; one that isn't done within `max_steps`, or that
    isn't finite, is NaN and doesn't affect the others. The directions invert each other to these
    tolerances. A batch takes as many steps as its slowest example.

    The trace is exact by default, from one backward pass of the network for each dimension. With a
    `probe_key` it is estimated from `probes` backward passes: the mean of e . (df/dx) e over random
    signs e, sampled for each example from the key and its index in the batch, and constant along
    the path. Log-determinants are then unbiased, and those of the two directions differ only in
    sign. `forward` and `inverse`, which return no log-determinant, compute no trace.

    Derivatives are those of the steps taken, in reverse mode and of first order only. It needs
    diffrax, from the extra ``continuous``.

    Shapes: ``[*batch, dimension]`` both ways.

    Source: Chen, Rubanova, Bettencourt & Duvenaud 2018, "Neural ordinary differential equations",
    section 4; for the estimate, Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud 2019, "FFJORD:
    Free-form continuous dynamics for scalable reversible generative models", section 3.
    """

    static_fields = ("probes", "accuracy")

    def __init__(
        self,
        conditioner: Conditioner,
        probe_key: Key[Array, ""] | None = None,
        probes: int = 1,
        *,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        max_steps: int = 256,
    ):
        """Builds the map.

        Args:
          conditioner: Its module is a `vaeflow.typing.VelocityNetwork`.
          probe_key: A typed key to estimate the trace with; None for the exact trace.
          probes: Number of vectors of signs for each example, where there is a key.
          rtol: Error allowed in a step, relative to the absolute value of a dimension.
          atol: Absolute error allowed in a step, in addition.
          max_steps: Largest number of attempted steps. Gradients store as many states.

        Raises:
          ValueError: If diffrax isn't installed, or a number isn't positive.
        """
        super().__init__(event_ndims_in=1)
        diffrax(self.name)
        if probes < 1:
            raise ValueError(f"probes must be at least 1, got {probes}")
        self.conditioner = conditioner
        self.probe_key = probe_key
        self.probes = probes
        self.accuracy = Accuracy(rtol, atol, max_steps)

    def forward(self, x: Float[Array, "*batch dimension"]) -> Float[Array, "*batch dimension"]:
        """Computes y = f(x) without the cost of the log-determinant."""
        self._check_forward_input_shape(x)
        return self._solved(x, inverse=False, traced=False)[0]

    def inverse(self, y: Float[Array, "*batch dimension"]) -> Float[Array, "*batch dimension"]:
        """Computes x = f^-1(y) without the cost of the log-determinant."""
        self._check_inverse_input_shape(y)
        return self._solved(y, inverse=True, traced=False)[0]

    def _forward(self, x):
        return self._solved(x, inverse=False)

    def _inverse(self, y):
        return self._solved(y, inverse=True)

    def _solved(self, x: Array, inverse: bool, traced: bool = True) -> tuple[Array, Array]:
        network = self.conditioner
        check_event_shape(self.name, x.shape, (network.module.dimension,))
        leaves = [leaf.dtype for leaf in jax.tree.leaves(network)]
        wide = [dtype for dtype in leaves if jnp.issubdtype(dtype, jnp.floating)]
        x = x.astype(jnp.result_type(x.dtype, jnp.float32, *wide))
        context = network.rows_of_context(x)
        rows = x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))
        field = _Velocity(network.module, inverse, traced)
        signs = self._signs(rows) if traced else None
        state = jnp.pad(rows, ((0, 0), (0, 1))) if traced else rows
        state = solve_rows(field, self.accuracy, network.variables, (context, signs), state)
        y = state[:, : x.shape[-1]].reshape(x.shape)
        return y, state[:, -1].reshape(x.shape[:-1])

    def _signs(self, rows: Array) -> Array | None:
        """Random signs, ``[row, probe, dimension]``: integers, which need no gradient."""
        if self.probe_key is None:
            return None
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.probe_key, jnp.arange(rows.shape[0]))
        shape = (self.probes, rows.shape[1])
        return jax.vmap(lambda key: jax.random.rademacher(key, shape, jnp.int8))(keys)


@dataclasses.dataclass(frozen=True)
class _Velocity:
    """The field of a vector, with or without its log-determinant, for `solve_rows`.

    Attributes:
      module: A `vaeflow.typing.VelocityNetwork`.
      inverse: Whether time runs backwards.
      traced: Whether the log-determinant is the last dimension of the state.
    """

    module: Any
    inverse: bool
    traced: bool

    def __call__(
        self,
        variables: PyTree,
        rows: tuple[Array | None, Array | None],
        time: Float[Array, " row"],
        state: Float[Array, "row size"],
    ) -> Float[Array, "row size"]:
        """Computes the velocity, and the trace of its Jacobian."""
        context, signs = rows
        time = 1 - time if self.inverse else time

        def velocity(x):
            slope = self.module.apply(variables, x, time, context).astype(x.dtype)
            return -slope if self.inverse else slope

        if not self.traced:
            return velocity(state)
        x = state[:, :-1]
        slope, pull_back = jax.vjp(velocity, x)
        if signs is None:
            directions = jnp.eye(x.shape[1], dtype=x.dtype)[:, None, :]
            weight = 1.0
        else:
            directions = jnp.swapaxes(signs, 0, 1).astype(x.dtype)
            weight = 1 / signs.shape[1]
        (pulled_back,) = jax.vmap(pull_back)(
            jnp.broadcast_to(directions, (len(directions), *x.shape))
        )
        trace = weight * jnp.sum(pulled_back * directions, axis=(0, 2))
        return jnp.concatenate([slope, trace[:, None]], axis=1)
