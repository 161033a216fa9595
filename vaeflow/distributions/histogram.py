"""Histogram densities on a rectangle of the plane."""

from __future__ import annotations

from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from tensorflow_probability.substrates.jax.distributions import RegisterKL

from vaeflow._util.arrays import check_event_shape, matmul


class Histogram(distrax.Distribution):
    """Histogram density on a rectangle of the plane, constant within each cell of a grid.

    p(x) = w_rc / (a sum w) for x in the cell of row r and column c, with cells of area a, and 0
    outside of the rectangle, in nats and float32. Columns go along the first dimension of x, rows
    along the second, both upwards. A cell contains its lower borders; the upper borders of the
    rectangle belong to its last cells. NaN gives NaN. Samples carry no gradient.

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
          high: Upper corner, above the lower one in both dimensions; unchecked as well.

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
        # Computed once, not in every compiled function: histograms of images are large.
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
        check_event_shape("Histogram", value.shape, (2,))
        value = value.astype(jnp.float32)
        inside = jnp.all((value >= self._low) & (value <= self._high), axis=-1)
        column, row = jnp.moveaxis(self._cell_of(value), -1, 0)
        log_prob = self._log_mass[(*self._batch_indices(), row, column)] - self._log_area()
        log_prob = jnp.where(inside, log_prob, -jnp.inf)
        return jnp.where(jnp.any(jnp.isnan(value), axis=-1), jnp.nan, log_prob)

    def log_cdf(self, value: Float[Array, "*batch two"]) -> Float[Array, "*batch"]:
        """Computes the logarithm of the probability that no dimension exceeds its value."""
        check_event_shape("Histogram", value.shape, (2,))
        column, row = (
            jnp.clip((value[..., axis, None] - edges[..., :-1]) / jnp.diff(edges, axis=-1), 0, 1)
            for axis, edges in enumerate(self._edges())
        )
        return jnp.log(jnp.sum(row * matmul(self._mass, column[..., None])[..., 0], axis=-1))

    def mean(self) -> Float[Array, "*batch two"]:
        """The mean."""
        means = [
            jnp.sum(mass * _middles(edges), axis=-1)
            for mass, edges in zip(self._marginals(), self._edges(), strict=True)
        ]
        return jnp.stack(means, axis=-1)

    def variance(self) -> Float[Array, "*batch two"]:
        """The variance of each dimension."""
        mean = jnp.moveaxis(self.mean(), -1, 0)
        between = [
            jnp.sum(mass * (_middles(edges) - center[..., None]) ** 2, axis=-1)
            for mass, edges, center in zip(self._marginals(), self._edges(), mean, strict=True)
        ]
        return jnp.stack(between, axis=-1) + self._widths() ** 2 / 12

    def mode(self) -> Float[Array, "*batch two"]:
        """The center of the densest cell, of which every point is a mode; the first such cell."""
        rows, columns = self._mass.shape[-2:]
        best = jnp.argmax(self._mass.reshape((*self.batch_shape, rows * columns)), axis=-1)
        cell = jnp.stack([best % columns, best // columns], axis=-1)
        return self._low + self._widths() * (cell.astype(self.dtype) + 0.5)

    def median(self) -> Float[Array, "*batch two"]:
        """The median of each dimension."""
        medians = []
        for mass, edges in zip(self._marginals(), self._edges(), strict=True):
            sums = jnp.cumsum(mass, axis=-1)
            index = jnp.sum(sums < 0.5 * sums[..., -1:], axis=-1, keepdims=True)
            before, within, low, high = (
                jnp.take_along_axis(array, index, axis=-1)[..., 0]
                for array in (sums - mass, mass, edges[..., :-1], edges[..., 1:])
            )
            share = (0.5 * sums[..., -1] - before) / within
            medians.append(low + jnp.clip(share, 0, 1) * (high - low))
        return jnp.stack(medians, axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """Computes -E[log p(x)] in nats, which is exact."""
        surprise = -self._mass * jnp.where(self._mass > 0, self._log_mass, 0.0)
        return jnp.sum(surprise, (-2, -1)) + self._log_area()

    def _marginals(self) -> tuple[Float[Array, "*batch column"], Float[Array, "*batch row"]]:
        """Masses of the columns and of the rows."""
        return jnp.sum(self._mass, axis=-2), self._row_mass

    def _edges(self) -> tuple[Float[Array, "*batch edge"], Float[Array, "*batch edge"]]:
        """Borders of the columns and of the rows, in order."""
        return tuple(
            low[..., None] + width[..., None] * jnp.arange(size + 1)
            for low, width, size in zip(
                jnp.moveaxis(self._low, -1, 0),
                jnp.moveaxis(self._widths(), -1, 0),
                self._mass.shape[:-3:-1],
                strict=True,
            )
        )

    def _sample_n(self, key: Array, n: int) -> Array:
        for_row, for_column, for_offset = jax.random.split(key, 3)
        shape = (n, *self.batch_shape)
        # First the row, then the column: shorter cumulative sums are more exact.
        row = _sample_uniform(
            for_row, jnp.broadcast_to(self._row_mass, (*shape, self._mass.shape[-2]))
        )
        column = _sample_uniform(for_column, self._mass[(*self._batch_indices(), row)])
        cell = jnp.stack([column, row], axis=-1)
        offset = jax.random.uniform(for_offset, cell.shape, jnp.float32)
        value = self._low + self._widths() * (cell + offset)
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
        """Column and row of the cell nearest to each point, along the last axis."""
        rows, columns = self._log_mass.shape[-2:]
        last = jnp.array([columns, rows]) - 1
        cell = jnp.floor((value - self._low) / self._widths())
        # Clipped as floats: infinity has no integer.
        return jnp.clip(jnp.nan_to_num(cell), 0, last).astype(jnp.int32)

    def _batch_indices(self) -> tuple[Array, ...]:
        """Indices along the batch axes, which broadcast against those of rows and columns."""
        return tuple(jnp.indices(self.batch_shape, sparse=True))


@RegisterKL(Histogram, Histogram)
def _kl_of_histograms(p: Histogram, q: Histogram, **kwargs: Any) -> Float[Array, "*batch"]:
    """Computes KL(p || q) in nats, from the shares of each cell of p that the cells of q take.

    It is infinite where p has mass at which q has none.
    """
    del kwargs
    (column, beyond_columns), (row, beyond_rows) = (
        _shares(mine, others) for mine, others in zip(p._edges(), q._edges(), strict=True)
    )
    # Of each cell of q, the mass of p in it.
    mass = matmul(matmul(jnp.swapaxes(row, -1, -2), p._mass), column)
    some = q._mass > 0
    cross = q._log_area() - jnp.sum(mass * jnp.where(some, q._log_mass, 0.0), axis=(-2, -1))
    outside = jnp.maximum(beyond_rows[..., :, None], beyond_columns[..., None, :])
    uncovered = jnp.any(~some & (mass > 0), axis=(-2, -1)) | jnp.any(
        (p._mass > 0) & (outside > 0), axis=(-2, -1)
    )
    return jnp.where(uncovered, jnp.inf, cross - p.entropy())


def _shares(
    mine: Float[Array, "*batch edge"], others: Float[Array, "*batch other"]
) -> tuple[Float[Array, "*batch cell other_cell"], Float[Array, "*batch cell"]]:
    """Computes the shares of each interval that others take, and the length outside of all."""
    low, high = mine[..., :-1], mine[..., 1:]
    above = jnp.maximum(low[..., None], others[..., None, :-1])
    below = jnp.minimum(high[..., None], others[..., None, 1:])
    outside = jnp.maximum(others[..., :1] - low, 0) + jnp.maximum(high - others[..., -1:], 0)
    return jnp.maximum(below - above, 0) / (high - low)[..., None], outside


def _middles(edges: Float[Array, "*batch edge"]) -> Float[Array, "*batch cell"]:
    return (edges[..., :-1] + edges[..., 1:]) / 2


def _sample_uniform(key: Array, mass: Array) -> Array:
    """Samples an index along the last axis in proportion to its mass; never one without mass."""
    sums = jnp.cumsum(mass, axis=-1)
    # Without mass the sum must not increase, not even by rounding.
    sums = jax.lax.cummax(jnp.where(mass > 0, sums, 0.0), axis=mass.ndim - 1)
    total = sums[..., -1:]
    threshold = total * jax.random.uniform(key, total.shape, total.dtype)
    threshold = jnp.minimum(threshold, jnp.nextafter(total, 0.0))
    return jnp.sum(sums <= threshold, axis=-1)
