"""Autoregressive distributions of code maps, and temperature, top-k and top-p truncation.

P(x) = prod_p P(x_p | x_1, ..., x_(p-1)) over positions in raster order, by a masked network.
"""

from __future__ import annotations

import functools
import math

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow._util.arrays import check_event_shape, sum_event
from vaeflow.bijectors import Conditioner


class CodeMaps(distrax.Distribution):
    """Maps of codes 0, ..., K - 1, in raster order: P(x) = prod_p P(x_p | codes before p).

    log P(x) is exact and costs one pass of the network, which computes the logits of all positions.
    Sampling runs one position after another in a compiled loop that evaluates only the units of
    that position, so that a sample costs about as much as a log-probability.

    Temperature, `top_k` and `top_p` change the conditional distribution of each code, for samples
    and for `log_prob`.

    Shapes: events are ``[height, width]`` of integers; the batch is that of the context.

    Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel recurrent neural networks",
    section 2; sampling at the cost of a pass, Ramachandran et al. 2017, "Fast generation for
    convolutional autoregressive models".
    """

    def __init__(
        self,
        network: Conditioner,
        *,
        temperature: float | Float[Array, ""] = 1.0,
        top_k: int | None = None,
        top_p: float | Float[Array, ""] | None = None,
    ):
        """Builds the distribution.

        Args:
          network: Its module is a `vaeflow.nn.AutoregressiveMapNetwork`; ``event_ndims=2``.
          temperature: Divisor of the logits: below 1, samples are more typical and less diverse; at
            0 each code is the most probable one.
          top_k: Number of most probable codes to sample from, or None for all.
          top_p: Total probability of the most probable codes to sample from, or None for all; see
            `truncated_logits`.

        Raises:
          ValueError: If the network isn't for events of two axes, `top_k` isn't at least 1, or
            `top_p` isn't above 0 and at most 1.
        """
        super().__init__()
        if network.event_ndims != 2:
            raise ValueError(
                f"network must be for events of 2 axes, got event_ndims={network.event_ndims}"
            )
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        if isinstance(top_p, int | float) and not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
        self._network = network
        self._temperature = jnp.asarray(temperature, jnp.float32)
        self._top_k = top_k
        self._top_p = None if top_p is None else jnp.asarray(top_p, jnp.float32)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Height and width of a map."""
        return tuple(self._network.module.map_shape)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions: that of the context."""
        context = self._network.context
        return () if context is None else context.shape[: -self._network.context_ndims]

    @property
    def dtype(self):
        """Type of the samples."""
        return jnp.dtype(jnp.int32)

    @property
    def num_codes(self) -> int:
        """Number K of codes."""
        return self._network.module.num_codes

    def logits(
        self, value: Int[Array, "*batch height width"]
    ) -> Float[Array, "*batch height width code"]:
        """Computes the logits of each position given the codes before it; -inf for truncated codes.

        Raises:
          ValueError: If the maps have another shape or aren't made of integers.
        """
        check_event_shape("CodeMaps", value.shape, self.event_shape)
        batch = jnp.broadcast_shapes(value.shape[:-2], self.batch_shape)
        value = jnp.broadcast_to(value, (*batch, *self.event_shape))
        return self._truncated(self._network(value))

    def log_prob(self, value: Int[Array, "*batch height width"]) -> Float[Array, "*batch"]:
        """Computes log P(x) in nats; -inf for a map with a code out of range.

        Raises:
          ValueError: If the maps have another shape or aren't made of integers.
        """
        return sum_event(log_prob_of_codes(self.logits(value), value), 2)

    def _sample_n(self, key: Array, n: int) -> Array:
        return _draw(self, key, n)[0]

    def _sample_n_and_log_prob(self, key: Array, n: int) -> tuple[Array, Array]:
        return _draw(self, key, n)

    def _truncated(self, logits: Array) -> Array:
        return truncated_logits(logits, self._temperature, self._top_k, self._top_p)

    def _draw(self, key: Array, n: int) -> tuple[Array, Array]:
        shape = (n, *self.batch_shape, *self.event_shape)
        rows = jax.ShapeDtypeStruct(shape, self.dtype)
        network = self._network

        def sample_position(logits, key):
            logits = self._truncated(logits)
            code = jax.random.categorical(key, logits)
            return code, (code, log_prob_of_codes(logits, code))

        results = network.module.solve(
            network.variables,
            network.rows_of_context(rows),
            sample_position,
            jax.random.split(key, self.event_shape),
            math.prod(shape[:-2]),
        )
        codes, log_prob = (jnp.moveaxis(leaf, 2, 0).reshape(shape) for leaf in results)
        return codes.astype(self.dtype), sum_event(log_prob, 2)


@functools.partial(jax.jit, static_argnames="n")
def _draw(distribution: CodeMaps, key: Array, n: int) -> tuple[Array, Array]:
    """Samples maps with their log-probabilities; compiled once for equal static parts."""
    return distribution._draw(key, n)


def log_prob_of_codes(
    logits: Float[Array, "*shape code"], codes: Int[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Computes the log-probability of each code in nats, in float32 or wider.

    It is -inf for codes out of range.
    """
    count = logits.shape[-1]
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    nearest = jnp.clip(codes, 0, count - 1)
    nearest = jnp.broadcast_to(nearest, logits.shape[:-1])[..., None]
    log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), nearest, axis=-1)[..., 0]
    return jnp.where((codes >= 0) & (codes < count), log_prob, -jnp.inf)


def truncated_logits(
    logits: Float[Array, "*shape code"],
    temperature: float | Float[Array, ""] = 1.0,
    top_k: int | None = None,
    top_p: float | Float[Array, ""] | None = None,
) -> Float[Array, "*shape code"]:
    """Divides logits by a temperature, and truncates all but the most probable codes.

    Of codes in order of their probability (equal ones in order of their number) it keeps the first
    `top_k`; of these, renormalised, those with less than `top_p` cumulated before them: the
    smallest set that has at least that probability.

    Source: Fan, Lewis & Dauphin 2018, "Hierarchical neural story generation", section 5.4 (top-k);
    Holtzman, Buys, Du, Forbes & Choi 2020, "The curious case of neural text degeneration",
    section 3.1 (top-p, "nucleus").

    Args:
      logits: Logarithms of probabilities, up to a constant.
      temperature: Divisor of the logits; at 0 only the most probable code remains.
      top_k: Number of codes to keep, or None for all.
      top_p: Probability to keep, or None for all.

    Returns:
      Logits, the largest of them 0; -inf for truncated codes.
    """
    logits = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    logits = logits / jnp.maximum(temperature, jnp.finfo(logits.dtype).tiny)
    if top_k is None and top_p is None:
        return logits
    order = jnp.argsort(-logits, axis=-1)
    ranks = jnp.argsort(order, axis=-1)
    keep = ranks < (logits.shape[-1] if top_k is None else top_k)
    if top_p is not None:
        probability = jax.nn.softmax(jnp.where(keep, logits, -jnp.inf), axis=-1)
        descending = jnp.take_along_axis(probability, order, axis=-1)
        cumulated = jnp.cumsum(descending, axis=-1) - descending
        # With top_p = 1 rounding must not truncate anything.
        enough = (cumulated >= top_p) & (top_p < 1)
        keep &= (ranks == 0) | ~jnp.take_along_axis(enough, ranks, axis=-1)
    return jnp.where(keep, logits, -jnp.inf)
