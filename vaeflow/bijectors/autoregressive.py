"""Autoregressive bijectors, by masked networks or by block-triangular ones.

Dimension i of y depends on dimensions 1 to i of x: the Jacobian is triangular, forward takes one
pass of the network, and the inverse is sequential.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import check_event_shape, sum_event
from vaeflow._util.derivatives import CustomJVP
from vaeflow.bijectors.base import Bijector, Conditioner, prepare_vectors
from vaeflow.bijectors.numerical import solve_monotone
from vaeflow.typing import AutoregressiveNetwork, Transformer

PyTree = Any


class MaskedAutoregressive(Bijector):
    """Masked autoregressive map: an elementwise map of each dimension given those before it.

    y_i = f(x_i; theta_i), where theta_i, the output of a masked network, depends only on x_1 to
    x_i-1. log|det dy/dx| = sum of log df/dx_i.

    Forward is the cheap direction: one pass of the network. The inverse computes one dimension
    after another, in as many steps as there are dimensions, but each step evaluates only the units
    whose inputs have just become known, so that all steps together do the work of one pass. Its
    gradient is computed likewise, from the last dimension to the first, and by one backward pass.

    Shapes: ``[*batch, dimension]`` both ways.

    Source: Papamakarios, Pavlakou & Murray 2017, "Masked Autoregressive Flow for Density
    Estimation"; with forward from noise to data, Kingma, Salimans, Jozefowicz, Chen, Sutskever &
    Welling 2016, "Improving Variational Inference with Inverse Autoregressive Flow".
    """

    static_fields = ("transformer",)

    def __init__(self, conditioner: Conditioner, transformer: Transformer):
        """Builds the map.

        Args:
          conditioner: Its module is a `vaeflow.typing.AutoregressiveNetwork`, such as
            `vaeflow.nn.MaskedMLP`.
          transformer: The family, such as `AffineTransformer`.

        Raises:
          ValueError: If the network's number of outputs for a dimension isn't that of the family's
            parameters.
        """
        super().__init__(event_ndims_in=1)
        if conditioner.module.num_parameters != transformer.num_parameters:
            raise ValueError(
                f"conditioner must return {transformer.num_parameters} parameters for each "
                f"dimension, as many as {transformer} has, got {conditioner.module.num_parameters}"
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
        check_event_shape(self.name, x.shape, (self.conditioner.module.dimension,))
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _widened(raw: Array) -> Array:
    return raw.astype(jnp.promote_types(raw.dtype, jnp.float32))


def _invert_elementwise(transformer: Transformer, raw: Array, y: Array) -> tuple[Array, Array]:
    """Inverts each element: the preimages and log-slopes, of the shape of y."""
    return transformer(_widened(raw), event_ndims=0).inverse_and_log_det(y)


@functools.partial(CustomJVP, nondiff_argnums=(0, 1))
def _invert(
    module: AutoregressiveNetwork,
    transformer: Transformer,
    variables: PyTree,
    context: Float[Array, "row feature"] | None,
    y: Float[Array, "row dimension"],
) -> tuple[Array, Array]:
    """Computes x and the log-slope of each dimension, both ``[row, dimension]``."""

    def update(raw, y):
        x, log_slope = _invert_elementwise(transformer, raw, y)
        return x, (x, log_slope)

    x, log_slopes = module.solve(variables, context, update, y.T, y.shape[0])
    return x.T, log_slopes.T


@_invert.defjvp
def _invert_jvp(module, transformer, primals, tangents):
    variables, context, y = primals
    x, log_slopes = _invert(module, transformer, variables, context, y)
    change = _inverse_change(module, transformer, (variables, context, x, y), tangents)
    return (x, log_slopes), change


# Evaluates the network again in the backward pass, rather than storing its hidden layers.
@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(0, 1))
def _inverse_change(module, transformer, primals, tangents):
    """Computes the changes of x and of the log-slopes, in both modes for one triangular system.

    With raw = network(x) and x_i = f(raw_i, y_i), the changes solve

        dx_i - df/draw_i draw_i = df/dy_i dy_i,    draw - dnetwork/dx dx = dnetwork,

    where dnetwork is the change by the variables and the context. `solve_transposed` solves the
    transposed system for about one pass of the network, from the last dimension to the first.
    """
    variables, context, x, y = primals
    *dvariables, dy = tangents
    raw, direct = jax.jvp(
        lambda variables, context: module.apply(variables, x, context),
        (variables, context),
        tuple(dvariables),
    )
    _, pull_back = jax.vjp(functools.partial(_invert_elementwise, transformer), raw, y)
    one, zero = jnp.ones_like(y), jnp.zeros_like(y)
    # Each preimage and log-slope depends only on the parameters and image of its own dimension.
    x_by_raw, x_by_y = pull_back((one, zero))
    slope_by_raw, slope_by_y = pull_back((zero, one))
    _, push_forward = jax.linearize(lambda x: module.apply(variables, x, context), x)

    def of_raw(draw: Array) -> Array:
        return jnp.sum(x_by_raw * draw, axis=-1)

    # One array ``[row, dimension, 1 + parameter]``: both parts are transposed, or neither.
    def joined(dx: Array, draw: Array) -> Array:
        return jnp.concatenate([dx[..., None], draw], axis=-1)

    def system(changes):
        dx, draw = changes[..., 0], changes[..., 1:]
        return joined(dx - of_raw(draw), draw - push_forward(dx))

    def solve(_, right):
        # Each pass makes one more dimension exact.
        def refine(_, dx):
            return right[..., 0] + of_raw(right[..., 1:] + push_forward(dx))

        dx = jax.lax.fori_loop(0, x.shape[-1], refine, jnp.zeros_like(right[..., 0]))
        return joined(dx, right[..., 1:] + push_forward(dx))

    def solve_transposed(_, right):
        def update(pulled_back, inputs):
            """Computes the cotangent of raw_i from that of x_i by later dimensions."""
            dx, x_by_raw, draw = inputs
            dx = dx + pulled_back
            draw = dx[:, None] * x_by_raw + draw
            return draw, (dx, draw)

        parts = (right[..., 0], x_by_raw, right[..., 1:])
        inputs = tuple(jnp.swapaxes(values, 0, 1) for values in parts)
        results = module.solve_transposed(variables, context, x, update, inputs)
        return joined(*(jnp.swapaxes(values, 0, 1) for values in results))

    right = joined(x_by_y * dy, direct)
    changes = jax.lax.custom_linear_solve(system, right, solve, solve_transposed)
    dlog_slopes = jnp.sum(slope_by_raw * changes[..., 1:], axis=-1) + slope_by_y * dy
    return changes[..., 0], dlog_slopes


class Block(NamedTuple):
    """A dense layer whose units belong to dimensions.

    Attributes:
      diagonal: Logarithms of the weights between units of the same dimension,
        ``[dimension, output, input]``.
      below: Weights ``[dimension, output, dimension, input]`` to the units of a dimension from
        those of earlier dimensions; the others aren't read.
      bias: ``[*batch, dimension, output]``; may differ between examples.
    """

    diagonal: Float[Array, "dimension output input"]
    below: Float[Array, "dimension output dimension input"]
    bias: Float[Array, "*batch dimension output"]


class BlockAutoregressive(Bijector):
    """Block autoregressive map: a network whose Jacobian is triangular with a positive diagonal.

    y = g x + (1 - g) f(x) in each dimension, where f is a network with tanh between its layers and
    g in (0, 1) is a gate. Weights between units of the same dimension are positive, those from
    later dimensions are zero. The term g x makes the map onto: f alone is bounded.

    log|det dy/dx| = sum of log(g + (1 - g) df_i/dx_i), where the logarithm of df_i/dx_i is a chain
    of products of positive matrices, summed in logarithms.

    Forward is the cheap direction: one pass of the network. The inverse solves one scalar equation
    after another, for each dimension, by `solve_monotone`: as many passes as all searches take,
    with NaN where one fails.

    Shapes: events are ``[dimension]``.

    Source: De Cao, Titov & Aziz 2019, "Block neural autoregressive flow", without weight
    normalization.
    """

    def __init__(self, blocks: Sequence[Block], gate: Float[Array, " dimension"]):
        """Builds the map.

        Args:
          blocks: The layers, the first with one input and the last with one output a dimension.
          gate: Logits of the gate g.

        Raises:
          ValueError: If the shapes of the layers don't fit each other.
        """
        super().__init__(event_ndims_in=1)
        self.blocks = [Block(*map(jnp.asarray, block)) for block in blocks]
        self.gate = jnp.asarray(gate)
        inputs = 1
        for block in self.blocks:
            dimension, outputs, width = block.diagonal.shape
            expected = (dimension, outputs, dimension, width)
            if (
                width != inputs
                or block.below.shape != expected
                or block.bias.shape[-2:] != (dimension, outputs)
                or self.gate.shape != (dimension,)
            ):
                raise ValueError(
                    f"blocks: expected {inputs} inputs for each of {self.gate.shape} dimensions, "
                    f"got diagonal {block.diagonal.shape}, below {block.below.shape} and bias "
                    f"{block.bias.shape}"
                )
            inputs = outputs
        if inputs != 1:
            raise ValueError(
                f"the last block must have one output for each dimension, got {inputs}"
            )

    def _mapped(self, x: Array) -> tuple[Array, Array]:
        """Computes y, and log dy_i/dx_i."""
        units = x[..., None]
        log_slope = jnp.zeros_like(units)
        for number, block in enumerate(self.blocks):
            if number:
                log_tanh_slope = 2 * (math.log(2.0) - units - jax.nn.softplus(-2 * units))
                units, log_slope = jnp.tanh(units), log_slope + log_tanh_slope
            dimension = len(self.gate)
            earlier = jnp.tril(jnp.ones((dimension, dimension), bool), -1)[:, None, :, None]
            below = jnp.where(earlier, block.below, 0)
            diagonal = jnp.exp(block.diagonal)
            units = (
                jnp.einsum("eojk,...jk->...eo", below, units)
                + jnp.einsum("eok,...ek->...eo", diagonal, units)
                + block.bias
            )
            log_slope = jax.nn.logsumexp(block.diagonal + log_slope[..., None, :], axis=-1)
        log_g, log_rest = jax.nn.log_sigmoid(self.gate), jax.nn.log_sigmoid(-self.gate)
        y = jnp.exp(log_g) * x + jnp.exp(log_rest) * units[..., 0]
        return y, jnp.logaddexp(log_g, log_rest + log_slope[..., 0])

    def _prepared(self, x: Array) -> Array:
        batch = jnp.broadcast_shapes(*(block.bias.shape[:-2] for block in self.blocks))
        return prepare_vectors(self.name, x, len(self.gate), batch)

    def _forward(self, x):
        y, log_slope = self._mapped(self._prepared(x))
        return y, jnp.sum(log_slope, axis=-1)

    def _inverse(self, y):
        y = self._prepared(y)

        def solve_dimension(solved, one_hot):
            target = jnp.sum(y * one_hot, axis=-1)
            value = solve_monotone(_one_dimension, (self, solved, one_hot), target)
            return solved + value[..., None] * one_hot, None

        one_hots = jnp.eye(len(self.gate), dtype=y.dtype)
        x, _ = jax.lax.scan(solve_dimension, jnp.zeros_like(y), one_hots)
        return x, -jnp.sum(self._mapped(x)[1], axis=-1)


def _one_dimension(parameters: tuple[BlockAutoregressive, Array, Array], value: Array) -> Array:
    """Computes y_i from x_i, with the dimensions before it solved and those after it zero."""
    bijector, solved, one_hot = parameters
    return jnp.sum(bijector._mapped(solved + value[..., None] * one_hot)[0] * one_hot, axis=-1)
