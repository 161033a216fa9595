"""Which latents of a model are used."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

LEAST_VARIANCE = 0.01
"""Variance of a latent's posterior mean over the data, above which it is active."""


def active_units(means: Float[np.ndarray, "example latent"]) -> Bool[np.ndarray, " latent"]:
    """Tells which latents depend on the data: Var_x E_q[z_d | x] > 0.01.

    The others have collapsed to the prior.

    Source: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders", section 5.

    Args:
      means: The middle of the posterior of each example.

    Raises:
      ValueError: If there are fewer than two examples, or they aren't vectors.
    """
    means = np.asarray(means, np.float64)
    if means.ndim != 2 or len(means) < 2:
        raise ValueError(
            f"means must have shape [example, latent] with 2 examples or more, got {means.shape}"
        )
    return np.var(means, axis=0) > LEAST_VARIANCE
