"""Baseline densities of images and tables, with exact likelihoods of dequantised images.

Diagonal Gaussians, Gaussians with a shrunk covariance (Ledoit & Wolf 2004), and a causal linear
predictor of pixels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from vaeflow.metrics._inputs import NOISE_VARIANCE, as_images, as_values, smooth_variances

Examples = UInt8[np.ndarray, "batch height width channel"] | Float[np.ndarray, "row column"]

_SHRINKAGES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, *(step / 20 for step in range(2, 21)))


@dataclasses.dataclass(frozen=True)
class DiagonalGaussianBaseline:
    """Independent Gaussians, one for each dimension of an example; see `fit_diagonal_gaussian`.

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
    """Fits an independent Gaussian to each dimension: a pixel's channel, or a column of a table.

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


_RADII = (1, 2, 3)

_RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, float("inf"))

# Images at a time where all of their neighbourhoods are held as float64.
_BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class LinearPredictorBaseline:
    r"""Each pixel Gaussian about a linear prediction from pixels before it.

    In raster order, and channel by channel within a pixel,

    .. math:: q(y_i | x_{<i}) = N(y_i; m_i + 1/2 + \sum_j w_{ij} (x_j - m_j), s_i)

    for y = x + u, u uniform on [0, 1), over the neighbours j before i within a window: `radius`
    rows above and `radius` columns to each side. Neighbours outside the image count as their mean.
    See `fit_linear_predictor`.

    Attributes:
      mean: Mean m of the training images in levels, shape [height, width, channel].
      coefficients: The coefficients w, shape [offset, height, width, channel, neighbor_channel]:
        those of the pixel itself (its earlier channels) are the last offset.
      variance: The variances s, shape [height, width, channel].
      radius: Reach of the window.
      ridge: Weight of the penalty that tied the coefficients of all places, in images; infinity
        where all places share theirs.
    """

    mean: Float[np.ndarray, "height width channel"]
    coefficients: Float[np.ndarray, "offset height width channel channel"]
    variance: Float[np.ndarray, "height width channel"]
    radius: int
    ridge: float

    def log_prob(
        self, images: UInt8[np.ndarray, "batch height width channel"]
    ) -> Float[np.ndarray, "batch"]:
        """Computes the uniform-dequantisation bound on log P(images), in nats, shape [batch].

        It is the expectation over u of log q(x + u), in closed form.
        """
        images = as_images(images, "images", shape=self.mean.shape)
        starts = range(0, len(images), _BLOCK)
        parts = [self._log_prob(images[start : start + _BLOCK]) for start in starts]
        return np.concatenate(parts)

    def _log_prob(self, images: np.ndarray) -> np.ndarray:
        errors = images - self.mean
        padded = _pad(errors, self.radius)
        for offset, coefficients in zip(_offsets(self.radius), self.coefficients, strict=True):
            neighbors = _shift(padded, offset, self.radius)
            errors = errors - np.einsum("nhwd,hwcd->nhwc", neighbors, coefficients)
        squares = np.square(errors) + NOISE_VARIANCE
        terms = np.log(2 * np.pi * self.variance) + squares / self.variance
        return -0.5 * np.sum(terms, axis=(1, 2, 3))


def fit_linear_predictor(
    train: UInt8[np.ndarray, "train height width channel"],
    validation: UInt8[np.ndarray, "validation height width channel"],
) -> LinearPredictorBaseline:
    """Fits a linear prediction of each pixel from its causal neighbours.

    Coefficients shared by all places minimise the squared error over all pixels of all training
    images. Those of each place then minimise its squared error plus ``ridge * v`` times the
    squared distance to the shared ones, where v is the mean variance of a pixel: the ridge counts
    images. The variances are the residual ones (by degrees of freedom) with 1/12 of the
    dequantisation noise, moved toward their mean. Chosen on validation, all together: the radius of
    the window among 1, 2 and 3; the ridge among 0.1, 0.3, 1, ..., 3000 and infinity (shared
    coefficients everywhere); the weight of the mean variance among 0, 1e-4, 3e-4, ..., 0.3, 1.

    Args:
      train: uint8 images, at least two.
      validation: uint8 images of the same shape, at least one.

    Raises:
      ValueError: If images aren't uint8, too few, or of different shapes.
    """
    train = as_images(train, "train", least=2)
    validation = as_images(validation, "validation", shape=train.shape[1:])
    mean = np.mean(train, axis=0, dtype=np.float64)
    radius = max(_RADII)
    moments = _moments(train, mean, radius)
    held_out = _moments(validation, mean, radius) / len(validation)
    fits = []
    for radius in _RADII:
        chosen = _columns(radius, max(_RADII), train.shape[-1])
        fits.extend(_fit(mean, moments[chosen], held_out[chosen], len(train), radius))
    return max(fits, key=lambda fit: fit[0])[1]


def _fit(
    mean: np.ndarray, moments: np.ndarray, held_out: np.ndarray, count: int, radius: int
) -> list[tuple[float, LinearPredictorBaseline]]:
    """Fits with each ridge, with the log-likelihood of validation in nats.

    Args:
      mean: Mean of the training images.
      moments: Sums of products of each place's neighbourhood, over the training images.
      held_out: Their means over the validation images.
      count: How many training images there are.
      radius: Reach of the window.
    """
    height, width, channels = mean.shape
    size = moments.shape[-1]
    before = size - channels
    targets = np.arange(before, size)
    scale = np.mean(np.diagonal(moments, axis1=2, axis2=3)[..., targets]) / count
    coefficients = np.zeros((len(_RIDGES), height, width, channels, size))
    residuals = np.empty((len(_RIDGES), height, width, channels))
    errors = np.empty_like(residuals)
    for channel, target in enumerate(targets):
        inputs = slice(0, target)
        gram = moments[..., inputs, inputs]
        products = moments[..., inputs, target]
        total = np.sum(gram, axis=(0, 1)) + max(scale, NOISE_VARIANCE) * np.eye(target)
        shared = np.linalg.solve(total, np.sum(products, axis=(0, 1)))
        eigenvalues, eigenvectors = np.linalg.eigh(gram)
        eigenvalues = np.maximum(eigenvalues, 0)
        remainder = np.einsum("hwij,hwi->hwj", eigenvectors, products - gram @ shared)
        for row, ridge in enumerate(_RIDGES):
            weight = ridge * max(scale, NOISE_VARIANCE)
            change = np.einsum("hwij,hwj->hwi", eigenvectors, remainder / (eigenvalues + weight))
            solution = shared + change
            coefficients[row, :, :, channel, inputs] = solution
            # The mean is one degree of freedom, in addition to those of the coefficients.
            freedom = 1 + np.sum(eigenvalues / (eigenvalues + weight), axis=-1)
            squares = _squared_error(moments, solution, target)
            residuals[row, :, :, channel] = squares / np.maximum(count - freedom, 1)
            errors[row, :, :, channel] = _squared_error(held_out, solution, target)
    fits = []
    for row, ridge in enumerate(_RIDGES):
        variance, value = smooth_variances(
            residuals[row] + NOISE_VARIANCE, errors[row] + NOISE_VARIANCE
        )
        by_offset = coefficients[row].reshape(height, width, channels, -1, channels)
        model = LinearPredictorBaseline(mean, np.moveaxis(by_offset, 3, 0), variance, radius, ridge)
        fits.append((value, model))
    return fits


def _squared_error(moments: np.ndarray, solution: np.ndarray, target: int) -> np.ndarray:
    """Squared error of a prediction from second moments alone, shape [height, width]."""
    gram = moments[..., :target, :target]
    squares = (
        moments[..., target, target]
        - 2 * np.sum(moments[..., :target, target] * solution, axis=-1)
        + np.einsum("hwi,hwij,hwj->hw", solution, gram, solution, optimize=True)
    )
    return np.maximum(squares, 0)


def _moments(images: np.ndarray, mean: np.ndarray, radius: int) -> np.ndarray:
    """Sums of products over images of each place's neighbourhood and of its own channels.

    Returns:
      Shape [height, width, size, size], where size is offsets times channels.
    """
    height, width, channels = mean.shape
    size = len(_offsets(radius)) * channels
    moments = np.zeros((height, width, size, size))
    for start in range(0, len(images), _BLOCK):
        padded = _pad(images[start : start + _BLOCK] - mean, radius)
        for row in range(height):
            neighbors = [
                padded[:, row + radius + down, radius + right : radius + right + width]
                for down, right in _offsets(radius)
            ]
            # Shape [width, batch, size].
            stacked = np.stack(neighbors, axis=-2).reshape(-1, width, size).transpose(1, 0, 2)
            moments[row] += stacked.transpose(0, 2, 1) @ stacked
    return moments


def _offsets(radius: int) -> list[tuple[int, int]]:
    """Places (down, right) of the neighbours before a pixel in raster order, then its own."""
    above = [(down, right) for down in range(-radius, 0) for right in range(-radius, radius + 1)]
    return above + [(0, right) for right in range(-radius, 1)]


def _columns(radius: int, reach: int, channels: int) -> tuple:
    """Selects the moments of a window from those of a wider one."""
    wide = _offsets(reach)
    places = [wide.index(offset) for offset in _offsets(radius)]
    columns = np.concatenate([place * channels + np.arange(channels) for place in places])
    return (..., columns[:, None], columns[None, :])


def _pad(errors: np.ndarray, radius: int) -> np.ndarray:
    return np.pad(errors, ((0, 0), (radius, 0), (radius, radius), (0, 0)))


def _shift(padded: np.ndarray, offset: tuple[int, int], radius: int) -> np.ndarray:
    height = padded.shape[1] - radius
    width = padded.shape[2] - 2 * radius
    top, left = radius + offset[0], radius + offset[1]
    return padded[:, top : top + height, left : left + width]
