"""The Fréchet distance between two sets of features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def frechet_distance(
    first: Float[np.ndarray, "first feature"], second: Float[np.ndarray, "second feature"]
) -> float:
    r"""Computes the squared Fréchet distance between normals fitted to two sets of features.

    .. math:: d^2 = \|m_1 - m_2\|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^{1/2})

    for means m and covariances S, whose denominator is the number of rows less 1: the least
    E\ ``|x - y|^2`` of any coupling of the two normals. In squared units of the features. It is 0
    where means and covariances agree, whatever else differs.

    No matrix is squared and no root of one is taken, which would halve the digits: with
    :math:`S = R^T R` for the triangular factor R of the centred rows, the trace of the root is the
    sum of the singular values of :math:`R_1 R_2^T`. So covariances may be singular, with fewer rows
    than features too.

    The estimate is biased, upwards by about a multiple of 1 / rows that depends on the
    distributions: compare only distances between sets of the same numbers of rows.

    Source: Heusel, Ramsauer, Unterthiner, Nessler & Hochreiter 2017, "GANs trained by a two
    time-scale update rule converge to a local Nash equilibrium", equation 6, who take features of
    the Inception network; Dowson & Landau 1982, "The Fréchet distance between multivariate normal
    distributions".

    Args:
      first: Features of some examples, such as samples.
      second: Features of others, such as data.

    Raises:
      ValueError: If the shapes are wrong or don't fit each other, a set has fewer than two rows, or
        a feature isn't finite.
    """
    first, second = _checked(first, "first"), _checked(second, "second")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            "first and second must have the same features, got shapes "
            f"{first.shape} and {second.shape}"
        )
    factors = [_factor(rows) for rows in (first, second)]
    between = np.sum(np.square(np.mean(first, axis=0) - np.mean(second, axis=0)))
    traces = sum(np.sum(np.square(factor)) for factor in factors)
    root = np.sum(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False))
    # Rounding may leave a zero below zero.
    return float(between + max(traces - 2 * root, 0.0))


def _factor(rows: np.ndarray) -> Float[np.ndarray, "rank feature"]:
    """R with R^T R = the covariance of the rows."""
    return np.linalg.qr(rows - np.mean(rows, axis=0), mode="r") / np.sqrt(len(rows) - 1)


def _checked(rows: np.ndarray, name: str) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or len(rows) < 2 or not rows.shape[1]:
        raise ValueError(
            f"{name} must have shape [example, feature] with 2 examples or more, got {rows.shape}"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite, got {np.sum(~np.isfinite(rows))} that aren't")
    return rows
