"""Vector quantisation by a learned codebook (van den Oord et al. 2017).

The codes are a parameter, or moving averages in the Flax collection `COLLECTION`; `codebook_of` and
`update_averages` read and write either for the quantizers that have a codebook.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow._util.arrays import Axis
from vaeflow.quantizers.base import (
    Gradient,
    Quantizer,
    Result,
    Vectors,
    lookup_codes,
    mean_square,
    straight_through,
    unit,
)
from vaeflow.quantizers.moving_average import CodeSums, MovingAverage, choose_latents, sum_by_code
from vaeflow.quantizers.nearest import k_means, nearest_codes

COLLECTION = "codebook"
"""Name of the Flax collection of moving averages."""


def codebook_of(
    module: nn.Module, average: MovingAverage | None, initial: Callable[[], Array] | None = None
) -> Float[Array, "*stages code channel"]:
    """Reads the codes of a module: its parameter "codebook", or the quotient of its averages.

    Args:
      module: Module that owns the codes.
      average: How they are averaged, or None if they are a parameter.
      initial: Computes the first codes; called in `init` only, from a compact method.
    """
    fresh = initial is not None and module.is_initializing()
    if average is None:
        if fresh and not module.has_variable("params", "codebook"):
            return module.param("codebook", lambda _: initial())
        return module.get_variable("params", "codebook")
    if fresh and not module.has_variable(COLLECTION, "counts"):
        _write(module, average.initial(initial()))
    return jax.lax.stop_gradient(average.codes(_read(module)))


def num_channels_of(module: nn.Module, average: MovingAverage | None) -> int | None:
    """Returns the number of channels of the codes of a module, or None before it has any."""
    collection, name = ("params", "codebook") if average is None else (COLLECTION, "sums")
    if not module.has_variable(collection, name):
        return None
    return module.get_variable(collection, name).shape[-1]


def update_averages(
    module: nn.Module, average: MovingAverage, assigned: CodeSums, candidates: CodeSums | None
) -> None:
    """Updates the averages of a module by the sums of a full batch; see `MovingAverage.updated`.

    Args:
      module: Module that owns the codes, its collection being mutable.
      average: How they are averaged.
      assigned: Counts and sums by code, ``[*stages, code]``.
      candidates: The vectors at which dead codes restart, or None.
    """
    update = average.updated
    if assigned.counts.ndim > 1:
        update = jax.vmap(update, (0, 0, None if candidates is None else 0))
    _write(module, update(_read(module), assigned, candidates))


def _read(module: nn.Module) -> CodeSums:
    return CodeSums(*(module.get_variable(COLLECTION, name) for name in CodeSums._fields))


def _write(module: nn.Module, sums: CodeSums) -> None:
    for name, value in sums._asdict().items():
        module.put_variable(COLLECTION, name, value)


class VectorQuantizer(Quantizer):
    """Replaces each vector x by the nearest e of K learned codes.

    Its losses are "commitment", ||x - sg(e)||^2, which keeps features near their codes and the
    paper weights by 0.25, and, where codes are learned by gradients, "codebook", ||sg(x) - e||^2,
    whose weight is 1; sg stops gradients. The codes start at the means of clusters of the first
    batch, which must hold K latents or more.

    Shapes: features are ``[batch, *positions, channel]``, indices ``[batch, *positions]``.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
    equations 1 to 3; Yu et al. 2021, "Vector-quantized image modeling with improved VQGAN",
    section 3.2 (directions).

    Restarts of dead codes, which an `average` has, need an `rng` in training.

    Attributes:
      num_codes: Number K of codes.
      average: How codes are averaged, or None if gradients of the "codebook" loss move them.
      gradient: `straight_through` or `rotation_trick`.
      cosine: Whether directions are quantised: features and codes are divided by their lengths
        first, and the nearest code is that of the largest cosine.
      k_means_iterations: How often the clusters' means are computed; at 0 the codes start at random
        latents of the first batch.
    """

    num_codes: int
    average: MovingAverage | None = MovingAverage()
    gradient: Gradient = straight_through
    cosine: bool = False
    k_means_iterations: int = 10

    @nn.compact
    def _quantize(self, vectors: Vectors, rng: Array | None, *, axis: Axis, train: bool) -> Result:
        vectors = vectors._replace(values=self._project(vectors.values))
        x, fixed = vectors.values, jax.lax.stop_gradient(vectors.values)

        def initial() -> Array:
            key, iterations = self.make_rng("params"), self.k_means_iterations
            return k_means(key, *vectors.gather(axis), self.num_codes, iterations, self._project)

        codes = self._project(codebook_of(self, self.average, initial))
        indices = nearest_codes(fixed, jax.lax.stop_gradient(codes))
        chosen = codes[indices]
        losses = {"commitment": mean_square(x - jax.lax.stop_gradient(chosen))}
        if self.average is None:
            losses["codebook"] = mean_square(fixed - chosen)
        elif train and not self.is_initializing():
            self._learn(vectors._replace(values=fixed), indices, rng, axis)
        return self.gradient(x, chosen), indices, losses

    def lookup(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch channel"]:
        """Returns the codes of indices; see `Quantizer.lookup`."""
        return lookup_codes(self._project(codebook_of(self, self.average)), indices)

    def _num_channels(self) -> int | None:
        return num_channels_of(self, self.average)

    def _project(self, vectors: Array) -> Array:
        return unit(vectors) if self.cosine else vectors

    def _learn(self, vectors: Vectors, indices: Array, rng: Array | None, axis: Axis) -> None:
        values, finite = vectors
        targets = jnp.where(finite, indices, self.num_codes)
        assigned, candidates = sum_by_code(values, targets, self.num_codes), None
        if self.average.restart_below > 0:
            keys = self._row_keys(rng, values.shape[0], "restarts of codes")
            chosen, ranks = choose_latents(keys, finite, self.num_codes, axis)
            chosen = values.reshape(-1, values.shape[-1])[chosen]
            candidates = sum_by_code(chosen, ranks, self.num_codes)
        update_averages(self, self.average, *axis.sum((assigned, candidates)))
