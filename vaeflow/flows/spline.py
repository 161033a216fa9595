"""Neural spline flows (Durkan et al. 2019), by couplings or autoregressive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vaeflow.bijectors import (
    ActNorm,
    Chain,
    Conditioner,
    LULinear,
    MaskedAutoregressive,
    SplineTransformer,
    TransformedCoupling,
)
from vaeflow.bijectors.linear import plu_factors
from vaeflow.flows.base import VectorFlow
from vaeflow.nn import MLP, MaskedMLP
from vaeflow.nn.normalization import actnorm_parameters


class NeuralSplineFlow(VectorFlow, kw_only=True):
    """Rational-quadratic splines with learned linear mixing of the dimensions, for vectors.

    From data to noise a step is an actnorm, a spline of half of the dimensions given the other
    half or, if `autoregressive`, of each dimension given those before it, and a matrix in PLU
    factors. Initially the splines are the identity and the matrix reverses the dimensions, so the
    flow only standardises the data. With even numbers of steps every dimension is transformed
    equally often.

    With couplings both directions cost the same, up to two triangular solves a step from noise to
    data, and events have at least two channels. The autoregressive kind is cheap from data to
    noise; from noise to data it solves for one dimension after another, as
    `MaskedAutoregressiveFlow` does.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows".

    Attributes:
      num_bins: Number of bins of each spline.
      bound: Splines act on the interval [-bound, bound] and are the identity outside. Their inputs
        are standardised.
      hidden_sizes: Units of each hidden layer of the networks, or None for the default of a
        `vaeflow.nn.MLP` or, if `autoregressive`, of a `vaeflow.nn.MaskedMLP`, where narrow ones
        don't read every dimension before.
      autoregressive: Whether the spline of each dimension is given those before it, rather than
        those of one half given the other half.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
    """

    num_bins: int = 8
    bound: float = 4.0
    hidden_sizes: Sequence[int] | None = None
    autoregressive: bool = False
    dtype: Any = jnp.float32

    to_noise = True
    step_collections = ("params", "constants")

    @property
    def min_channels(self) -> int:
        """Fewest channels of an event: a coupling needs two."""
        return 1 if self.autoregressive else 2

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the variables of a step: an actnorm from the data, a network, a reversal."""
        channels = self.event_shape[0]
        shift, log_scale = actnorm_parameters(data)
        normalized = (data + shift) * jnp.exp(log_scale)
        inputs = normalized if self.autoregressive else normalized[..., : channels // 2]
        network = self._network.init(key, inputs, context)
        mixing = plu_factors(jnp.eye(channels, dtype=jnp.float32)[::-1])
        constants = {name: mixing.pop(name) for name in ("permutation", "sign")}
        return {
            "params": {
                "actnorm": {"shift": shift, "log_scale": log_scale},
                "network": network["params"],
                "mixing": mixing,
            },
            "constants": constants,
        }

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        network = params["network"]
        if self.autoregressive:
            return self._network.context_features(network)
        return self._network.context_features(network, self.event_shape[0] // 2, given)

    @nn.nowrap
    def step(self, variables, context) -> Chain:
        """Builds a step from its variables, from data to noise."""
        params = variables["params"]
        network = Conditioner(self._network, {"params": params["network"]}, context)
        if self.autoregressive:
            splines = MaskedAutoregressive(network, self._transformer)
        else:
            splines = TransformedCoupling(network, self.event_shape[0] // 2, self._transformer)
        return Chain(
            [
                LULinear(**params["mixing"], **variables["constants"]),
                splines,
                ActNorm(**params["actnorm"], event_ndims=1),
            ]
        )

    @property
    def _transformer(self) -> SplineTransformer:
        return SplineTransformer(num_bins=self.num_bins, bound=self.bound)

    @property
    def _network(self) -> MLP | MaskedMLP:
        """The network: parameters of the spline of each dimension."""
        channels, num_parameters = self.event_shape[0], self._transformer.num_parameters
        options: dict[str, Any] = {"dtype": self.dtype, "parent": None}
        if self.hidden_sizes is not None:
            options["hidden_sizes"] = self.hidden_sizes
        if self.autoregressive:
            return MaskedMLP(channels, num_parameters=num_parameters, **options)
        return MLP((channels - channels // 2) * num_parameters, **options)
