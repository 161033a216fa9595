"""Neural spline flows (Durkan et al. 2019)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors import (
    ActNorm,
    Chain,
    Conditioner,
    LULinear,
    MaskedAutoregressive,
    SplineTransformer,
    TransformedCoupling,
)
from vaeflow.bijectors.elementwise import actnorm_parameters
from vaeflow.bijectors.linear import plu_factors
from vaeflow.flows.base import VectorFlow
from vaeflow.nn import MLP, MaskedMLP


class NeuralSplineFlow(VectorFlow):
    """Rational-quadratic splines with learned mixing of the entries, for vectors.

    Each step standardises the entries, bends half of them by splines given the other half or, where
    `autoregressive`, each of them given those before it, and mixes them by a matrix in PLU factors.
    At first the splines are the identity and the matrix reverses the entries, so the flow only
    standardises the data. Even numbers of steps treat all entries alike.

    With couplings both directions cost the same, up to two triangular solves a step from noise to
    data, and events have at least two channels. The autoregressive kind is cheap from data to
    noise; from noise to data it finds one entry after another, as `MaskedAutoregressiveFlow` does.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows".

    Attributes:
      num_bins: Number of bins of each spline.
      bound: Upper end of the interval that splines bend, and minus its lower end; beyond it a
        coupling changes nothing. Entries reach it standardised.
      hidden_sizes: Units of each hidden layer of the networks.
      autoregressive: Whether each entry is bent given those before it, rather than half of them
        given the other half.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
    """

    num_bins: int = 8
    bound: float = 4.0
    hidden_sizes: Sequence[int] = (64, 64)
    autoregressive: bool = False
    dtype: Any = jnp.float32

    to_noise = True

    @property
    def least_channels(self) -> int:
        """Fewest channels of an event: a coupling needs two."""
        return 1 if self.autoregressive else 2

    def step(self) -> _NeuralSplineStep:
        """Builds the step, from data to noise."""
        return _NeuralSplineStep(
            self.event_shape[0],
            num_bins=self.num_bins,
            bound=self.bound,
            hidden_sizes=self.hidden_sizes,
            autoregressive=self.autoregressive,
            dtype=self.dtype,
        )


@dataclasses.dataclass(frozen=True)
class _NeuralSplineStep:
    """Actnorm, then splines given other entries, then a matrix in PLU factors, from data to noise.

    Attributes:
      channels: Number of entries of a vector.
      num_bins: Number of bins of each spline.
      bound: Upper end of the interval of the splines, and minus its lower end.
      hidden_sizes: Units of each hidden layer of the network.
      autoregressive: Whether the splines are those of a masked autoregressive map, rather than of a
        coupling.
      dtype: Type in which the network computes.
    """

    channels: int
    num_bins: int = 8
    bound: float = 4.0
    hidden_sizes: Sequence[int] = (64, 64)
    autoregressive: bool = False
    dtype: Any = jnp.float32

    event_ndims = 1
    collections = ("params", "constants")

    @property
    def split(self) -> int:
        """Number of entries that a coupling's network reads."""
        return self.channels // 2

    @property
    def transformer(self) -> SplineTransformer:
        """The family of the splines."""
        return SplineTransformer(num_bins=self.num_bins, bound=self.bound)

    @property
    def network(self) -> MLP | MaskedMLP:
        """The network, which gives the parameters of the spline of each entry."""
        hidden = self.hidden_sizes
        parameters = self.transformer.num_parameters
        if self.autoregressive:
            return MaskedMLP(self.channels, parameters, hidden, dtype=self.dtype, parent=None)
        features = (self.channels - self.split) * parameters
        return MLP(features, hidden, dtype=self.dtype, parent=None)

    def init(
        self, key: Array, data: Float[Array, "batch channel"], context: Array | None
    ) -> dict[str, Any]:
        """Standardises the data, reverses the entries, and leaves the rest unchanged."""
        shift, log_scale = actnorm_parameters(data)
        normalised = (data + shift) * jnp.exp(log_scale)
        inputs = normalised if self.autoregressive else normalised[..., : self.split]
        network = self.network.init(key, inputs, context)
        mixing = plu_factors(jnp.eye(self.channels)[::-1])
        constants = {name: mixing.pop(name) for name in ("permutation", "sign")}
        return {
            "params": {
                "actnorm": {"shift": shift, "log_scale": log_scale},
                "network": network["params"],
                "mixing": mixing,
            },
            "constants": constants,
        }

    def __call__(self, variables: dict[str, Any], context: Array | None) -> Chain:
        """Builds the step from its variables."""
        parameters = variables["params"]
        network = Conditioner(self.network, {"params": parameters["network"]}, context)
        if self.autoregressive:
            splines = MaskedAutoregressive(network, self.transformer)
        else:
            splines = TransformedCoupling(network, self.split, self.transformer)
        mixing = parameters["mixing"] | variables["constants"]
        return Chain(
            [
                LULinear(**mixing),
                splines,
                ActNorm(**parameters["actnorm"], event_ndims=1),
            ]
        )
