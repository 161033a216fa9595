"""Variances of pixels that no unseen image can make absurd."""

from __future__ import annotations

import numpy as np

# Variance of the uniform noise on [0, 1) that dequantises a level.
NOISE_VARIANCE = 1 / 12

_WEIGHTS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)


def smooth_variances(variances: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, float]:
    """Moves the variance of each pixel toward the mean variance, by the weight that fits best.

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
