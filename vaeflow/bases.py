"""Base distributions with learned parameters."""

from __future__ import annotations

from collections.abc import Sequence

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vaeflow.bijectors import Conditioner
from vaeflow.distributions import FullGaussian, Mixture, Resampled, UniformBox
from vaeflow.nn import MLP

__all__ = [
    "BoxBase",
    "CorrelatedGaussianBase",
    "DiagonalGaussianBase",
    "GaussianMixtureBase",
    "LabelledGaussianBase",
    "ResampledBase",
    "VampPrior",
]


class BoxBase(nn.Module):
    """A uniform distribution on a box that isn't learned.

    Attributes:
      event_shape: Shape of a sample.
      low: Lower end of the interval of each entry.
      high: Upper end, above `low`.
    """

    event_shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0

    needs_labels = False

    def __call__(
        self,
        context: Array | None = None,
        *,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ) -> UniformBox:
        """Builds the distribution; the context is ignored.

        Args:
          context: Anything.
          batch_shape: Batch axes of the distribution.
          temperature: Factor by which the box shrinks about its middle.

        Raises:
          ValueError: If `low` isn't below `high`.
        """
        del context
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        shape = (*batch_shape, *self.event_shape)
        low, high = (
            jnp.broadcast_to(jnp.float32(middle + sign * temperature * half), shape)
            for sign in (-1, 1)
        )
        return UniformBox(low, high, len(self.event_shape))


class DiagonalGaussianBase(nn.Module):
    """Independent normals with learned means and deviations, standard at first.

    Attributes:
      event_shape: Shape of a sample.
    """

    event_shape: tuple[int, ...]

    needs_labels = False

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ) -> distrax.Distribution:
        """Builds the distribution; the context is ignored.

        Args:
          context: Anything.
          batch_shape: Batch axes of the distribution.
          temperature: Factor of the deviations.
        """
        del context
        mean = self.param("mean", nn.initializers.zeros, self.event_shape)
        log_scale = self.param("log_scale", nn.initializers.zeros, self.event_shape)
        shape = (*batch_shape, *self.event_shape)
        return independent_normals(
            jnp.broadcast_to(mean, shape), jnp.broadcast_to(log_scale, shape), temperature, self
        )


class LabelledGaussianBase(nn.Module):
    """Independent normals with learned means and deviations for each class.

    The means are drawn from a standard normal at first, so that classes differ from the start, and
    the deviations are one.

    Source: Izmailov, Kirichenko, Finzi & Wilson 2020, "Semi-supervised learning with normalizing
    flows", section 3.

    Attributes:
      event_shape: Shape of a sample.
      num_classes: Number of classes.
    """

    event_shape: tuple[int, ...]
    num_classes: int

    needs_labels = True

    @nn.compact
    def __call__(
        self,
        context: Int[Array, "*batch"],
        *,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ) -> distrax.Distribution:
        """Builds the distribution.

        Args:
          context: Labels from 0 on; a label beyond the classes gives NaN.
          batch_shape: Ignored: the batch axes are those of the labels.
          temperature: Factor of the deviations.

        Raises:
          ValueError: If the context isn't made of integers.
        """
        del batch_shape
        if context is None or not jnp.issubdtype(jnp.asarray(context).dtype, jnp.integer):
            given = None if context is None else f"dtype {jnp.asarray(context).dtype}"
            raise ValueError(
                f"context must hold integer labels of {self.num_classes} classes, got {given}"
            )
        shape = (self.num_classes, *self.event_shape)
        mean = self.param("mean", nn.initializers.normal(1.0), shape)
        log_scale = self.param("log_scale", nn.initializers.zeros, shape)
        labels = jnp.asarray(context)
        # Indexing from the end would take -1 for the last class.
        labels = jnp.where(labels < 0, self.num_classes, labels)
        mean, log_scale = (
            leaf.at[labels].get(mode="fill", fill_value=jnp.nan) for leaf in (mean, log_scale)
        )
        return independent_normals(mean, log_scale, temperature, self)


class CorrelatedGaussianBase(nn.Module):
    """A Gaussian of vectors with a learned mean and Cholesky factor, standard at first.

    The factor L is unit lower triangular with its rows scaled by exp(log_scale): its diagonal stays
    positive and its rows' shape apart from their size.

    Attributes:
      event_shape: Shape of a sample: (dimension,).
    """

    event_shape: tuple[int]

    needs_labels = False

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ) -> FullGaussian:
        """Builds the distribution; arguments as for `DiagonalGaussianBase`.

        Raises:
          ValueError: If events aren't vectors.
        """
        del context
        if len(self.event_shape) != 1:
            raise ValueError(f"event_shape must be (dimension,), got {self.event_shape}")
        (dimension,) = self.event_shape
        mean = self.param("mean", nn.initializers.zeros, (dimension,))
        log_scale = self.param("log_scale", nn.initializers.zeros, (dimension,))
        below = self.param("below", nn.initializers.zeros, (dimension, dimension))
        factor = jnp.exp(log_scale)[:, None] * (jnp.tril(below, -1) + jnp.eye(dimension))
        return FullGaussian(
            jnp.broadcast_to(mean, (*batch_shape, dimension)),
            jnp.broadcast_to(temperature * factor, (*batch_shape, dimension, dimension)),
        )


def independent_normals(
    mean: Array, log_scale: Array, temperature: float, module: nn.Module
) -> distrax.Independent:
    """Builds normals in float32, of events of the module's shape."""
    scale = temperature * jnp.exp(log_scale.astype(jnp.float32))
    return distrax.Independent(
        distrax.Normal(mean.astype(jnp.float32), scale), len(module.event_shape)
    )


class GaussianMixtureBase(nn.Module):
    """A mixture of K diagonal Gaussians with learned weights, means and deviations.

    At first the weights are equal, the means standard normal and the deviations one. The
    distribution tells clusters apart: see `Mixture.log_responsibilities`. Its samples carry no
    gradient to the weights, so it is for maximum likelihood rather than for reverse KL.

    Attributes:
      event_shape: Shape of a sample.
      num_components: Number of components K.
    """

    event_shape: tuple[int, ...]
    num_components: int

    needs_labels = False

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ) -> Mixture:
        """Builds the distribution; the context is ignored.

        Args:
          context: Anything.
          batch_shape: Batch axes of the distribution.
          temperature: Factor of the deviations of each component; means and weights stay.
        """
        del context
        shape = (self.num_components, *self.event_shape)
        logits = self.param("logits", nn.initializers.zeros, (self.num_components,))
        mean = self.param("mean", nn.initializers.normal(1.0), shape)
        log_scale = self.param("log_scale", nn.initializers.zeros, shape)
        components = independent_normals(
            jnp.broadcast_to(mean, (*batch_shape, *shape)),
            jnp.broadcast_to(log_scale, (*batch_shape, *shape)),
            temperature,
            self,
        )
        return Mixture(jnp.broadcast_to(logits, (*batch_shape, self.num_components)), components)


class ResampledBase(nn.Module):
    """A standard normal whose draws are accepted with a learned probability: modes, holes, rings.

    A flow can't tear its base apart; this one may have gaps. The share that is accepted, which the
    density needs, is the average over 2^`log_points` fixed points of low discrepancy, so that the
    density is a function of the parameters alone. At first every other draw is accepted, whatever
    it is, and the base is a standard normal. Meant for few entries: the points thin out in many.

    Source: Bauer & Mnih 2019, "Resampled priors for variational autoencoders"; as a base, Stimper,
    Schoelkopf & Hernandez-Lobato 2022, "Resampling base distributions of normalizing flows".

    Attributes:
      event_shape: Shape of a sample: (dimension,).
      hidden_sizes: Sizes of the hidden layers of the network.
      truncation: Number T of draws of which the last is taken in any case.
      log_points: Binary logarithm of the number of points.
    """

    event_shape: tuple[int]
    hidden_sizes: Sequence[int] = (64, 64)
    truncation: int = 100
    log_points: int = 12

    needs_labels = False

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ) -> Resampled:
        """Builds the distribution; the context is ignored.

        Args:
          context: Anything.
          batch_shape: Batch axes of the distribution.
          temperature: Factor of the samples.

        Raises:
          ValueError: If events aren't vectors.
        """
        del context
        if len(self.event_shape) != 1:
            raise ValueError(f"event_shape must be (dimension,), got {self.event_shape}")
        (dimension,) = self.event_shape
        network = MLP(1, self.hidden_sizes, nn.silu, parent=None)
        points = jnp.asarray(normal_points(dimension, self.log_points))
        if self.is_initializing():
            parameters = self.param("network", lambda key: network.init(key, points)["params"])
        else:
            parameters = self.get_variable("params", "network")
        acceptance = Conditioner(network, {"params": parameters})
        share = jnp.mean(nn.sigmoid(acceptance(points)))
        return Resampled(acceptance, share, dimension, self.truncation, batch_shape, temperature)


def normal_points(dimension: int, log_count: int) -> Float[np.ndarray, "point dimension"]:
    """Spreads 2^log_count points as a standard normal does, more evenly than chance.

    Source: Sobol' 1967, scrambled as by Owen 1995, in scipy.
    """
    import scipy.stats

    uniform = scipy.stats.qmc.Sobol(dimension, seed=0).random_base2(log_count)
    return scipy.stats.norm.ppf(uniform).astype(np.float32)


class VampPrior(nn.Module):
    """Pseudo-inputs u_1, ..., u_K, learned, whose posteriors mix to p(z) = (1/K) sum_k q(z | u_k).

    `VAE` sends them through its encoder, which is where the name comes from: a variational mixture
    of posteriors. They start as images of the first batch, with a little noise so that repeated
    ones part.

    Source: Tomczak & Welling 2018, "VAE with a VampPrior", equation 9.

    Attributes:
      num_components: Number K of pseudo-inputs.
      image_shape: Height, width and channels of an image.
    """

    num_components: int
    image_shape: tuple[int, int, int]

    @nn.compact
    def __call__(
        self, *, data: Float[Array, "batch height width channel"] | None = None
    ) -> Float[Array, "component height width channel"]:
        """Returns the pseudo-inputs.

        Args:
          data: In `init` alone: the batch that they start from; without it they are noise.
        """

        def initial(key: Array) -> Array:
            noise = 0.01 * jax.random.normal(key, (self.num_components, *self.image_shape))
            if data is None:
                return noise
            return data[jnp.arange(self.num_components) % len(data)] + noise

        return self.param("inputs", initial)
