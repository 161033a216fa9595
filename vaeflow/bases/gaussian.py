"""Learned Gaussians."""

from __future__ import annotations

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int

from vaeflow.distributions import FullGaussian


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
      classes: Number of classes.
    """

    event_shape: tuple[int, ...]
    classes: int

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
                f"context must hold integer labels of {self.classes} classes, got {given}"
            )
        shape = (self.classes, *self.event_shape)
        mean = self.param("mean", nn.initializers.normal(1.0), shape)
        log_scale = self.param("log_scale", nn.initializers.zeros, shape)
        labels = jnp.asarray(context)
        # Indexing from the end would take -1 for the last class.
        labels = jnp.where(labels < 0, self.classes, labels)
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
