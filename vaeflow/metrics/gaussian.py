r"""Gaussian densities of images and of tables: baselines that a density model must beat.

Of tables they are densities of the rows, in the units of the table. Of images they are densities q
of y = x + u in levels, u uniform on [0, 1) in each dimension, and ``log_prob`` is the expectation
over u of log q(x + u): the same lower bound on log P(x) of 8-bit images that a flow with uniform
dequantisation has. It is computed in closed form, without drawing u: for precision P and mean m,

.. math:: E_u (x + u - m)^T P (x + u - m) = (x + 1/2 - m)^T P (x + 1/2 - m) + tr(P) / 12.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from vaeflow.metrics.checks import as_values
from vaeflow.metrics.variances import smooth_variances

Examples = UInt8[np.ndarray, "batch height width channel"] | Float[np.ndarray, "row column"]

_SHRINKAGES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, *(step / 20 for step in range(2, 21)))


@dataclasses.dataclass(frozen=True)
class DiagonalGaussianBaseline:
    """Independent Gaussians, one for each entry of an example; see `fit_diagonal_gaussian`.

    Attributes:
      mean: Mean of the dequantised levels, shape [height, width, channel], or of the columns of a
        table, shape [column].
      variance: Their variance, of the same shape.
    """

    mean: Float[np.ndarray, "*event"]
    variance: Float[np.ndarray, "*event"]

    def log_prob(self, examples: Examples) -> Float[np.ndarray, "batch"]:
        """Computes log P in nats, shape [batch]; of images its uniform-dequantisation bound."""
        values, noise = _values(self, examples)
        errors = np.square(values - self.mean) + noise
        terms = np.log(2 * np.pi * self.variance) + errors / self.variance
        return -0.5 * np.sum(terms.reshape(len(terms), -1), axis=1)


@dataclasses.dataclass(frozen=True)
class ShrunkGaussianBaseline:
    """A Gaussian with full, shrunk covariance; see `fit_shrunk_gaussian`.

    Attributes:
      mean: Mean of the dequantised levels, shape [height, width, channel], or of the columns of a
        table, shape [column].
      variance: Their variance, of the same shape.
      shrinkage: The weight a of the diagonal, in (0, 1].
      eigenvalues: Eigenvalues of the correlation matrix before shrinking, ascending, shape
        [dimension].
      eigenvectors: Their eigenvectors in columns, shape [dimension, dimension].
    """

    mean: Float[np.ndarray, "*event"]
    variance: Float[np.ndarray, "*event"]
    shrinkage: float
    eigenvalues: Float[np.ndarray, "dimension"]
    eigenvectors: Float[np.ndarray, "dimension dimension"]

    def log_prob(self, examples: Examples) -> Float[np.ndarray, "batch"]:
        """Computes log P in nats, shape [batch]; of images its uniform-dequantisation bound."""
        values, noise = _values(self, examples)
        return _log_prob(self, _projections(self, values), self.shrinkage, noise)


def fit_diagonal_gaussian(train: Examples, validation: Examples) -> DiagonalGaussianBaseline:
    """Fits an independent Gaussian to each entry: a pixel's channel, or a column of a table.

    Mean and variance are those of the training rows, or of the dequantised training images (1/12 is
    the noise's part of the variance). The variances of images are then moved toward their mean by a
    weight chosen on validation among 0, 1e-4, 3e-4, ..., 0.3, 1, as pixels that never change in
    training may do so later.

    Args:
      train: uint8 images or a floating table [row, column], at least two examples.
      validation: The same of the same shape, at least one example.

    Raises:
      ValueError: If examples are neither uint8 images nor a floating table, too few, or of
        different shapes, or a column of a table doesn't vary.
    """
    train, noise = as_values(train, "train", least=2)
    validation, _ = as_values(validation, "validation", shape=train.shape[1:])
    mean = np.mean(train, axis=0)
    variance = np.mean(np.square(train - mean), axis=0) + noise
    if not np.all(variance > 0):
        column = int(np.argmin(variance))
        raise ValueError(f"train must have columns that vary, got a constant one, {column}")
    if noise:
        errors = np.mean(np.square(validation - mean), axis=0) + noise
        variance, _ = smooth_variances(variance, errors)
    return DiagonalGaussianBaseline(mean=mean, variance=variance)


def fit_shrunk_gaussian(train: Examples, validation: Examples) -> ShrunkGaussianBaseline:
    r"""Fits a Gaussian whose full covariance is shrunk toward its diagonal.

    The covariance is :math:`D^{1/2} ((1 - a) R + a I) D^{1/2}`: D holds the variances of
    `fit_diagonal_gaussian`, R is the correlation matrix of the training rows or the dequantised
    training images, and the shrinkage a is the best on validation among 0.005, 0.01, 0.02, 0.03,
    0.05, 0.07, 0.1, 0.15, ..., 1. With a = 1 it is the diagonal Gaussian. Without shrinking it
    doesn't exist where there are fewer examples than dimensions (Ledoit and Wolf 2004 shrink in the
    same way).

    The cost is that of the eigenvectors of one matrix with a row for each dimension: a second for
    600 dimensions, minutes for 3,000.

    Args:
      train: uint8 images or a floating table [row, column], at least two examples.
      validation: The same of the same shape, at least one example.

    Raises:
      ValueError: As `fit_diagonal_gaussian`.
    """
    diagonal = fit_diagonal_gaussian(train, validation)
    values, noise = as_values(train, "train")
    centered = (values - diagonal.mean).reshape(len(values), -1)
    covariance = centered.T @ centered / len(values) + noise * np.eye(centered.shape[1])
    scale = np.sqrt(np.diagonal(covariance))
    eigenvalues, eigenvectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    model = ShrunkGaussianBaseline(
        mean=diagonal.mean,
        variance=diagonal.variance,
        shrinkage=1.0,
        # Rounding may leave a zero below zero.
        eigenvalues=np.maximum(eigenvalues, 0),
        eigenvectors=eigenvectors,
    )
    projections = _projections(model, as_values(validation, "validation")[0])
    fits = [np.mean(_log_prob(model, projections, shrinkage, noise)) for shrinkage in _SHRINKAGES]
    return dataclasses.replace(model, shrinkage=_SHRINKAGES[int(np.argmax(fits))])


def _values(model: DiagonalGaussianBaseline | ShrunkGaussianBaseline, examples: Examples):
    """The values and the variance of their noise, of examples that must fit the model."""
    name = "images" if model.mean.ndim == 3 else "rows"
    return as_values(examples, name, shape=model.mean.shape)


def _projections(model: ShrunkGaussianBaseline, values: np.ndarray) -> np.ndarray:
    """Standardised values along the eigenvectors, shape [batch, dimension]."""
    standardized = (values - model.mean) / np.sqrt(model.variance)
    return standardized.reshape(len(values), -1) @ model.eigenvectors


def _log_prob(
    model: ShrunkGaussianBaseline, projections: np.ndarray, shrinkage: float, noise: float
) -> np.ndarray:
    scales = (1 - shrinkage) * model.eigenvalues + shrinkage
    # The diagonal of the inverse of the shrunk correlation matrix.
    precision = np.square(model.eigenvectors) @ (1 / scales)
    noise = noise * np.sum(precision / model.variance.reshape(-1))
    distances = np.square(projections) @ (1 / scales)
    determinant = np.sum(np.log(2 * np.pi * model.variance)) + np.sum(np.log(scales))
    return -0.5 * (determinant + distances + noise)
