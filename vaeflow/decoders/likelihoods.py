"""Likelihood heads, p(x | z) from a decoder's outputs: Bernoulli, Gaussian, logistic, categorical.

Each has `num_parameters` outputs for each dimension and their values `initial` for a first batch:
the protocol of `vaeflow.typing.Likelihood`.
"""

from __future__ import annotations

import math

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.checks import check_bits, check_sizes
from vaeflow.distributions import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogisticMixture,
    PixelCategorical,
)
from vaeflow.distributions.gaussian import Normal
from vaeflow.nn.normalization import column_statistics

LEAST_PROBABILITY = 1e-3
"""Bound on the initial probability of a value that the first batch lacks in a dimension."""


class BernoulliLikelihood(nn.Module):
    """Bernoulli variables, with one logit each; for binarised images."""

    num_parameters = 1
    value_kind = "binary"

    def __call__(self, numbers: Float[Array, "*batch height width channel parameter"]) -> Bernoulli:
        """Builds the distributions of images."""
        return Bernoulli(numbers[..., 0], 3)

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """Logits of the share of ones in the data."""
        share = jnp.clip(jnp.mean(data, axis=0), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return (jnp.log(share) - jnp.log1p(-share))[..., None]


class ContinuousBernoulliLikelihood(nn.Module):
    """Continuous Bernoulli variables on [-1/2, 1/2], one logit each; for dequantized images."""

    num_parameters = 1
    value_kind = "reals"

    def __call__(
        self, numbers: Float[Array, "*batch height width channel parameter"]
    ) -> ContinuousBernoulli:
        """Builds the distributions of images."""
        return ContinuousBernoulli(numbers[..., 0], 3)

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """Logits whose means are near those of the data: 12 m / (1 - 4 m^2) for means m."""
        mean = jnp.clip(jnp.mean(data, axis=0), -0.48, 0.48)
        return (mean * 12 / (1 - 4 * mean**2))[..., None]


SMALLEST_SCALE = 1e-3
"""Least deviation of a dimension: a quarter of an intensity of 8 bits."""


class GaussianLikelihood(nn.Module):
    """Independent normals; for dequantized images.

    The scale is fixed, or one learned number for all dimensions, or an output of the network for
    each dimension.

    Attributes:
      scale: The fixed deviation, or None where it is learned.
      shared: Whether a learned scale is one number for all dimensions.
    """

    scale: float | None = None
    shared: bool = False

    value_kind = "reals"

    @property
    def num_parameters(self) -> int:
        """Number of outputs of the network for each dimension."""
        return 1 if self.scale is not None or self.shared else 2

    @nn.compact
    def __call__(
        self, numbers: Float[Array, "*batch height width channel parameter"]
    ) -> distrax.Independent:
        """Builds the distributions of images.

        Raises:
          ValueError: If a fixed scale isn't positive.
        """
        mean = numbers[..., 0]
        if self.scale is not None:
            if not self.scale > 0:
                raise ValueError(f"scale must be above 0, got {self.scale}")
            scale = jnp.full(mean.shape, self.scale, mean.dtype)
        elif self.shared:
            log_scale = self.param("log_scale", nn.initializers.constant(-1.0), (), jnp.float32)
            scale = jnp.broadcast_to(SMALLEST_SCALE + jnp.exp(log_scale), mean.shape)
        else:
            scale = SMALLEST_SCALE + nn.softplus(numbers[..., 1])
        return distrax.Independent(Normal(mean, scale), 3)

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """The means of the data, and where each dimension has a scale, their deviations."""
        mean, deviation = column_statistics(data)
        if self.num_parameters == 1:
            return mean[..., None]
        deviation = jnp.maximum(deviation, 2 * SMALLEST_SCALE)
        raw = jnp.log(jnp.expm1(deviation - SMALLEST_SCALE))
        return jnp.stack([mean, raw], axis=-1)


SMALLEST_LOGISTIC_SCALE = 1e-4
"""Least scale of a logistic distribution, under a tenth of a cell of 8 bits."""

LOGISTIC_DEVIATION = math.pi / math.sqrt(3)
"""Deviation of a logistic distribution over its scale."""


class DiscretizedLogisticMixtureLikelihood(nn.Module):
    """Mixtures of discretised logistics: integrals over the cells of the intensities.

    One component has a mean and a scale for each dimension; K components have K of each and K
    logits.

    Attributes:
      num_components: Number K of components.
      bits: Bits of an intensity, those of the `vaeflow.models.Discretizer`.
    """

    num_components: int = 1
    bits: int = 8

    value_kind = "levels"

    def __post_init__(self):
        check_sizes(self)
        check_bits(self.bits)
        super().__post_init__()

    @property
    def num_parameters(self) -> int:
        """Number of outputs of the network for each dimension."""
        return 2 if self.num_components == 1 else 3 * self.num_components

    def __call__(
        self, numbers: Float[Array, "*batch height width channel parameter"]
    ) -> DiscretizedLogisticMixture:
        """Builds the distributions of images."""
        mean, raw, *logits = jnp.split(numbers, self.num_parameters // self.num_components, axis=-1)
        logits = logits[0] if logits else jnp.zeros_like(mean)
        scale = SMALLEST_LOGISTIC_SCALE + jax.nn.softplus(raw)
        return DiscretizedLogisticMixture(logits, mean, scale, 3, self.bits)

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """Means spread over two deviations of the data, with matching scales and equal weights."""
        mean, deviation = column_statistics(data)
        deviation = jnp.maximum(deviation, 0.01)
        steps = (
            jnp.linspace(-1, 1, self.num_components, dtype=jnp.float32)
            if self.num_components > 1
            else jnp.zeros(1, jnp.float32)
        )
        scale = deviation / (LOGISTIC_DEVIATION * self.num_components)
        parts = [
            mean[..., None] + steps * deviation[..., None],
            jnp.broadcast_to(
                jnp.log(jnp.expm1(scale))[..., None], (*mean.shape, self.num_components)
            ),
            jnp.zeros((*mean.shape, self.num_components), jnp.float32),
        ]
        return jnp.concatenate(parts[: self.num_parameters // self.num_components], axis=-1)


class CategoricalLikelihood(nn.Module):
    """Categorical variables: one logit for each intensity of each dimension.

    Attributes:
      bits: Bits of an intensity, those of the `vaeflow.models.Discretizer`, for 2^bits logits.
    """

    bits: int = 8

    value_kind = "levels"

    def __post_init__(self):
        check_bits(self.bits)
        super().__post_init__()

    @property
    def num_parameters(self) -> int:
        """Number of outputs of the network for each dimension."""
        return 2**self.bits

    def __call__(
        self, numbers: Float[Array, "*batch height width channel parameter"]
    ) -> PixelCategorical:
        """Builds the distributions of images."""
        return PixelCategorical(numbers, 3)

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """Log-frequencies of the intensities over all dimensions, with one added to each count."""
        levels = jnp.clip(jnp.floor((data + 0.5) * self.num_parameters), 0, self.num_parameters - 1)
        counts = jnp.bincount(levels.ravel().astype(jnp.int32), length=self.num_parameters)
        logits = jnp.log(counts + 1.0) - jnp.log(levels.size + self.num_parameters)
        return jnp.broadcast_to(logits, (*data.shape[1:], self.num_parameters))
