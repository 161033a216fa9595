"""Maps of each entry given those before it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import Bijector, check_event_shape, sum_event
from vaeflow.bijectors.conditioner import Conditioner
from vaeflow.bijectors.transformers import Transformer

PyTree = Any


class AutoregressiveNetwork(Protocol):
    """A hashable network whose outputs for an entry depend on the entries before it alone.

    `vaeflow.nn.MaskedMLP` is one. Every method takes the variables and a context, which is
    ``[batch, feature]`` or None.

    Attributes:
      entries: Number of entries of a vector.
      parameters: Number of outputs for each entry.
    """

    entries: int
    parameters: int

    def apply(self, variables: PyTree, x: Array, context: Array | None) -> Array:
        """Maps ``[batch, entries]`` to ``[batch, entries, parameters]``."""

    def solve(
        self,
        variables: PyTree,
        context: Array | None,
        entry: Callable[[Array, PyTree], tuple[Array, PyTree]],
        inputs: PyTree,
        rows: int,
    ) -> PyTree:
        """Finds x with x_i = entry(outputs for entry i given x, inputs_i), and returns results."""

    def solve_transposed(
        self,
        variables: PyTree,
        context: Array | None,
        x: Array,
        entry: Callable[[Array, PyTree], tuple[Array, PyTree]],
        inputs: PyTree,
    ) -> PyTree:
        """Finds c with c_i = entry(what c pulls back to x_i, inputs_i), and returns results."""


class MaskedAutoregressive(Bijector):
    """Maps each entry by a member of a family, given the entries before it.

    y_i = f(x_i; theta_i), where theta_i, the output of a masked network, depends on x_1 to x_i-1
    alone. log|det dy/dx| = sum of log df/dx_i.

    Forward is the cheap direction: one pass of the network. Inverse finds one entry after another,
    in as many steps as there are entries, but each step computes only those units of the network
    whose inputs have just become known, so that all steps together do the work of one pass. Its
    gradient is found likewise, from the last entry to the first, and by one backward pass. It has
    no forward-mode derivatives.

    Shapes: ``[*batch, entry]`` both ways.

    Source: Papamakarios, Pavlakou & Murray 2017, "Masked Autoregressive Flow for Density
    Estimation"; with forward from noise to data, Kingma, Salimans, Jozefowicz, Chen, Sutskever &
    Welling 2016, "Improving Variational Inference with Inverse Autoregressive Flow".
    """

    static_fields = ("transformer",)

    def __init__(self, conditioner: Conditioner, transformer: Transformer):
        """Builds the map.

        Args:
          conditioner: Its module is an `AutoregressiveNetwork`, such as `vaeflow.nn.MaskedMLP`.
          transformer: The family, such as `AffineTransformer`.

        Raises:
          ValueError: If the network's number of outputs for an entry isn't that of the family's
            parameters.
        """
        super().__init__(event_ndims_in=1)
        if conditioner.module.parameters != transformer.parameters:
            raise ValueError(
                f"conditioner must give {transformer.parameters} parameters for each entry, as "
                f"many as {transformer} has, got {conditioner.module.parameters}"
            )
        self.conditioner = conditioner
        self.transformer = transformer

    def _forward(self, x):
        x = self._prepared(x)
        raw = self.conditioner(x)
        return self.transformer(_widened(raw)).forward_and_log_det(x)

    def _inverse(self, y):
        y = self._prepared(y)
        network = self.conditioner
        context = network.rows_of_context(y)
        rows = y.reshape((math.prod(y.shape[:-1]), y.shape[-1]))
        x, log_slopes = _invert(network.module, self.transformer, network.variables, context, rows)
        return x.reshape(y.shape), sum_event(log_slopes.reshape(y.shape), 1)

    def _prepared(self, x):
        check_event_shape(self.name, x.shape, (self.conditioner.module.entries,))
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _widened(raw: Array) -> Array:
    return raw.astype(jnp.promote_types(raw.dtype, jnp.float32))


def _entrywise(transformer: Transformer, raw: Array, y: Array) -> tuple[Array, Array]:
    """Inverts each number by itself: the preimages, and log-determinants, of the shape of y."""
    return transformer(_widened(raw), event_ndims=0).inverse_and_log_det(y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _invert(
    module: AutoregressiveNetwork,
    transformer: Transformer,
    variables: PyTree,
    context: Float[Array, "row feature"] | None,
    y: Float[Array, "row entry"],
) -> tuple[Array, Array]:
    """Computes x and the log-determinant of each entry, both ``[row, entry]``."""

    def entry(raw, y):
        x, log_slope = _entrywise(transformer, raw, y)
        return x, (x, log_slope)

    x, log_slopes = module.solve(variables, context, entry, y.T, y.shape[0])
    return x.T, log_slopes.T


def _invert_forward(module, transformer, variables, context, y):
    x, log_slopes = _invert(module, transformer, variables, context, y)
    return (x, log_slopes), (variables, context, x, y)


def _invert_backward(module, transformer, residuals, cotangents):
    variables, context, x, y = residuals
    dx, dlog_slopes = cotangents
    raw, pull_back_network = jax.vjp(
        lambda variables, context: module.apply(variables, x, context), variables, context
    )
    _, pull_back = jax.vjp(functools.partial(_entrywise, transformer), raw, y)
    one, zero = jnp.ones_like(y), jnp.zeros_like(y)
    # Each preimage and log-slope depends on its own parameters and its own image alone.
    x_by_raw, x_by_y = pull_back((one, zero))
    direct_raw, direct_y = pull_back((zero, dlog_slopes))

    def entry(later, given):
        """From what later entries pull back to x_i, what it pulls back to its parameters."""
        dx, x_by_raw, direct_raw = given
        dx = dx + later
        draw = dx[:, None] * x_by_raw + direct_raw
        return draw, (dx, draw)

    inputs = tuple(jnp.swapaxes(values, 0, 1) for values in (dx, x_by_raw, direct_raw))
    results = module.solve_transposed(variables, context, x, entry, inputs)
    dx, draw = (jnp.swapaxes(values, 0, 1) for values in results)
    return *pull_back_network(draw.astype(raw.dtype)), dx * x_by_y + direct_y


_invert.defvjp(_invert_forward, _invert_backward)
