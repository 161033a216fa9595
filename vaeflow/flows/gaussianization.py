"""Gaussianization flows (Meng et al. 2020): elementwise Gaussianization and rotations."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vaeflow.bijectors import Chain, Householder, MixtureGaussianization
from vaeflow.bijectors.gaussianization import mixture_of_quantiles
from vaeflow.flows.amortized import amortized, amortized_features, init_amortized
from vaeflow.flows.base import VectorFlow


class GaussianizationFlow(VectorFlow, kw_only=True):
    """Steps that Gaussianize each dimension and rotate the vector, from data to noise.

    From data to noise a step maps each dimension by Phi^-1(F(x)), with F the CDF of a mixture of
    normals, and multiplies the vector by an orthogonal matrix. Mixtures start at quantiles of the
    step's input in the first batch, and matrices at random: so every step makes the marginals
    nearly normal before any training, and the joint distribution comes the closer the more steps
    there are. Parameters of the mixtures are affine in the context.

    Densities are the cheap direction; a sample solves a scalar equation for each dimension and
    step.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Meng, Song, Song & Ermon 2020, "Gaussianization flows"; the initialisation, Laparra,
    Camps-Valls & Malo 2011, "Iterative Gaussianization: from ICA to random rotations".

    Attributes:
      num_components: Number of normals of each mixture.
      num_reflections: Number of Householder reflections of each matrix. None for as many as
        channels, which generate every orthogonal matrix of their determinant.
    """

    num_components: int = 16
    num_reflections: int | None = None

    to_noise = True

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the variables of a step: mixtures at quantiles of the data, a random matrix."""
        channels = self.event_shape[0]
        num_reflections = channels if self.num_reflections is None else self.num_reflections
        mixture_key, reflections_key = jax.random.split(key)
        centres, log_scales = mixture_of_quantiles(data, self.num_components)
        base = {
            "weights": jnp.zeros((channels, self.num_components), jnp.float32),
            "centres": centres,
            "log_scales": log_scales,
        }
        mixture = init_amortized(mixture_key, base, context)
        if context is not None:
            # What a context adds is small in the unit of the data.
            unit = jnp.exp(jnp.max(log_scales, axis=-1, keepdims=True))
            mixture["kernel"]["centres"] = unit * mixture["kernel"]["centres"]
        return {
            "params": {
                "mixture": mixture,
                "reflections": jax.random.normal(
                    reflections_key, (num_reflections, channels), jnp.float32
                ),
            }
        }

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        return amortized_features(params["mixture"])

    @nn.nowrap
    def step(self, variables, context) -> Chain:
        """Builds a step from its variables."""
        params = variables["params"]
        mixture = MixtureGaussianization(**amortized(params["mixture"], context))
        return Chain([Householder(params["reflections"]), mixture])
