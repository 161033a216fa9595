"""Densities on the plane that are constant within the cells of a grid."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Histogram(distrax.Distribution):
    """A density on a rectangle of the plane, constant within each cell of a grid.

    p(x) = w_rc / (a sum w) for x in the cell of row r and column c, with cells of area a, and 0
    outside of the rectangle, in nats and float32. Columns go along the first entry of x, rows along
    the second, both upwards. A cell holds its lower borders; the upper borders of the rectangle
    belong to its last cells. NaN gives NaN. Samples carry no gradient.

    Shapes: weights are ``[*batch, row, column]``, the corners ``[*batch, 2]`` or ``[2]``.
    """

    def __init__(
        self,
        weights: Float[Array, "*batch row column"],
        low: Float[Array, "*batch two"],
        high: Float[Array, "*batch two"],
    ):
        """Builds the distribution.

        Args:
          weights: Mass of each cell, up to a factor: none below 0 and some above; unchecked, as
            they may be traced.
          low: Lower corner of the rectangle.
          high: Upper corner, above the lower one in both entries; unchecked as well.

        Raises:
          ValueError: If the shapes don't fit.
        """
        super().__init__()
        weights = jnp.asarray(weights, jnp.float32)
        low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
        corner = (*weights.shape[:-2], 2)
        if weights.ndim < 2 or low.shape not in (corner, (2,)) or high.shape != low.shape:
            raise ValueError(
                f"weights must have shape [*batch, row, column], low and high [*batch, 2] or [2], "
                f"got {weights.shape}, {low.shape} and {high.shape}"
            )
        self._low, self._high = jnp.broadcast_to(low, corner), jnp.broadcast_to(high, corner)
        self._log_mass = jnp.log(weights) - jnp.log(jnp.sum(weights, (-2, -1), keepdims=True))
        # Here, so that a histogram of a whole image isn't summed anew in each compiled function.
        self._mass = jnp.exp(self._log_mass)
        self._row_mass = jnp.sum(self._mass, axis=-1)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (2,)."""
        return (2,)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return self._log_mass.shape[:-2]

    @property
    def dtype(self):
        """Type of the samples."""
        return self._log_mass.dtype

    def log_prob(self, value: Float[Array, "*batch two"]) -> Float[Array, "*batch"]:
        """Computes the log-density in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        if value.shape[-1:] != (2,):
            raise ValueError(f"value must hold events of shape (2,), got shape {value.shape}")
        value = value.astype(jnp.float32)
        inside = jnp.all((value >= self._low) & (value <= self._high), axis=-1)
        column, row = jnp.moveaxis(self._cell_of(value), -1, 0)
        log_prob = self._log_mass[(*self._batch_indices(), row, column)] - self._log_area()
        log_prob = jnp.where(inside, log_prob, -jnp.inf)
        return jnp.where(jnp.any(jnp.isnan(value), axis=-1), jnp.nan, log_prob)

    def entropy(self) -> Float[Array, "*batch"]:
        """Computes -E[log p(x)] in nats, which is exact."""
        surprise = -self._mass * jnp.where(self._mass > 0, self._log_mass, 0.0)
        return jnp.sum(surprise, (-2, -1)) + self._log_area()

    def _sample_n(self, key: Array, n: int) -> Array:
        for_row, for_column, for_place = jax.random.split(key, 3)
        shape = (n, *self.batch_shape)
        # First the row, then the column: the running sums stay short, and so exact.
        row = _draw(for_row, jnp.broadcast_to(self._row_mass, (*shape, self._mass.shape[-2])))
        column = _draw(for_column, self._mass[(*self._batch_indices(), row)])
        cell = jnp.stack([column, row], axis=-1)
        place = jax.random.uniform(for_place, cell.shape)
        value = self._low + self._widths() * (cell + place)
        # Rounding may carry a sample into the next cell, whose mass may be 0.
        stays = self._cell_of(value) == cell
        return jnp.where(stays, value, self._low + self._widths() * (cell + 0.5))

    def _widths(self) -> Array:
        """Width and height of a cell."""
        rows, columns = self._log_mass.shape[-2:]
        return (self._high - self._low) / jnp.array([columns, rows], jnp.float32)

    def _log_area(self) -> Array:
        return jnp.sum(jnp.log(self._widths()), axis=-1)

    def _cell_of(self, value: Array) -> Array:
        """Column and row of the cell around each point, or near it, along the last axis."""
        rows, columns = self._log_mass.shape[-2:]
        last = jnp.array([columns, rows]) - 1
        cell = jnp.floor((value - self._low) / self._widths())
        # Clipped as floats: what isn't finite has no integer.
        return jnp.clip(jnp.nan_to_num(cell), 0, last).astype(jnp.int32)

    def _batch_indices(self) -> tuple[Array, ...]:
        """Indices along the batch axes, which broadcast against those of rows and columns."""
        return tuple(jnp.indices(self.batch_shape, sparse=True))


def _draw(key: Array, mass: Array) -> Array:
    """Draws an entry along the last axis in proportion to its mass; never one without mass."""
    sums = jnp.cumsum(mass, axis=-1)
    # Where an entry has no mass the sum must not rise, not even by a rounding.
    sums = jax.lax.cummax(jnp.where(mass > 0, sums, 0.0), axis=mass.ndim - 1)
    total = sums[..., -1:]
    threshold = total * jax.random.uniform(key, total.shape)
    threshold = jnp.minimum(threshold, jnp.nextafter(total, 0.0))
    return jnp.sum(sums <= threshold, axis=-1)
