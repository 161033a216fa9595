"""NICE."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors import (
    AdditiveCoupling,
    Bijector,
    Chain,
    ElementwiseAffine,
    Reverse,
    actnorm_parameters,
)
from vaeflow.flows.real_nvp import _RealNVPStep
from vaeflow.flows.vector import VectorFlow
from vaeflow.nn import data_dependent_param


class NICE(VectorFlow):
    """Additive couplings, which keep volumes, and one scale of each entry next to the noise.

    Each step shifts half of the entries given the other half and reverses their order. The scales
    start at the standard deviations over the first batch, where the couplings shift by nothing.
    Both directions cost the same.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Dinh, Krueger & Bengio 2014, "NICE: Non-linear independent components estimation".

    Attributes:
      width: Number of hidden units of the coupling networks.
      blocks: Number of hidden layers of the networks.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
    """

    width: int = 64
    blocks: int = 2
    dtype: Any = jnp.float32

    to_noise = True

    def step(self) -> _NICEStep:
        """Builds the step, from data to noise."""
        return _NICEStep(self.event_shape[0], 1, self.width, self.blocks, dtype=self.dtype)

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        data: Float[Array, "batch channel"] | None = None,
    ) -> Bijector:
        """Builds the bijector, forward from noise to data; arguments as for other flows."""
        couplings = super().__call__(context, data=data)
        if self.is_initializing() and data is None:
            log_scale = self.param("log_scale", nn.initializers.zeros, self.event_shape)
        else:
            log_scale = data_dependent_param(
                self, "log_scale", lambda: -actnorm_parameters(couplings.inverse(data))[1]
            )
        return Chain([couplings, ElementwiseAffine(jnp.zeros_like(log_scale), log_scale)])


@dataclasses.dataclass(frozen=True)
class _NICEStep(_RealNVPStep):
    """An additive coupling, then a reversal of the channels, from data to noise.

    Attributes as of `_RealNVPStep`.
    """

    outputs: ClassVar[int] = 1

    def init(self, key: Array, data: Array, context: Array | None) -> dict[str, Any]:
        """Leaves the data unchanged, but for their order."""
        network = self.network.init(key, data[..., : self.split], context)
        return {"params": {"coupling": network["params"]}}

    def __call__(self, variables: dict[str, Any], context: Array | None) -> Chain:
        """Builds the step from its variables."""
        network = self.conditioner(variables["params"]["coupling"], context)
        return Chain(
            [
                Reverse(self.event_ndims),
                AdditiveCoupling(network, self.split, self.event_ndims),
            ]
        )
