"""Residual flows: contractive residual steps, with exact or unbiased log-determinants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vaeflow import bijectors
from vaeflow.bijectors import Chain, Conditioner
from vaeflow.flows.base import VectorFlow
from vaeflow.nn import LipschitzMLP
from vaeflow.nn.normalization import actnorm_parameters


class ResidualFlow(VectorFlow, kw_only=True):
    """Residual steps z = x + g(x) with Lip(g) < 1, from data to noise: densities are cheap.

    From data to noise a step is an actnorm, then the identity plus a network with a bounded
    Lipschitz constant, initially zero: so the flow initially only standardises the data. The
    Jacobian is unrestricted but for the bound: every dimension may depend on every other. From data
    to noise a step costs one pass of its network for the values, and as many vector-Jacobian
    products as there are dimensions for the exact log-determinant; from noise to data some dozens
    of passes.

    With `num_probes` the log-determinants are estimated in training, with negligible bias, at a
    cost that doesn't grow with the dimension: where a key is given as
    ``apply(..., rngs={"probe": key})``, which losses do in training. Each row of the data (of the
    context, where the flow is called without data) has noise of its own; each step has its own
    noise and its own number of terms. Without that key log-determinants are exact.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen 2019, "Invertible residual networks";
    Chen, Behrmann, Duvenaud & Jacobsen 2019, "Residual flows for invertible generative modeling".

    Attributes:
      hidden_sizes: Units of each hidden layer of the networks.
      lipschitz: Bound on the Lipschitz constant of each network, in (0, 1). A step stretches no
        distance by more than 1 + lipschitz nor shrinks it by more than 1 - lipschitz, apart from
        its actnorm; from noise to data it takes up to log(1e-6) / log(lipschitz) passes.
      num_probes: Number of probes of an estimated log-determinant; 0 for exact ones always.
    """

    hidden_sizes: Sequence[int] = (64, 64)
    lipschitz: float = 0.9
    num_probes: int = 0

    to_noise = True

    def check_fields(self) -> None:
        """Checks the shape of an event and the number of probes."""
        super().check_fields()
        if self.num_probes < 0:
            raise ValueError(f"ResidualFlow: num_probes must be at least 0, got {self.num_probes}")

    def draws(self, batch_shape) -> dict[str, Array] | None:
        """Samples the probes and the series length of every step, where there is an rng "probe".

        Probes are random signs, whose estimate of a trace has the least variance: Hutchinson 1990,
        "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
        splines".
        """
        if self.is_initializing() or not self.num_probes or not self.has_rng("probe"):
            return None
        signs_key, roulette_key = jax.random.split(self.make_rng("probe"))
        shape = (self.num_steps, self.num_probes, *batch_shape, *self.event_shape)
        return {
            "probes": jax.random.rademacher(signs_key, shape, jnp.float32),
            "roulette": jax.random.uniform(roulette_key, (self.num_steps,), jnp.float32),
        }

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the variables of a step: an actnorm from the data, and a network."""
        shift, log_scale = actnorm_parameters(data)
        return {
            "params": {
                "actnorm": {"shift": shift, "log_scale": log_scale},
                "network": self._network.init(key, data, context)["params"],
            }
        }

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        return self._network.context_features(params["network"])

    @nn.nowrap
    def step(self, variables, context) -> Chain:
        """Builds a step from its variables, and from draws if there are any."""
        params = variables["params"]
        network = Conditioner(self._network, {"params": params["network"]}, context)
        return Chain(
            [
                bijectors.Residual(network, **variables.get("draws", {})),
                bijectors.ActNorm(**params["actnorm"], event_ndims=1),
            ]
        )

    @property
    def _network(self) -> LipschitzMLP:
        """The network g."""
        return LipschitzMLP(
            self.event_shape[0],
            hidden_sizes=self.hidden_sizes,
            lipschitz=self.lipschitz,
            parent=None,
        )
