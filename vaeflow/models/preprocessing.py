"""Preprocessing of uint8 images: dequantization with its log-det, binarisation, discretisation.

All four are called as ``preprocessor(images, keys)``, return `Dequantized` and invert themselves up
to noise by `quantize`: the protocol of `vaeflow.typing.Preprocessor`.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vaeflow._util.checks import as_array, check_bits, check_part
from vaeflow.distributions import standard_normal
from vaeflow.typing import Flow, ValueKind


class Dequantized(NamedTuple):
    """Real-valued images, and the log-det of the map that made them.

    Attributes:
      values: Float32, of the shape of the images; in [-0.5, 0.5), or binary in [0, 1].
      log_det: ``[batch]``, nats: log P(image) >= log p(values) + log_det, for the log-density p of
        the values.
    """

    values: Float[Array, "batch height width channel"]
    log_det: Float[Array, " batch"]


FLOW_ATTRIBUTES = ("event_shape", "noise_shape", "num_classes", "context_ndims")
"""What models need of a flow."""


def check_observation(observation: nn.Module, decoder: nn.Module) -> None:
    """Checks that the likelihood of a decoder is one of the values of a preprocessor.

    Raises:
      ValueError: If the kinds of their values or, of levels, the numbers of bits differ. A part
        that has no `value_kind` fits any.
    """
    check_part("observation", observation, "a preprocessor", ("quantize",))
    likelihood = getattr(decoder, "likelihood", None)
    kinds = getattr(observation, "value_kind", None), getattr(likelihood, "value_kind", None)
    if None in kinds:
        return
    names = type(observation).__name__, type(likelihood).__name__
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"observation and likelihood must be of values of one kind, got a {names[0]} of "
            f"{kinds[0]} and a {names[1]} of {kinds[1]}"
        )
    if kinds[0] == "levels" and observation.bits != likelihood.bits:
        raise ValueError(
            f"observation and likelihood must have one number of bits, got a {names[0]} of "
            f"{observation.bits} and a {names[1]} of {likelihood.bits}"
        )


class _Cells(nn.Module):
    """Base of the preprocessors whose values lie in 2^bits cells of [-1/2, 1/2)."""

    value_kind: ClassVar[ValueKind] = "reals"

    def quantize(
        self, values: Float[Array, "*batch height width channel"]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Returns the images whose cells hold the values, clipped to the range; noise is lost."""
        return quantize_values(values, self.bits)


class UniformDequantizer(_Cells):
    """Uniform dequantization: adds uniform noise to images of 2^bits intensities.

    values = (k + u) / 2^bits - 1/2, where k = floor(image / 2^(8 - bits)) and u is uniform in
    [0, 1). As the probability of k is the density integrated over its cube, Jensen's inequality
    gives log P(k) >= E_u log p(values) - D bits log 2 for D dimensions.

    Source: Theis, van den Oord & Bethge 2016, "A note on the evaluation of generative models",
    section 3.1.

    Attributes:
      bits: Number of the 8 bits of each dimension that are kept, 1 to 8.
    """

    bits: int = 8

    def __call__(
        self, images: UInt8[Array, "batch height width channel"], keys: Array
    ) -> Dequantized:
        """Dequantizes images.

        Args:
          images: Images of dtype uint8.
          keys: A typed key for each row, ``[batch]``.

        Raises:
          ValueError: If the images aren't uint8, or bits isn't in 1, ..., 8.
        """
        levels = quantize_levels(images, self.bits)
        uniform = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], jnp.float32))(keys)
        return _dequantized(levels, uniform, self.bits, jnp.zeros(images.shape[:1], jnp.float32))


class VariationalDequantizer(_Cells):
    """Variational dequantization: adds noise from a flow that is conditioned on the image.

    values = (k + u) / 2^bits - 1/2 with u = sigmoid(f(e; image)) and e standard normal, so that
    log P(k) >= E_e [log p(values) - log q(u | image)] - D bits log 2, with
    log q(u | image) = log N(e) - log|det df/de| - sum log sigmoid'(f(e)). With the flow at the
    identity u is nearly uniform; training makes the bound tighter.

    Source: Ho, Chen, Srinivas, Duan & Abbeel 2019, "Flow++", section 3.1.

    Attributes:
      flow: A flow over images, with feature maps of the image (values in [-0.5, 0.5), its channels)
        as context, such as `vaeflow.flows.Glow` with ``context_ndims=3``.
      bits: Number of the 8 bits of each dimension that are kept, 1 to 8.
    """

    flow: Flow
    bits: int = 8

    def __post_init__(self):
        check_part("flow", self.flow, "a flow", FLOW_ATTRIBUTES)
        if len(self.flow.event_shape) != 3 or self.flow.context_ndims != 3:
            raise ValueError(
                "flow must be of images given maps of features, context_ndims=3, got a "
                f"{type(self.flow).__name__} of event_shape={tuple(self.flow.event_shape)} and "
                f"context_ndims={self.flow.context_ndims}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: UInt8[Array, "batch height width channel"], keys: Array
    ) -> Dequantized:
        """Dequantizes images; arguments and errors are those of `UniformDequantizer`."""
        levels = quantize_levels(images, self.bits)
        context = (levels + 0.5) / 2**self.bits - 0.5
        shape = self.flow.noise_shape
        noise = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
        logits, log_det = self.flow(context=context).forward_and_log_det(noise)
        log_sigmoid_slope = jax.nn.log_sigmoid(logits) + jax.nn.log_sigmoid(-logits)
        log_q = (
            standard_normal(shape).log_prob(noise)
            - log_det
            - jnp.sum(log_sigmoid_slope, axis=(1, 2, 3))
        )
        return _dequantized(levels, jax.nn.sigmoid(logits), self.bits, log_q)


class Discretizer(_Cells):
    """Discretisation: maps the intensities of an image to the centres of 2^bits cells.

    values = (k + 1/2) / 2^bits - 1/2 with k = floor(image / 2^(8 - bits)), without noise, in
    [-1/2, 1/2): for likelihoods that give each intensity a probability.

    Attributes:
      bits: Number of the 8 bits of each dimension that are kept, 1 to 8.
    """

    bits: int = 8

    value_kind = "levels"

    def __call__(
        self, images: UInt8[Array, "batch height width channel"], keys: Array | None = None
    ) -> Dequantized:
        """Scales images; `log_det` is zero.

        Args:
          images: Images of dtype uint8.
          keys: Ignored.

        Raises:
          ValueError: If the images aren't uint8, or bits isn't in 1, ..., 8.
        """
        del keys
        values = (quantize_levels(images, self.bits) + 0.5) / 2**self.bits - 0.5
        return Dequantized(values, jnp.zeros(images.shape[:1], jnp.float32))


class Binarizer(nn.Module):
    """Dynamic binarisation: samples each dimension as 1 with probability image / 255, else 0.

    Intensities are probabilities, sampled again at every call, and likelihoods are of the binary
    images: for a Bernoulli likelihood.

    Source: Salakhutdinov & Murray 2008, "On the quantitative analysis of deep belief networks";
    Burda, Grosse & Salakhutdinov 2016, section 5.
    """

    bits = 1
    value_kind = "binary"

    def __call__(
        self, images: UInt8[Array, "batch height width channel"], keys: Array
    ) -> Dequantized:
        """Samples binary images; `log_det` is zero.

        Args:
          images: Images of dtype uint8.
          keys: A typed key for each row, ``[batch]``.

        Raises:
          ValueError: If the images aren't uint8.
        """
        probability = quantize_levels(images, 8) / 255
        uniform = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], jnp.float32))(keys)
        values = (uniform < probability).astype(jnp.float32)
        return Dequantized(values, jnp.zeros(images.shape[:1], jnp.float32))

    def quantize(
        self, values: Float[Array, "*batch height width channel"]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Returns 255 times the values, which may be probabilities, rounded."""
        return jnp.round(255 * jnp.clip(values, 0, 1)).astype(jnp.uint8)


def quantize_levels(images: Array, bits: int) -> Array:
    """Drops the low bits of uint8 images: float32 integers 0, ..., 2^bits - 1.

    Raises:
      ValueError: If the images aren't uint8 [batch, height, width, channel], or bits isn't in
        1, ..., 8.
    """
    images = as_array("images", images)
    check_bits(bits)
    if images.dtype != jnp.uint8 or images.ndim != 4:
        raise ValueError(
            "images must be uint8 [batch, height, width, channel], got "
            f"{images.dtype} of shape {images.shape}"
        )
    return (images >> (8 - bits)).astype(jnp.float32)


def quantize_values(values: Array, bits: int) -> Array:
    """Inverts the scaling of a dequantizer: the uint8 intensity whose cell holds each value."""
    levels = jnp.clip(jnp.floor((values + 0.5) * 2**bits), 0, 2**bits - 1).astype(jnp.uint8)
    return levels << (8 - bits)


def _dequantized(levels: Array, noise: Array, bits: int, log_q: Array) -> Dequantized:
    """Adds noise of [0, 1) and log density log_q to the levels, and scales to [-1/2, 1/2)."""
    # In float32 the sum may round up to the next level; this bound keeps it in its cell.
    noise = jnp.minimum(noise, 1 - 2.0**-14)
    size = math.prod(levels.shape[1:])
    values = (levels + noise) / 2**bits - 0.5
    return Dequantized(values, -log_q - size * bits * math.log(2))
