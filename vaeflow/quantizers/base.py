"""The quantizer interface: checks, results, and gradients through the quantisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vaeflow._util.axis import LOCAL, Axis
from vaeflow._util.random import row_keys

Gradient = Callable[[Array, Array], Array]
"""From features and their codes to the codes, with a gradient toward the features."""


def straight_through(
    features: Float[Array, "*batch channel"], codes: Float[Array, "*batch channel"]
) -> Float[Array, "*batch channel"]:
    """Returns the codes; the gradient passes to the features as it is: dq/dx = I.

    Source: Bengio, Leonard & Courville 2013, "Estimating or propagating gradients through
    stochastic neurons"; van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation
    learning", section 3.2.
    """
    # x - x is exactly zero, so the values are exactly those of the codes.
    return jax.lax.stop_gradient(codes) + (features - jax.lax.stop_gradient(features))


def rotation_trick(
    features: Float[Array, "*batch channel"], codes: Float[Array, "*batch channel"]
) -> Float[Array, "*batch channel"]:
    """Returns the codes; dq/dx = (||e|| / ||x||) R, the rotation and scaling that takes x to e.

    R = I - 2 r r^T + 2 e' x'^T with the directions e' and x' and r = (x' + e') / ||x' + e'||, all
    held constant. The gradient keeps its angle to the code: features far from their code are
    pushed, and not only moved along with it. Where a length is zero, the gradient is that of
    `straight_through`.

    Source: Fifty et al. 2024, "Restructuring vector quantization with the rotation trick",
    section 4.
    """
    codes = jax.lax.stop_gradient(codes)
    constant = jax.lax.stop_gradient(features)
    source, target = unit(constant), unit(codes)
    mirror = unit(source + target)
    ratio = _length(codes) / _length(constant)
    defined = (ratio > 0) & jnp.isfinite(ratio)
    turned = (
        features
        - 2 * mirror * jnp.sum(mirror * features, axis=-1, keepdims=True)
        + 2 * target * jnp.sum(source * features, axis=-1, keepdims=True)
    )
    moved = jnp.where(defined, jnp.where(defined, ratio, 1) * turned, features)
    return codes + (moved - jax.lax.stop_gradient(moved))


def unit(x: Float[Array, "*batch channel"]) -> Float[Array, "*batch channel"]:
    """Computes x / ||x||, and 0 with a zero gradient for x = 0."""
    size = _size(x)
    # Squares of entries below 1e-19 would be zero, those above 1e19 infinite.
    scaled = jnp.where(size > 0, x, 1) / jnp.where(size > 0, size, 1)
    norm = jnp.sqrt(jnp.sum(jnp.square(scaled), axis=-1, keepdims=True))
    return jnp.where(size > 0, scaled / norm, 0)


def _size(x: Array) -> Array:
    """The largest entry in size; a constant, as directions don't depend on it."""
    return jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0))


def _length(x: Array) -> Array:
    size = _size(x)
    scaled = x / jnp.where(size > 0, size, 1)
    return size * jnp.sqrt(jnp.sum(jnp.square(scaled), axis=-1, keepdims=True))


MOST_CODES = 2**24
"""Most codes of one codebook: each is counted."""


class Quantized(NamedTuple):
    """Features in terms of codes.

    A latent is the vector at one position of one example. One that isn't finite has NaN values and
    the index -1, and its example NaN losses; it is counted nowhere.

    Attributes:
      values: Quantised values, ``[batch, *positions, channel]``, float32 or wider, with the
        gradient of the quantizer's rule.
      indices: Index of each latent's code, ``[batch, *positions, *codebooks]``, int32; -1 where
        there is none.
      losses: Terms to be minimised by name, each ``[batch]``: "commitment" and "codebook", squared
        distances, and "entropy", in nats, averaged over the latents of an example; "kl", in nats,
        added up over them. What several codebooks contribute to a latent is added up, as are the
        squares of all channels. (Much published code averages over channels too, so that its
        weights are larger by their number.)
      counts: How many of the given latents have each code, ``[*codebooks, code]``, int32. Counts
        of batches and of devices add up; see `vaeflow.metrics.code_perplexity`.
    """

    values: Float[Array, "batch *positions channel"]
    indices: Int[Array, "batch *positions_and_codebooks"]
    losses: dict[str, Float[Array, " batch"]]
    counts: Int[Array, "*codebooks code"]


class Quantizer(nn.Module):
    """A module that replaces features by the nearest of finitely many codes.

    Whatever the type of the features, it computes in float32 or wider. All that depends on data is
    initialised by `init` from the features given to it. What training learns without gradients is
    kept in the collection "codebook"; whoever trains makes it mutable and keeps what comes back.

    Each has the number `codes` of codes of a codebook.
    """

    @property
    def codebooks(self) -> tuple[int, ...]:
        """Shape of the indices of one latent: () for a single codebook."""
        return ()

    def __call__(
        self,
        features: Float[Array, "batch *positions channel"],
        rng: Array | None = None,
        *,
        axis: Axis = LOCAL,
        train: bool = False,
    ) -> Quantized:
        """Quantises features.

        Args:
          features: A batch of feature vectors, any number of them an example.
          rng: A typed key, or one for each row; needed by what is random in training.
          axis: How the batch is divided: what is learned without gradients, and terms that couple
            rows, are those of all of it.
          train: Whether to draw and to learn what the quantizer draws and learns.

        Raises:
          ValueError: If the features have the wrong number of channels, a field is out of range,
            or `rng` is missing.
        """
        raise NotImplementedError

    def lookup(self, indices: Int[Array, "*batch_and_codebooks"]) -> Float[Array, "*batch channel"]:
        """Returns the values of codes; NaN for an index out of range.

        Args:
          indices: Indices, with any axes before those of `codebooks`.

        Raises:
          ValueError: If the trailing axes aren't those of `codebooks`.
        """
        raise NotImplementedError


class Latents(NamedTuple):
    """Features as quantizers see them.

    Attributes:
      values: ``[batch, position, channel]``, float32 or wider, zero where a latent isn't finite: no
        NaN meets what examples share, in either direction.
      finite: Whether all of a latent is finite, ``[batch, position]``.
    """

    values: Float[Array, "batch position channel"]
    finite: Bool[Array, "batch position"]

    def gathered(self, axis: Axis) -> tuple[Float[Array, "row channel"], Bool[Array, " row"]]:
        """All latents of a divided batch, without gradient, and whether each is finite."""
        vectors, finite = axis.gather((jax.lax.stop_gradient(self.values), self.finite))
        return vectors.reshape(-1, vectors.shape[-1]), finite.reshape(-1)

    def mean(self, terms: Float[Array, "batch position"]) -> Float[Array, " batch"]:
        """Averages over the latents of each example."""
        return jnp.mean(terms, axis=1)

    def mean_square(
        self, difference: Float[Array, "batch position channel"]
    ) -> Float[Array, " batch"]:
        """Averages the squared length of vectors over the latents of each example."""
        return self.mean(jnp.sum(jnp.square(difference), axis=-1))


def latents_of(features: Float[Array, "batch *positions channel"]) -> Latents:
    """Widens and cleans features.

    Raises:
      ValueError: If they lack a batch axis or a channel axis.
    """
    check_axes(features.shape)
    positions = math.prod(features.shape[1:-1])
    values = features.reshape(features.shape[0], positions, features.shape[-1])
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    finite = jnp.all(jnp.isfinite(values), axis=-1)
    return Latents(jnp.where(finite[..., None], values, 0), finite)


def quantized(
    features: Float[Array, "batch *positions channel"],
    latents: Latents,
    values: Float[Array, "batch position channel"],
    indices: Int[Array, "batch position *codebooks"],
    losses: dict[str, Float[Array, " batch"]],
    codes: int,
) -> Quantized:
    """Gives results the shape of the features, and NaN where those weren't finite."""
    finite = latents.finite
    codebooks = indices.shape[2:]
    own = finite.reshape(*finite.shape, *[1] * len(codebooks))
    indices = jnp.where(own, indices, -1).astype(jnp.int32)
    whole = jnp.all(finite, axis=1)
    return Quantized(
        jnp.where(finite[..., None], values, jnp.nan).reshape(features.shape),
        indices.reshape(*features.shape[:-1], *codebooks),
        {name: jnp.where(whole, loss, jnp.nan) for name, loss in losses.items()},
        count_codes(indices.reshape(-1, *codebooks), codes),
    )


def count_codes(indices: Int[Array, "row *codebooks"], codes: int) -> Int[Array, "*codebooks code"]:
    """Counts the indices of each codebook; an index of -1 counts nowhere."""
    if indices.ndim > 1:
        return jax.vmap(count_codes, (-1, None))(indices, codes)
    places = jnp.where(indices < 0, codes, indices)
    return jnp.zeros(codes, jnp.int32).at[places].add(1, mode="drop")


def take(
    codes: Float[Array, "code channel"], indices: Int[Array, "*batch"]
) -> Float[Array, "*batch channel"]:
    """Takes rows of a codebook, NaN for an index out of range."""
    return blank_outside(codes[jnp.clip(indices, 0, len(codes) - 1)], indices, len(codes))


def blank_outside(
    values: Float[Array, "*batch channel"], indices: Int[Array, "*batch"], codes: int
) -> Float[Array, "*batch channel"]:
    """Puts NaN where an index is out of range."""
    inside = (indices >= 0) & (indices < codes)
    return jnp.where(inside[..., None], values, jnp.nan)


def check_axes(shape: tuple[int, ...]) -> None:
    """Refuses features without a batch axis or a channel axis.

    Raises:
      ValueError: If they lack one.
    """
    if len(shape) < 2:
        raise ValueError(f"features must have shape [batch, *positions, channel], got {shape}")


def check_channels(name: str, shape: tuple[int, ...], channels: int) -> None:
    """Refuses features with another number of channels.

    Raises:
      ValueError: If they differ; both shapes are quoted.
    """
    if shape[-1] != channels:
        raise ValueError(
            f"{name}: expected features of shape {(*shape[:-1], channels)}, got {shape}"
        )


def check_codes(name: str, codes: int) -> None:
    """Refuses a number of codes that is out of range."""
    if not 1 <= codes <= MOST_CODES:
        raise ValueError(f"{name}: the number of codes must be in 1..{MOST_CODES}, got {codes}")


def needed_keys(name: str, rng: Array | None, count: int, purpose: str) -> Array:
    """Makes the keys of rows, where there must be some.

    Raises:
      ValueError: If there is no `rng`.
    """
    if rng is None:
        raise ValueError(f"{name}: rng must be given for {purpose}, got None")
    return row_keys(rng, count)
