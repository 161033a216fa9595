"""A chain of linear-Gaussian levels, whose likelihood and posterior are known exactly."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import scipy.stats

from tests import linear_gaussian as exact
from vaeflow import decoders, encoders, models

SIZES = (2, 1, 1)
"""From the lowest level up; with one latent a level, posteriors have independent entries."""
_random = np.random.RandomState(1)
# Rows that are orthogonal, so that the entries of z_1 are independent given x and z_2.
WEIGHTS = np.diag([1.5, 0.7]) @ np.linalg.qr(_random.normal(size=(exact.SIZE, 2)))[0].T
MAPS = [_random.normal(size=pair) for pair in zip(SIZES[1:], SIZES[:-1], strict=True)]
SHIFTS = [_random.normal(size=size) for size in SIZES[:-1]]
SCALES = [0.5 + _random.uniform(size=size) for size in SIZES[:-1]]
DATA = exact.DATA
BATCH = exact.BATCH


def model(levels: int, **more) -> models.HierarchicalVAE:
    """z_i = z_(i+1) A_i + a_i + s_i e below a standard normal z_n, and x = z_1 W + b + noise e."""
    return models.HierarchicalVAE(
        encoders.DenseEncoder(hidden_sizes=()),
        SIZES[:levels],
        decoders.Decoder(
            decoders.DenseDecoder(hidden_sizes=()),
            decoders.GaussianLikelihood(exact.NOISE),
            exact.SHAPE,
        ),
        exact.Observed(),
        hidden_sizes=(),
        activation=nn.tanh,
        **more,
    )


def observed_given(level: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x given z_level (from 0 on): the matrix, the offset and the covariance."""
    matrix, offset = WEIGHTS, exact.OFFSET
    covariance = exact.NOISE**2 * np.eye(exact.SIZE)
    for i in range(level):
        covariance = covariance + matrix.T @ np.diag(SCALES[i] ** 2) @ matrix
        offset = offset + SHIFTS[i] @ matrix
        matrix = MAPS[i] @ matrix
    return matrix, offset, covariance


def log_likelihood(levels: int) -> np.ndarray:
    """Computes log p(x) of `DATA`, in nats."""
    matrix, offset, covariance = observed_given(levels - 1)
    covariance = covariance + matrix.T @ matrix
    return scipy.stats.multivariate_normal(offset, covariance).logpdf(DATA.reshape(3, -1))


def exact_variables(levels: int) -> dict:
    """The exact model with the exact posterior: messages are likelihoods of their level."""
    decoder = exact.decoder_variables()
    decoder["network"]["Dense_0"]["kernel"] = jnp.float32(WEIGHTS)
    parameters = {"decoder": decoder}
    for i in range(levels):
        matrix, offset, covariance = observed_given(i)
        towards = np.linalg.inv(covariance) @ matrix.T
        precision = matrix @ towards
        if i == levels - 1:  # the topmost message is the posterior: prior included
            precision = precision + np.eye(len(precision))
        spread = np.linalg.inv(precision)
        np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-12)
        kernel = towards @ spread
        parameters[f"messages_{i}"] = {
            "mean": {"kernel": jnp.float32(kernel), "bias": jnp.float32(-offset @ kernel)},
            "scale": exact.constant(exact.raw(np.sqrt(np.diag(spread)))),
        }
    for i in range(levels - 1):
        raw = exact.raw(SCALES[i])
        parameters[f"down_{i}"] = {
            "mean": {"kernel": jnp.float32(MAPS[i]), "bias": jnp.float32(SHIFTS[i])},
            "scale": {"kernel": jnp.zeros((SIZES[i + 1], SIZES[i])), "bias": jnp.float32(raw)},
        }
    return {"params": parameters}
