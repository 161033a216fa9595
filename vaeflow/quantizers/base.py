"""`Quantizer`, the interface of quantizers, and its result `Quantized`.

`Quantizer.__call__` validates the features, quantises them by `_quantize` of the subclass, and
isolates latents that aren't finite. `straight_through` and `rotation_trick` are the gradients
through the quantisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vaeflow._util.arrays import LOCAL, Axis, row_keys

Gradient = Callable[[Array, Array], Array]
"""Maps features and their codes to the codes, with a gradient with respect to the features."""


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
    rotated = (
        features
        - 2 * mirror * jnp.sum(mirror * features, axis=-1, keepdims=True)
        + 2 * target * jnp.sum(source * features, axis=-1, keepdims=True)
    )
    scaled = jnp.where(defined, jnp.where(defined, ratio, 1) * rotated, features)
    return codes + (scaled - jax.lax.stop_gradient(scaled))


def unit(x: Float[Array, "*batch channel"]) -> Float[Array, "*batch channel"]:
    """Computes x / ||x||, and 0 with a zero gradient for x = 0."""
    size = _size(x)
    # Squares of components below 1e-19 would be zero, those above 1e19 infinite.
    scaled = jnp.where(size > 0, x, 1) / jnp.where(size > 0, size, 1)
    norm = jnp.sqrt(jnp.sum(jnp.square(scaled), axis=-1, keepdims=True))
    return jnp.where(size > 0, scaled / norm, 0)


def _size(x: Array) -> Array:
    """The largest magnitude of a component; a constant, as directions don't depend on it."""
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


class Vectors(NamedTuple):
    """Features as quantizers work on them.

    Attributes:
      values: ``[batch, position, channel]``, float32 or wider, zero where a latent isn't finite: no
        NaN meets what examples share, in either direction.
      finite: Whether all of a latent is finite, ``[batch, position]``.
    """

    values: Float[Array, "batch position channel"]
    finite: Bool[Array, "batch position"]

    def gather(self, axis: Axis) -> tuple[Float[Array, "row channel"], Bool[Array, " row"]]:
        """Returns all latents of a divided batch, without gradient, and whether each is finite."""
        vectors, finite = axis.gather((jax.lax.stop_gradient(self.values), self.finite))
        return vectors.reshape(-1, vectors.shape[-1]), finite.reshape(-1)


def flatten_features(features: Float[Array, "batch *positions channel"]) -> Vectors:
    """Joins the axes of positions, widens to float32 and zeroes latents that aren't finite."""
    positions = math.prod(features.shape[1:-1])
    values = features.reshape(features.shape[0], positions, features.shape[-1])
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    finite = jnp.all(jnp.isfinite(values), axis=-1)
    return Vectors(jnp.where(finite[..., None], values, 0), finite)


def mean_square(difference: Float[Array, "batch position channel"]) -> Float[Array, " batch"]:
    """Averages the squared length of vectors over the latents of each example."""
    return jnp.mean(jnp.sum(jnp.square(difference), axis=-1), axis=1)


Result = tuple[
    Float[Array, "batch position channel"],
    Int[Array, "batch position *codebooks"],
    dict[str, Float[Array, " batch"]],
]
"""Values, indices and losses of all latents; see `Quantized`."""


class Quantizer(nn.Module):
    """A module that replaces features by the nearest of finitely many codes.

    Whatever the type of the features, it computes in float32 or wider. All that depends on data is
    initialised by `init` from the features given to it. Codes that training learns without
    gradients are kept in the collection "codebook": make it mutable in training and keep the update
    that `apply` returns.

    A subclass has the number `num_codes` of codes of a codebook and implements `_quantize` and
    `lookup`; `__call__` validates, flattens the positions and isolates latents that aren't finite.
    """

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of the indices of one latent: () for a single codebook."""
        return ()

    def __call__(
        self,
        features: Float[Array, "batch *positions channel"],
        rng: Array | None = None,
        *,
        axis: Axis = LOCAL,
        train: bool = False,
        **options: Array | float,
    ) -> Quantized:
        """Quantises features.

        Args:
          features: A batch of feature vectors, any number of them an example.
          rng: A typed key, or one for each row; needed by quantizers that sample in training.
          axis: How the batch is divided: what is learned without gradients, and terms that couple
            rows, are those of all of it.
          train: Whether to sample and to update moving averages, where the quantizer does so.
          **options: Further arguments of a quantizer, such as the temperature of `GumbelQuantizer`.

        Raises:
          ValueError: If the features have the wrong number of channels, a field is out of range,
            or `rng` is missing.
        """
        self._check_fields()
        _check_features(type(self).__name__, features.shape, self._num_channels())
        vectors = flatten_features(features)
        values, indices, losses = self._quantize(vectors, rng, axis=axis, train=train, **options)
        codebooks = indices.shape[2:]
        finite = vectors.finite
        valid = finite.reshape(*finite.shape, *[1] * len(codebooks))
        indices = jnp.where(valid, indices, -1).astype(jnp.int32)
        finite_example = jnp.all(finite, axis=1)
        return Quantized(
            jnp.where(finite[..., None], values, jnp.nan).reshape(features.shape),
            indices.reshape(*features.shape[:-1], *codebooks),
            {name: jnp.where(finite_example, loss, jnp.nan) for name, loss in losses.items()},
            count_codes(indices.reshape(-1, *codebooks), self.num_codes),
        )

    def lookup(self, indices: Int[Array, "*batch_and_codebooks"]) -> Float[Array, "*batch channel"]:
        """Returns the values of codes; NaN for an index out of range.

        Args:
          indices: Indices, with any axes before those of `code_shape`.

        Raises:
          ValueError: If the trailing axes aren't those of `code_shape`.
        """
        raise NotImplementedError

    def _quantize(self, vectors: Vectors, rng: Array | None, *, axis: Axis, train: bool) -> Result:
        """Quantises flattened features, all of which are finite."""
        raise NotImplementedError

    def _num_channels(self) -> int | None:
        """Number of channels of the codes, or None before they are initialised."""
        raise NotImplementedError

    def _check_fields(self) -> None:
        """Raises a ValueError if a field is out of range."""
        if not 1 <= self.num_codes <= MOST_CODES:
            raise ValueError(
                f"{type(self).__name__}: num_codes must be in 1..{MOST_CODES}, got {self.num_codes}"
            )

    def _row_keys(self, rng: Array | None, count: int, purpose: str) -> Array:
        """Returns a key for each row, or raises a ValueError if there is no `rng`."""
        if rng is None:
            raise ValueError(f"{type(self).__name__}: rng must be given for {purpose}, got None")
        return row_keys(rng, count)


def check_axes(shape: tuple[int, ...]) -> None:
    """Raises a ValueError if features lack a batch axis or a channel axis."""
    if len(shape) < 2:
        raise ValueError(f"features must have shape [batch, *positions, channel], got {shape}")


def _check_features(name: str, shape: tuple[int, ...], channels: int | None) -> None:
    check_axes(shape)
    if channels is not None and shape[-1] != channels:
        raise ValueError(
            f"{name}: expected features of shape {(*shape[:-1], channels)}, got {shape}"
        )


def count_codes(
    indices: Int[Array, "row *codebooks"], num_codes: int
) -> Int[Array, "*codebooks code"]:
    """Counts the indices of each codebook; an index of -1 counts nowhere."""
    if indices.ndim > 1:
        return jax.vmap(count_codes, (-1, None))(indices, num_codes)
    places = jnp.where(indices < 0, num_codes, indices)
    return jnp.zeros(num_codes, jnp.int32).at[places].add(1, mode="drop")


def lookup_codes(
    codes: Float[Array, "code channel"], indices: Int[Array, "*batch"]
) -> Float[Array, "*batch channel"]:
    """Returns rows of a codebook, NaN for an index out of range."""
    rows = codes[jnp.clip(indices, 0, len(codes) - 1)]
    return nan_out_of_range(rows, indices, len(codes))


def nan_out_of_range(
    values: Float[Array, "*batch channel"], indices: Int[Array, "*batch"], num_codes: int
) -> Float[Array, "*batch channel"]:
    """Replaces the values of indices out of range by NaN."""
    inside = (indices >= 0) & (indices < num_codes)
    return jnp.where(inside[..., None], values, jnp.nan)
