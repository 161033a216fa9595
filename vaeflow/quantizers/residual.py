"""Residual vector quantisation (Zeghidour et al. 2021): a sum of codes, one of each stage."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vaeflow._util.arrays import Axis
from vaeflow.quantizers.base import (
    Gradient,
    Quantizer,
    Result,
    Vectors,
    lookup_codes,
    mean_square,
    straight_through,
)
from vaeflow.quantizers.moving_average import (
    MovingAverage,
    choose_latents,
    sum_by_code,
)
from vaeflow.quantizers.nearest import k_means, nearest_codes
from vaeflow.quantizers.vector import codebook_of, num_channels_of, update_averages


class ResidualQuantizer(Quantizer):
    """Replaces each vector by a sum of codes, one a stage: q = e_1 + ... + e_S.

    Stage s has the code e_s nearest to the residual of the stages before it, r_s = x - e_1 - ... -
    e_(s-1). The gradient rule is applied once, to x and q. Its losses are those of a
    `VectorQuantizer`, added up over the stages: "commitment", ||r_s - sg(e_s)||^2, and "codebook"
    where codes are learned by gradients. The stages' codes start at the means of clusters of
    their residuals in the first batch.

    With dropout, training samples a number from 1 to S for each example and leaves out later
    stages, so that the first few are good by themselves. A stage left out has the index -1 and no
    part in losses, counts and averages. Indices of the first stages alone can be looked up, too.
    Dropout, and restarts of dead codes, need an `rng` in training.

    Shapes: features are ``[batch, *positions, channel]``, indices ``[batch, *positions, stage]``.

    Source: Zeghidour et al. 2021, "SoundStream", section III.C; Défossez et al. 2022, "High
    fidelity neural audio compression", section 3.4 (losses); Lee et al. 2022, "Autoregressive
    image generation using residual quantization", section 3.1 (shared codes).

    Attributes:
      num_codes: Number of codes of a stage.
      num_stages: Number S of stages.
      average: As for `VectorQuantizer`.
      gradient: As for `VectorQuantizer`.
      shared: Whether all stages have the same codes; these start at clusters of the features.
      dropout: Whether training leaves out stages at random.
      k_means_iterations: As for `VectorQuantizer`.
    """

    num_codes: int
    num_stages: int
    average: MovingAverage | None = MovingAverage()
    gradient: Gradient = straight_through
    shared: bool = False
    dropout: bool = False
    k_means_iterations: int = 10

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of the indices of one latent."""
        return (self.num_stages,)

    @nn.compact
    def _quantize(self, vectors: Vectors, rng: Array | None, *, axis: Axis, train: bool) -> Result:
        x, fixed = vectors.values, jax.lax.stop_gradient(vectors.values)

        def initial() -> Array:
            return self._initial(self.make_rng("params"), *vectors.gather(axis))

        codes = self._by_stage(codebook_of(self, self.average, initial))
        learns = train and not self.is_initializing()
        used = jnp.ones((self.num_stages, x.shape[0]), bool)
        if learns and self.dropout:
            used = self._sample_used(rng, x.shape[0])
        indices, entering = _search(fixed, jax.lax.stop_gradient(codes))
        chosen = jax.vmap(lambda codes, indices: codes[indices])(codes, indices)
        chosen = jnp.where(used[..., None, None], chosen, 0)

        def sum_over_stages(residuals: Array) -> Array:
            return jnp.sum(jnp.where(used, jax.vmap(mean_square)(residuals), 0), axis=0)

        # r_s - e_s is x less all codes so far.
        residuals = x - jax.lax.stop_gradient(jnp.cumsum(chosen, axis=0))
        losses = {"commitment": sum_over_stages(residuals)}
        if self.average is None:
            losses["codebook"] = sum_over_stages(entering - chosen)
        elif learns:
            targets = jnp.where(used[..., None] & vectors.finite, indices, self.num_codes)
            self._learn(entering, targets, vectors.finite, rng, axis)
        values = self.gradient(x, jnp.sum(chosen, axis=0))
        indices = jnp.where(used[..., None], indices, -1)
        return values, jnp.moveaxis(indices, 0, -1), losses

    def lookup(self, indices: Int[Array, "*batch stage"]) -> Float[Array, "*batch channel"]:
        """Adds up the codes of indices; see `Quantizer.lookup`.

        Args:
          indices: Of all stages or the first few. After the first an index of -1 adds nothing.
        """
        if indices.ndim < 1 or not 1 <= indices.shape[-1] <= self.num_stages:
            raise ValueError(
                f"ResidualQuantizer: expected indices of shape [..., 1 to {self.num_stages}], got "
                f"{indices.shape}"
            )
        indices = jnp.moveaxis(indices, -1, 0)
        codes = self._by_stage(codebook_of(self, self.average))[: len(indices)]
        values = jax.vmap(lookup_codes)(codes, indices)
        left_out = jnp.arange(len(indices)).reshape(-1, *[1] * (indices.ndim - 1)) > 0
        left_out = left_out & (indices == -1)
        return jnp.sum(jnp.where(left_out[..., None], 0, values), axis=0)

    def _check_fields(self) -> None:
        super()._check_fields()
        if self.num_stages < 1:
            raise ValueError(
                f"ResidualQuantizer: num_stages must be at least 1, got {self.num_stages}"
            )

    def _num_channels(self) -> int | None:
        return num_channels_of(self, self.average)

    def _by_stage(self, codes: Array) -> Float[Array, "stage code channel"]:
        return jnp.broadcast_to(codes, (self.num_stages, *codes.shape)) if self.shared else codes

    def _initial(self, key: Array, vectors: Array, finite: Array) -> Array:
        def stage(vectors: Array, key: Array) -> tuple[Array, Array]:
            codes = k_means(
                key, vectors, finite, self.num_codes, self.k_means_iterations, lambda means: means
            )
            return vectors - codes[nearest_codes(vectors, codes)], codes

        if self.shared:
            return stage(vectors, key)[1]
        return jax.lax.scan(stage, vectors, jax.random.split(key, self.num_stages))[1]

    def _sample_used(self, rng: Array | None, count: int) -> Bool[Array, "stage batch"]:
        keys = self._row_keys(rng, count, "dropout")
        # Restarts have the bits of the key itself.
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
        numbers = jax.vmap(lambda key: jax.random.randint(key, (), 1, self.num_stages + 1))(keys)
        return jnp.arange(self.num_stages)[:, None] < numbers

    def _learn(
        self, entering: Array, targets: Array, finite: Array, rng: Array | None, axis: Axis
    ) -> None:
        by_stage = jax.vmap(sum_by_code, (0, 0, None))
        assigned, candidates = by_stage(entering, targets, self.num_codes), None
        if self.average.restart_below > 0:
            keys = self._row_keys(rng, finite.shape[0], "restarts of codes")
            chosen, ranks = choose_latents(keys, finite, self.num_codes, axis)
            vectors = entering.reshape(self.num_stages, -1, entering.shape[-1])[:, chosen]
            ranks = jnp.broadcast_to(ranks, (self.num_stages, *ranks.shape))
            candidates = by_stage(vectors, ranks, self.num_codes)
        assigned, candidates = axis.sum((assigned, candidates))
        if self.shared:
            assigned = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), assigned)
            # Candidate i is a residual of stage i modulo S.
            ranks = jnp.arange(self.num_codes)
            candidates = jax.tree.map(lambda leaf: leaf[ranks % self.num_stages, ranks], candidates)
        update_averages(self, self.average, assigned, candidates)


def _search(
    vectors: Float[Array, "batch position channel"],
    codes: Float[Array, "stage code channel"],
) -> tuple[Int[Array, "stage batch position"], Float[Array, "stage batch position channel"]]:
    """Finds the codes of the stages one after another, and the residual that enters each."""

    def stage(vectors: Array, codes: Array) -> tuple[Array, tuple[Array, Array]]:
        indices = nearest_codes(vectors, codes)
        return vectors - codes[indices], (indices, vectors)

    return jax.lax.scan(stage, vectors, codes)[1]
