"""A linear-Gaussian latent-variable model, whose likelihood and posterior are known exactly."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import scipy.stats

from tests.variables import drawn_variables
from vaeflow import decoders, encoders, models
from vaeflow.models.preprocessing import Dequantized

SHAPE = (2, 2, 1)
SIZE, LATENTS, NOISE = 4, 2, 0.6
_random = np.random.RandomState(0)
WEIGHTS = _random.normal(size=(LATENTS, SIZE))
OFFSET = _random.normal(size=SIZE)
COVARIANCE = np.linalg.inv(np.eye(LATENTS) + WEIGHTS @ WEIGHTS.T / NOISE**2)
"""Of the exact posterior, whatever x."""
DATA = _random.normal(size=(3, *SHAPE)).astype(np.float32)
BATCH = {"image": DATA, "index": np.arange(3)}


class Observed(nn.Module):
    """Leaves real-valued images as they are."""

    def __call__(self, images, keys):
        return Dequantized(images, jnp.zeros(len(images)))

    def quantize(self, values):
        return values


def model(posterior=None, prior_model=None, num_classes=None) -> models.VAE:
    """x = z W + b + noise e, for standard normal z and e."""
    return models.VAE(
        encoders.Encoder(
            encoders.DenseEncoder(hidden_sizes=()),
            posterior or encoders.FullGaussianPosterior(LATENTS),
        ),
        decoders.Decoder(
            decoders.DenseDecoder(hidden_sizes=()), decoders.GaussianLikelihood(NOISE), SHAPE
        ),
        Observed(),
        prior_model,
        num_classes,
    )


def decoder_variables() -> dict:
    """Those of the exact model."""
    return {
        "network": {"Dense_0": {"kernel": jnp.asarray(WEIGHTS, jnp.float32)}},
        "offset": jnp.asarray(OFFSET, jnp.float32).reshape(*SHAPE, 1),
    }


def exact_variables() -> dict:
    """The exact model, and as its encoder (a full Gaussian) the exact posterior."""
    factor = np.linalg.cholesky(COVARIANCE)
    posterior = gaussian_variables(np.diag(factor))
    posterior["below"] = constant(factor[np.tril_indices(LATENTS, -1)])
    return {"params": {"encoder": {"posterior": posterior}, "decoder": decoder_variables()}}


def diagonal_variables() -> dict:
    """The exact model, and as its encoder (a diagonal Gaussian) one a little too wide."""
    posterior = gaussian_variables(1.2 * np.sqrt(np.diag(COVARIANCE)))
    return {"params": {"encoder": {"posterior": posterior}, "decoder": decoder_variables()}}


def gaussian_variables(scale: np.ndarray) -> dict:
    """A Gaussian posterior with the exact mean, and a scale that doesn't depend on x."""
    kernel = WEIGHTS.T @ COVARIANCE / NOISE**2
    mean = {"kernel": jnp.float32(kernel), "bias": jnp.float32(-OFFSET @ kernel)}
    return {"mean": mean, "scale": constant(raw(scale))}


def raw(scale: np.ndarray) -> np.ndarray:
    """The outputs of a dense layer that give these deviations."""
    return np.log(np.expm1(scale - 1e-6)) - math.log(math.e - 1)


def constant(bias: np.ndarray) -> dict:
    """A dense layer that ignores its input."""
    return {"kernel": jnp.zeros((SIZE, len(bias))), "bias": jnp.float32(bias)}


def inexact_variables(made: models.VAE) -> dict:
    """The exact model, and any encoder."""
    variables = drawn_variables(made.init, DATA, seed=3)
    return {"params": {**variables["params"], "decoder": decoder_variables()}}


def log_likelihood() -> np.ndarray:
    """Computes log p(x) of `DATA`, in nats."""
    covariance = WEIGHTS.T @ WEIGHTS + NOISE**2 * np.eye(SIZE)
    return scipy.stats.multivariate_normal(OFFSET, covariance).logpdf(DATA.reshape(3, SIZE))
