r"""Gaussian densities of images: baselines that a density model must beat.

All are densities q of y = x + u in levels, u uniform on [0, 1) in each dimension, and
``log_prob`` is the expectation over u of log q(x + u): the same lower bound on log P(x) of 8-bit
images that a flow with uniform dequantisation has. It is computed in closed form, without drawing
u: for precision P and mean m,

.. math:: E_u (x + u - m)^T P (x + u - m) = (x + 1/2 - m)^T P (x + 1/2 - m) + tr(P) / 12.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from vaeflow.metrics.checks import as_images
from vaeflow.metrics.variances import NOISE_VARIANCE, smooth_variances

_SHRINKAGES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, *(step / 20 for step in range(2, 21)))


@dataclasses.dataclass(frozen=True)
class DiagonalGaussian:
    """Independent Gaussians, one for each pixel and channel; see `fit_diagonal_gaussian`.

    Attributes:
      mean: Mean of the dequantised levels, shape [height, width, channel].
      variance: Their variance, of the same shape.
    """

    mean: Float[np.ndarray, "height width channel"]
    variance: Float[np.ndarray, "height width channel"]

    def log_prob(
        self, images: UInt8[np.ndarray, "batch height width channel"]
    ) -> Float[np.ndarray, "batch"]:
        """Computes the uniform-dequantisation bound on log P(images), in nats, shape [batch]."""
        images = as_images(images, "images", shape=self.mean.shape)
        errors = np.square(images + 0.5 - self.mean) + NOISE_VARIANCE
        terms = np.log(2 * np.pi * self.variance) + errors / self.variance
        return -0.5 * np.sum(terms, axis=(1, 2, 3))


@dataclasses.dataclass(frozen=True)
class ShrunkGaussian:
    """A Gaussian with full, shrunk covariance; see `fit_shrunk_gaussian`.

    Attributes:
      mean: Mean of the dequantised levels, shape [height, width, channel].
      variance: Their variance, of the same shape.
      shrinkage: The weight a of the diagonal, in (0, 1].
      eigenvalues: Eigenvalues of the correlation matrix before shrinking, ascending, shape
        [dimension].
      eigenvectors: Their eigenvectors in columns, shape [dimension, dimension].
    """

    mean: Float[np.ndarray, "height width channel"]
    variance: Float[np.ndarray, "height width channel"]
    shrinkage: float
    eigenvalues: Float[np.ndarray, "dimension"]
    eigenvectors: Float[np.ndarray, "dimension dimension"]

    def log_prob(
        self, images: UInt8[np.ndarray, "batch height width channel"]
    ) -> Float[np.ndarray, "batch"]:
        """Computes the uniform-dequantisation bound on log P(images), in nats, shape [batch]."""
        images = as_images(images, "images", shape=self.mean.shape)
        return _log_prob(self, _projections(self, images), self.shrinkage)


def fit_diagonal_gaussian(
    train: UInt8[np.ndarray, "train height width channel"],
    validation: UInt8[np.ndarray, "validation height width channel"],
) -> DiagonalGaussian:
    """Fits an independent Gaussian to each pixel and channel.

    Mean and variance are those of the dequantised training images (1/12 is the noise's part of the
    variance). The variances are then moved toward their mean by a weight chosen on validation
    among 0, 1e-4, 3e-4, ..., 0.3, 1, as pixels that never change in training may do so later.

    Args:
      train: uint8 images, at least two.
      validation: uint8 images of the same shape, at least one.

    Raises:
      ValueError: If images aren't uint8, too few, or of different shapes.
    """
    train = as_images(train, "train", least=2)
    validation = as_images(validation, "validation", shape=train.shape[1:])
    mean = np.mean(train, axis=0, dtype=np.float64) + 0.5
    variance = np.mean(np.square(train + 0.5 - mean), axis=0) + NOISE_VARIANCE
    errors = np.mean(np.square(validation + 0.5 - mean), axis=0) + NOISE_VARIANCE
    return DiagonalGaussian(mean=mean, variance=smooth_variances(variance, errors)[0])


def fit_shrunk_gaussian(
    train: UInt8[np.ndarray, "train height width channel"],
    validation: UInt8[np.ndarray, "validation height width channel"],
) -> ShrunkGaussian:
    r"""Fits a Gaussian whose full covariance is shrunk toward its diagonal.

    The covariance is :math:`D^{1/2} ((1 - a) R + a I) D^{1/2}`: D holds the variances of
    `fit_diagonal_gaussian`, R is the correlation matrix of the dequantised training images, and the
    shrinkage a is the best on validation among 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, ...,
    1. With a = 1 it is the diagonal Gaussian. Without shrinking it doesn't exist where there are
    fewer images than dimensions (Ledoit and Wolf 2004 shrink in the same way).

    The cost is that of the eigenvectors of one matrix with a row for each dimension: a second for
    600 dimensions, minutes for 3,000.

    Args:
      train: uint8 images, at least two.
      validation: uint8 images of the same shape, at least one.

    Raises:
      ValueError: If images aren't uint8, too few, or of different shapes.
    """
    diagonal = fit_diagonal_gaussian(train, validation)
    train = np.asarray(train)
    centered = (train + 0.5 - diagonal.mean).reshape(len(train), -1)
    covariance = centered.T @ centered / len(train) + NOISE_VARIANCE * np.eye(centered.shape[1])
    scale = np.sqrt(np.diagonal(covariance))
    eigenvalues, eigenvectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    model = ShrunkGaussian(
        mean=diagonal.mean,
        variance=diagonal.variance,
        shrinkage=1.0,
        # Rounding may leave a zero below zero.
        eigenvalues=np.maximum(eigenvalues, 0),
        eigenvectors=eigenvectors,
    )
    projections = _projections(model, np.asarray(validation))
    values = [np.mean(_log_prob(model, projections, shrinkage)) for shrinkage in _SHRINKAGES]
    return dataclasses.replace(model, shrinkage=_SHRINKAGES[int(np.argmax(values))])


def _projections(model: ShrunkGaussian, images: np.ndarray) -> np.ndarray:
    """Standardised images along the eigenvectors, shape [batch, dimension]."""
    standardized = (images + 0.5 - model.mean) / np.sqrt(model.variance)
    return standardized.reshape(len(images), -1) @ model.eigenvectors


def _log_prob(model: ShrunkGaussian, projections: np.ndarray, shrinkage: float) -> np.ndarray:
    scales = (1 - shrinkage) * model.eigenvalues + shrinkage
    # The diagonal of the inverse of the shrunk correlation matrix.
    precision = np.square(model.eigenvectors) @ (1 / scales)
    noise = NOISE_VARIANCE * np.sum(precision / model.variance.reshape(-1))
    distances = np.square(projections) @ (1 / scales)
    determinant = np.sum(np.log(2 * np.pi * model.variance)) + np.sum(np.log(scales))
    return -0.5 * (determinant + distances + noise)
