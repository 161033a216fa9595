"""Vector quantisation by a learned codebook (van den Oord et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow._util.axis import LOCAL, Axis
from vaeflow.quantizers.base import (
    Gradient,
    Latents,
    Quantized,
    Quantizer,
    check_channels,
    check_codes,
    latents_of,
    needed_keys,
    quantized,
    straight_through,
    take,
    unit,
)
from vaeflow.quantizers.moving_average import CodeSums, MovingAverage, choose_latents, sum_by_code
from vaeflow.quantizers.nearest import k_means, nearest

COLLECTION = "codebook"
"""Name of the Flax collection of moving averages."""


def codes_of(
    module: nn.Module, average: MovingAverage | None, initial: Callable[[], Array] | None = None
) -> Float[Array, "*stages code channel"]:
    """Reads the codes of a module: its parameter "codebook", or the quotient of its averages.

    Args:
      module: Module that owns the codes.
      average: How they are averaged, or None if they are a parameter.
      initial: Computes the first codes; called in `init` alone, so given in a compact method.
    """
    fresh = initial is not None and module.is_initializing()
    if average is None:
        if fresh and not module.has_variable("params", "codebook"):
            return module.param("codebook", lambda _: initial())
        return module.get_variable("params", "codebook")
    if fresh and not module.has_variable(COLLECTION, "counts"):
        _write(module, average.initial(initial()))
    return jax.lax.stop_gradient(average.codes(_read(module)))


def learn(
    module: nn.Module, average: MovingAverage, assigned: CodeSums, candidates: CodeSums | None
) -> None:
    """Takes the sums of a whole batch into the averages of a module, see `MovingAverage.updated`.

    Args:
      module: Module that owns the codes, its collection being mutable.
      average: How they are averaged.
      assigned: Counts and sums by code, ``[*stages, code]``.
      candidates: The same by turn, or None.
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
    def __call__(
        self,
        features: Float[Array, "batch *positions channel"],
        rng: Array | None = None,
        *,
        axis: Axis = LOCAL,
        train: bool = False,
    ) -> Quantized:
        """Quantises features; see `Quantizer.__call__`. Restarts of codes need `rng`."""
        check_codes("VectorQuantizer", self.num_codes)
        latents = latents_of(features)
        latents = latents._replace(values=self._project(latents.values))
        x, fixed = latents.values, jax.lax.stop_gradient(latents.values)

        def initial() -> Array:
            key, iterations = self.make_rng("params"), self.k_means_iterations
            return k_means(key, *latents.gathered(axis), self.num_codes, iterations, self._project)

        codes = self._project(codes_of(self, self.average, initial))
        check_channels("VectorQuantizer", features.shape, codes.shape[-1])
        indices = nearest(fixed, jax.lax.stop_gradient(codes))
        chosen = codes[indices]
        losses = {"commitment": latents.mean_square(x - jax.lax.stop_gradient(chosen))}
        if self.average is None:
            losses["codebook"] = latents.mean_square(fixed - chosen)
        elif train and not self.is_initializing():
            self._learn(latents._replace(values=fixed), indices, rng, axis)
        values = self.gradient(x, chosen)
        return quantized(features, latents, values, indices, losses, self.num_codes)

    def lookup(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch channel"]:
        """Returns the codes of indices; see `Quantizer.lookup`."""
        return take(self._project(codes_of(self, self.average)), indices)

    def _project(self, vectors: Array) -> Array:
        return unit(vectors) if self.cosine else vectors

    def _learn(self, latents: Latents, indices: Array, rng: Array | None, axis: Axis) -> None:
        vectors, finite = latents
        places = jnp.where(finite, indices, self.num_codes)
        assigned, candidates = sum_by_code(vectors, places, self.num_codes), None
        if self.average.restart_below > 0:
            keys = needed_keys("VectorQuantizer", rng, vectors.shape[0], "restarts of codes")
            chosen, turns = choose_latents(keys, finite, self.num_codes, axis)
            chosen = vectors.reshape(-1, vectors.shape[-1])[chosen]
            candidates = sum_by_code(chosen, turns, self.num_codes)
        learn(self, self.average, *axis.sum((assigned, candidates)))
