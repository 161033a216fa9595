"""Base distributions of flows and priors of latents, as Flax modules with learned parameters.

Every one is called as ``base(context=..., batch_shape=..., temperature=..., encoder=...)`` and
returns a distribution: uniform, Gaussian, mixture and resampled bases, and the VampPrior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaeflow._util.checks import bound, check_labels, check_number, check_sizes
from vaeflow.bijectors import Conditioner
from vaeflow.distributions import FullGaussian, Mixture, Resampled, UniformBox
from vaeflow.distributions.gaussian import Normal
from vaeflow.nn import MLP

__all__ = [
    "Base",
    "BoxBase",
    "CorrelatedGaussianBase",
    "DiagonalGaussianBase",
    "GaussianMixtureBase",
    "LabelledGaussianBase",
    "ResampledBase",
    "VampPrior",
]


class Base(nn.Module):
    """A distribution with learned parameters: the noise of a flow, or the prior of latents.

    A subclass implements `build`. All its fields but `event_shape` are keyword-only.

    Attributes:
      event_shape: Shape of a sample.
    """

    event_shape: tuple[int, ...]

    needs_labels: ClassVar[bool] = False
    """Whether the context must hold integer labels; other bases ignore it."""

    @bound
    def __call__(
        self,
        *,
        context: Array | None = None,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
        encoder: Callable[[Array], distrax.Distribution] | None = None,
    ) -> distrax.Distribution:
        """Builds the distribution.

        Args:
          context: Integer labels ``[*batch]`` where `needs_labels`; otherwise ignored.
          batch_shape: Batch axes of the distribution. Where the base needs labels they are those
            of the labels instead.
          temperature: Factor of the deviation of a sample from the mean; in a mixture, from that of
            its component. An array of float64 makes the distribution one of float64.
          encoder: Ignored, for calls like those of a `VampPrior`.

        Raises:
          ValueError: If a field or the context doesn't fit.
        """
        del encoder
        check_sizes(self)
        temperature = check_number("temperature", temperature, 0)
        return self.distribution(context, tuple(batch_shape), temperature)

    @nn.compact
    def distribution(
        self, context: Array | None, batch_shape: tuple[int, ...], temperature: float
    ) -> distrax.Distribution:
        """Builds the distribution; arguments as in a call."""
        return self.build(context, batch_shape, temperature)

    def initialize(self, values: Array, latents: Array, *, context: Array | None) -> None:
        """Does nothing: no parameter is initialised from the first batch of a VAE."""

    def build(
        self, context: Array | None, batch_shape: tuple[int, ...], temperature: float
    ) -> distrax.Distribution:
        """Creates the parameters and builds the distribution; arguments as in a call."""
        raise NotImplementedError

    def _dimension(self) -> int:
        """Number of dimensions of an event, which must be a vector."""
        if len(self.event_shape) != 1:
            raise ValueError(f"event_shape must be (dimension,), got {self.event_shape}")
        return self.event_shape[0]

    def _normals(self, mean: Array, log_scale: Array, temperature: float) -> distrax.Independent:
        """Builds independent normals in float32 or wider."""
        dtype = jnp.result_type(jnp.float32, mean, log_scale, temperature)
        scale = temperature * jnp.exp(log_scale.astype(dtype))
        normals = Normal(mean.astype(dtype), scale)
        return distrax.Independent(normals, len(self.event_shape))


class BoxBase(Base, kw_only=True):
    """The uniform distribution on a box, which has no parameters.

    The temperature shrinks the box about its centre. Raises a ValueError if `low` isn't below
    `high`.

    Attributes:
      low: Lower end of the interval of each dimension.
      high: Upper end of the interval of each dimension.
    """

    low: float = 0.0
    high: float = 1.0

    def build(self, context, batch_shape, temperature) -> UniformBox:
        """Builds the distribution; arguments as in a call."""
        del context
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        center, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        dtype = jnp.result_type(jnp.float32, temperature)
        shape = (*batch_shape, *self.event_shape)
        low, high = (
            jnp.broadcast_to(jnp.asarray(center + sign * temperature * half, dtype), shape)
            for sign in (-1, 1)
        )
        return UniformBox(low, high, len(self.event_shape))


class DiagonalGaussianBase(Base):
    """Independent normals with learned means and deviations, initially standard."""

    def build(self, context, batch_shape, temperature) -> distrax.Independent:
        """Creates the parameters and builds the distribution; arguments as in a call."""
        del context
        mean = self.param("mean", nn.initializers.zeros, self.event_shape, jnp.float32)
        log_scale = self.param("log_scale", nn.initializers.zeros, self.event_shape, jnp.float32)
        shape = (*batch_shape, *self.event_shape)
        return self._normals(
            jnp.broadcast_to(mean, shape), jnp.broadcast_to(log_scale, shape), temperature
        )


class LabelledGaussianBase(Base, kw_only=True):
    """One Gaussian with learned means and deviations for each class: p(z | y) = N(mu_y, sigma_y^2).

    The context holds labels 0, ..., num_classes - 1; any other that is known raises a ValueError,
    and one that is traced gives NaN. Means are initially standard normal samples, so that classes
    differ, and deviations are one.

    Source: Izmailov, Kirichenko, Finzi & Wilson 2020, "Semi-supervised learning with normalizing
    flows", section 3.

    Attributes:
      num_classes: Number of classes.
    """

    num_classes: int

    needs_labels = True

    def build(self, context, batch_shape, temperature) -> distrax.Independent:
        """Creates the parameters and builds the distribution; arguments as in a call."""
        del batch_shape
        if context is None:
            raise ValueError(
                f"context must hold integer labels of {self.num_classes} classes, got None"
            )
        labels, _ = check_labels("context", context, self.num_classes)
        shape = (self.num_classes, *self.event_shape)
        mean = self.param("mean", nn.initializers.normal(1.0), shape, jnp.float32)
        log_scale = self.param("log_scale", nn.initializers.zeros, shape, jnp.float32)
        # A negative index would count from the end: -1 would be the last class.
        labels = jnp.where(labels < 0, self.num_classes, labels)
        mean, log_scale = (
            leaf.at[labels].get(mode="fill", fill_value=jnp.nan) for leaf in (mean, log_scale)
        )
        return self._normals(mean, log_scale, temperature)


class CorrelatedGaussianBase(Base):
    """A Gaussian of vectors with a learned mean and Cholesky factor L, initially standard.

    L = diag(exp(log_scale)) (I + below), with `below` strictly lower triangular: the diagonal stays
    positive, and the scale of a row is a parameter apart from its direction. Events must be vectors
    ``(dimension,)``; others raise a ValueError.
    """

    def build(self, context, batch_shape, temperature) -> FullGaussian:
        """Creates the parameters and builds the distribution; arguments as in a call."""
        del context
        dimension = self._dimension()
        mean = self.param("mean", nn.initializers.zeros, (dimension,), jnp.float32)
        log_scale = self.param("log_scale", nn.initializers.zeros, (dimension,), jnp.float32)
        below = self.param("below", nn.initializers.zeros, (dimension, dimension), jnp.float32)
        factor = jnp.exp(log_scale)[:, None] * (
            jnp.tril(below, -1) + jnp.eye(dimension, dtype=below.dtype)
        )
        return FullGaussian(
            jnp.broadcast_to(mean, (*batch_shape, dimension)),
            jnp.broadcast_to(temperature * factor, (*batch_shape, dimension, dimension)),
        )


class GaussianMixtureBase(Base, kw_only=True):
    """A mixture of K diagonal Gaussians with learned weights, means and deviations.

    Initially the weights are equal, the means standard normal samples and the deviations one. The
    components can serve as clusters: see `Mixture.log_responsibilities`. Samples carry no gradient
    to the weights, so it is for maximum likelihood rather than for reverse KL. The temperature
    scales the deviations of the components only.

    Attributes:
      num_components: Number of components K.
    """

    num_components: int

    def build(self, context, batch_shape, temperature) -> Mixture:
        """Creates the parameters and builds the distribution; arguments as in a call."""
        del context
        shape = (self.num_components, *self.event_shape)
        logits = self.param("logits", nn.initializers.zeros, (self.num_components,), jnp.float32)
        mean = self.param("mean", nn.initializers.normal(1.0), shape, jnp.float32)
        log_scale = self.param("log_scale", nn.initializers.zeros, shape, jnp.float32)
        components = self._normals(
            jnp.broadcast_to(mean, (*batch_shape, *shape)),
            jnp.broadcast_to(log_scale, (*batch_shape, *shape)),
            temperature,
        )
        return Mixture(jnp.broadcast_to(logits, (*batch_shape, self.num_components)), components)


class ResampledBase(Base, kw_only=True):
    """A resampled base: a standard normal with a learned acceptance probability a(z).

    A flow is a homeomorphism and can't disconnect its base; this density can have holes and
    separate modes. The normalising constant, the mean of a(z) under the normal, is the average over
    2^`log_points` fixed quasi-random points, so that the density is a function of the parameters
    alone. Initially a(z) = 1/2 everywhere and the base is a standard normal. Meant for few
    dimensions: in many the points are too sparse. The temperature scales the samples. Events must
    be vectors ``(dimension,)``; others raise a ValueError.

    Source: Bauer & Mnih 2019, "Resampled priors for variational autoencoders"; as a base, Stimper,
    Schoelkopf & Hernandez-Lobato 2022, "Resampling base distributions of normalizing flows".

    Attributes:
      hidden_sizes: Sizes of the hidden layers of the network.
      truncation: Number T of proposals, of which the last is accepted in any case.
      log_points: Binary logarithm of the number of points.
    """

    hidden_sizes: Sequence[int] = (64, 64)
    truncation: int = 100
    log_points: int = 12

    def build(self, context, batch_shape, temperature) -> Resampled:
        """Creates the parameters and builds the distribution; arguments as in a call."""
        del context
        dimension = self._dimension()
        network = MLP(1, self.hidden_sizes, nn.silu, parent=None)
        points = jnp.asarray(normal_points(dimension, self.log_points))
        if self.is_initializing():
            params = self.param("network", lambda key: network.init(key, points)["params"])
        else:
            params = self.get_variable("params", "network")
        acceptance = Conditioner(network, {"params": params})
        mean_acceptance = jnp.mean(nn.sigmoid(acceptance(points)))
        return Resampled(
            acceptance, mean_acceptance, dimension, self.truncation, batch_shape, temperature
        )


def normal_points(dimension: int, log_count: int) -> Float[np.ndarray, "point dimension"]:
    """Computes 2^log_count quasi-random points of a standard normal.

    Source: Sobol' 1967, scrambled as by Owen 1995, in scipy.
    """
    import scipy.stats  # takes long to import

    uniform = scipy.stats.qmc.Sobol(dimension, seed=0).random_base2(log_count)
    return scipy.stats.norm.ppf(uniform).astype(np.float32)


class VampPrior(nn.Module, kw_only=True):
    """A variational mixture of posteriors: p(z) = (1/K) sum_k q(z | u_k), with learned u_k.

    The pseudo-inputs u_k start as images of the first batch, with a little noise so that copies of
    an image differ.

    Source: Tomczak & Welling 2018, "VAE with a VampPrior", equation 9.

    Attributes:
      num_components: Number K of pseudo-inputs.
      image_shape: Height, width and channels of an image.
    """

    num_components: int
    image_shape: tuple[int, int, int]

    needs_labels: ClassVar[bool] = False

    @bound
    def __call__(
        self,
        *,
        context: Any = None,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
        encoder: Callable[[Array], distrax.Distribution] | None = None,
    ) -> Mixture:
        """Builds the distribution; the call is that of every `Base`.

        Args:
          context: Must be None.
          batch_shape: Must be empty.
          temperature: Must be 1.
          encoder: Computes q(z | u), ``[component]`` distributions, from the pseudo-inputs.

        Raises:
          ValueError: If there is no encoder, or another argument isn't supported.
        """
        if context is not None or tuple(batch_shape) or temperature != 1.0:
            raise ValueError(
                "a VampPrior takes no context, batch_shape or temperature, got context="
                f"{context}, batch_shape={tuple(batch_shape)} and temperature={temperature}"
            )
        if encoder is None:
            raise ValueError("a VampPrior needs the encoder of its VAE, got None")
        return Mixture(jnp.zeros(self.num_components, jnp.float32), encoder(self.pseudo_inputs()))

    def initialize(
        self,
        values: Float[Array, "batch height width channel"],
        latents: Float[Array, "batch latent"],
        *,
        context: Array | None,
    ) -> None:
        """Starts the pseudo-inputs from the values; `init` of a `vaeflow.models.VAE` calls it."""
        del latents, context
        self.pseudo_inputs(values)

    @nn.compact
    def pseudo_inputs(
        self, data: Float[Array, "batch height width channel"] | None = None
    ) -> Float[Array, "component height width channel"]:
        """Returns the pseudo-inputs.

        Args:
          data: Used by `init` only: the batch that they start from; without it they are noise.
        """

        def initial(key: Array) -> Array:
            noise = 0.01 * jax.random.normal(
                key, (self.num_components, *self.image_shape), jnp.float32
            )
            if data is None:
                return noise
            return data[jnp.arange(self.num_components) % len(data)] + noise

        return self.param("inputs", initial)
