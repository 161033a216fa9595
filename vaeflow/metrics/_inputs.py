"""Validation and preparation of the arrays that metrics take: images, tables, representations."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from vaeflow._util.files import missing_package


def import_scikit_learn(module: str, what: str) -> ModuleType:
    """Imports a module of scikit-learn.

    Args:
      module: Its name within the package.
      what: Name of the caller, for the error.

    Raises:
      ValueError: The package isn't installed.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError:
        raise missing_package(what, "scikit-learn") from None


# Variance of the uniform noise on [0, 1) that dequantises an intensity.
NOISE_VARIANCE = 1 / 12

_WEIGHTS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)


def smooth_variances(variances: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, float]:
    """Shrinks the variance of each pixel toward the mean variance, by the weight that fits best.

    A pixel that never changed in training has the variance of the dequantisation noise alone, and
    an image that differs there would dominate every average. The variances become
    ``(1 - w) variance + w mean``, with w in 0, 1e-4, 3e-4, ..., 0.3, 1 the best on validation.

    Args:
      variances: Positive variances of pixels, any shape.
      errors: Mean squared error of each pixel on validation images, of the same shape.

    Returns:
      The smoothed variances, and the mean log-likelihood of validation under them, in nats.
    """
    fits = []
    for weight in _WEIGHTS:
        smoothed = (1 - weight) * variances + weight * np.mean(variances)
        fits.append((gaussian_log_likelihood(smoothed, errors), smoothed))
    value, smoothed = max(fits, key=lambda fit: fit[0])
    return smoothed, value


def gaussian_log_likelihood(variances: np.ndarray, errors: np.ndarray) -> float:
    """Sums the expected log-densities of independent Gaussians, from expected squared errors."""
    return float(-0.5 * np.sum(np.log(2 * np.pi * variances) + errors / variances))


def as_images(
    images: np.ndarray, name: str, *, least: int = 1, shape: Sequence[int] | None = None
) -> np.ndarray:
    """Returns images as an array after checking that they are uint8 of one known shape.

    Args:
      images: uint8, shape [batch, height, width, channel].
      name: Name of the array in errors.
      least: Minimal number of images.
      shape: The shape [height, width, channel] that each must have, or None for any.

    Raises:
      ValueError: If the type, the shape or the number of images is wrong.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(f"{name} must be uint8, got {images.dtype}")
    if images.ndim != 4:
        raise ValueError(
            f"{name} must have shape [batch, height, width, channel], got {images.shape}"
        )
    if len(images) < least:
        raise ValueError(f"{name} must hold at least {least} images, got {len(images)}")
    if shape is not None and images.shape[1:] != tuple(shape):
        raise ValueError(f"{name} must have images of shape {tuple(shape)}, got {images.shape[1:]}")
    return images


def as_values(
    examples: np.ndarray, name: str, *, least: int = 1, shape: Sequence[int] | None = None
) -> tuple[np.ndarray, float]:
    """Returns the real values of images or of a table, for a density, after checking them.

    Args:
      examples: uint8 images, shape [batch, height, width, channel], or a floating table, shape
        [row, column].
      name: Name of the array in errors.
      least: Minimal number of examples.
      shape: The shape that each must have, or None for any.

    Returns:
      float64 values: of a table as they are, of images the centre of each level's interval; and the
      variance of the noise in that interval, 0 for a table.

    Raises:
      ValueError: If the type, the shape or the number of examples is wrong, or a value of a table
        isn't finite.
    """
    examples = np.asarray(examples)
    if examples.ndim != 2 or examples.dtype.kind != "f":
        return as_images(examples, name, least=least, shape=shape) + 0.5, NOISE_VARIANCE
    if len(examples) < least:
        raise ValueError(f"{name} must hold at least {least} rows, got {len(examples)}")
    if shape is not None and examples.shape[1:] != tuple(shape):
        raise ValueError(f"{name} must have rows of shape {tuple(shape)}, got {examples.shape[1:]}")
    if not np.isfinite(examples).all():
        raise ValueError(f"{name} must be finite, got {np.sum(~np.isfinite(examples))} that aren't")
    return examples.astype(np.float64), 0.0


def as_representation(
    codes: np.ndarray, factors: np.ndarray, categorical: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Returns codes in float64 and factors in int64 after checking them.

    Args:
      codes: Numbers, shape [example, latent].
      factors: Integers, shape [example, factor].
      categorical: Columns of `factors` that are categories.

    Raises:
      ValueError: If the shapes don't fit each other, there are fewer than two examples, codes
        aren't finite, factors aren't integers, a factor takes a single value, or a
        categorical one doesn't exist.
    """
    codes, factors = np.asarray(codes), np.asarray(factors)
    tables = codes.ndim == factors.ndim == 2 and codes.size > 0 and factors.size > 0
    if not tables or len(codes) != len(factors) or len(codes) < 2:
        raise ValueError(
            "codes and factors must have shapes [example, latent] and [example, factor], with the"
            f" same 2 examples or more, got {codes.shape} and {factors.shape}"
        )
    if factors.dtype.kind not in "iu":
        raise ValueError(f"factors must be integers, got {factors.dtype}")
    codes, factors = codes.astype(np.float64), factors.astype(np.int64)
    if not np.isfinite(codes).all():
        raise ValueError(f"codes must be finite, got {np.sum(~np.isfinite(codes))} that aren't")
    constant = np.flatnonzero(np.all(factors == factors[0], axis=0))
    if len(constant):
        raise ValueError(f"factors must have columns that vary, got a constant one, {constant[0]}")
    if not all(0 <= column < factors.shape[1] for column in categorical):
        raise ValueError(
            f"categorical must name columns of the {factors.shape[1]} factors, got {categorical}"
        )
    return codes, factors


def ranks(codes: np.ndarray) -> np.ndarray:
    """Returns the rank of each code among the different values of its latent, from 0.

    Decision trees depend on ranks alone, and scikit-learn's hold values in float32.
    """
    return np.stack([np.unique(latent, return_inverse=True)[1] for latent in codes.T], axis=1)


def mean_gap(scores: np.ndarray) -> float:
    """Averages over columns the largest score less the second; where there is no second, less 0."""
    ordered = np.sort(np.concatenate([np.zeros((1, scores.shape[1])), scores]), axis=0)
    return float(np.mean(ordered[-1] - ordered[-2]))
