"""Autoregressive flows: MAF, IAF and block autoregressive."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow import bijectors
from vaeflow.bijectors import AffineTransformer, Chain, Conditioner, Transformer
from vaeflow.bijectors.autoregressive import Block
from vaeflow.bijectors.elementwise import actnorm_parameters
from vaeflow.flows.base import VectorFlow
from vaeflow.nn import MaskedMLP


class MaskedAutoregressiveFlow(VectorFlow):
    """Maps each entry given those before it, from data to noise: densities are cheap.

    Each step standardises the entries, maps each by a member of `transformer`'s family given those
    before it, and reverses their order. At first the family's member is the identity, so the flow
    only standardises the data. From data to noise a step costs one pass of its network; from noise
    to data the work of one pass as well, but in as many steps as there are entries.

    With ``transformer=SplineTransformer()`` it is the autoregressive neural spline flow with
    reversals for its mixing.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Papamakarios, Pavlakou & Murray 2017, "Masked Autoregressive Flow for Density
    Estimation", section 3, with activation normalization for batch normalization.

    Attributes:
      transformer: The family of maps.
      hidden_sizes: Units of each hidden layer of the masked networks.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
    """

    transformer: Transformer = AffineTransformer()
    hidden_sizes: Sequence[int] = (64, 64)
    dtype: Any = jnp.float32

    to_noise = True

    def step(self) -> _MaskedAutoregressiveStep:
        """Builds the step, from data to noise."""
        return _step(self, normalized=True)


class InverseAutoregressiveFlow(VectorFlow):
    """Maps each entry given those before it, from noise to data: samples are cheap.

    Each step maps each entry by a member of `transformer`'s family given those before it, and
    reverses their order. At first the family's member is the identity. From noise to data a step
    costs one pass of its network; from data to noise the work of one pass as well, but in as many
    steps as there are entries.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling 2016, "Improving Variational
    Inference with Inverse Autoregressive Flow", section 3.

    Attributes:
      transformer: The family of maps.
      hidden_sizes: Units of each hidden layer of the masked networks.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
    """

    transformer: Transformer = AffineTransformer()
    hidden_sizes: Sequence[int] = (64, 64)
    dtype: Any = jnp.float32

    to_noise = False

    def step(self) -> _MaskedAutoregressiveStep:
        """Builds the step, from noise to data."""
        return _step(self, normalized=False)


def _step(
    flow: MaskedAutoregressiveFlow | InverseAutoregressiveFlow, normalized: bool
) -> _MaskedAutoregressiveStep:
    return _MaskedAutoregressiveStep(
        flow.event_shape[0],
        transformer=flow.transformer,
        hidden_sizes=flow.hidden_sizes,
        normalized=normalized,
        dtype=flow.dtype,
    )


@dataclasses.dataclass(frozen=True)
class _MaskedAutoregressiveStep:
    """A masked autoregressive map, then a reversal of the entries; in turn after an actnorm.

    Attributes:
      channels: Number of entries of a vector.
      transformer: The family of maps.
      hidden_sizes: Units of each hidden layer of the masked network.
      normalized: Whether an actnorm comes first, initialised from data.
      dtype: Type in which the network computes.
    """

    channels: int
    transformer: Transformer
    hidden_sizes: Sequence[int] = (64, 64)
    normalized: bool = True
    dtype: Any = jnp.float32

    event_ndims = 1
    collections = ("params",)

    @property
    def network(self) -> MaskedMLP:
        """The masked network, which gives the parameters of the map of each entry."""
        hidden = self.hidden_sizes
        parameters = self.transformer.num_parameters
        return MaskedMLP(self.channels, parameters, hidden, dtype=self.dtype, parent=None)

    def init(
        self, key: Array, data: Float[Array, "batch channel"], context: Array | None
    ) -> dict[str, Any]:
        """Standardises the data where the step is normalised, and leaves the rest unchanged."""
        parameters = {"network": self.network.init(key, data, context)["params"]}
        if self.normalized:
            shift, log_scale = actnorm_parameters(data)
            parameters["actnorm"] = {"shift": shift, "log_scale": log_scale}
        return {"params": parameters}

    def __call__(self, variables: dict[str, Any], context: Array | None) -> Chain:
        """Builds the step from its variables."""
        parameters = variables["params"]
        network = Conditioner(self.network, {"params": parameters["network"]}, context)
        parts = [bijectors.Reverse(), bijectors.MaskedAutoregressive(network, self.transformer)]
        if self.normalized:
            parts.append(bijectors.ActNorm(**parameters["actnorm"], event_ndims=1))
        return Chain(parts)


class BlockAutoregressiveFlow(VectorFlow):
    """Networks in which each entry only rises with itself, from data to noise, for densities.

    Each step standardises the entries, sends them through the network and reverses their order. At
    first a step is close to the mean of the identity and a tanh.

    The inverse of the bijector, from data to noise, is the cheap direction: one pass of the network
    a step. Samples take a search for each entry.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: De Cao, Titov & Aziz 2019, "Block neural autoregressive flow".

    Attributes:
      hidden_sizes: Units of each hidden layer for each dimension.
    """

    hidden_sizes: Sequence[int] = (8,)

    to_noise = True

    def step(self) -> _BlockAutoregressiveStep:
        """Builds the step, from data to noise."""
        return _BlockAutoregressiveStep(self.event_shape[0], hidden_sizes=self.hidden_sizes)


@dataclasses.dataclass(frozen=True)
class _BlockAutoregressiveStep:
    """Actnorm, then a network with positive diagonal blocks, then a reversal of the entries.

    Attributes:
      channels: Number of entries of a vector.
      hidden_sizes: Units of each hidden layer for each dimension.
    """

    channels: int
    hidden_sizes: Sequence[int] = (8,)

    event_ndims = 1
    collections = ("params",)

    def init(
        self, key: Array, data: Float[Array, "batch channel"], context: Array | None
    ) -> dict[str, Any]:
        """Standardises the data, and draws a network whose entries hardly depend on others."""
        shift, log_scale = actnorm_parameters(data)
        parameters = {
            "actnorm": {"shift": shift, "log_scale": log_scale},
            "gate": jnp.zeros(self.channels),
        }
        sizes = [1, *self.hidden_sizes, 1]
        for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            # Noise, as units that start alike would stay alike.
            around, below, offset = jax.random.split(jax.random.fold_in(key, number), 3)
            shape = (self.channels, outputs, self.channels, inputs)
            scale = 0.1 / math.sqrt(self.channels * inputs)
            parameters[f"layer_{number}"] = {
                "diagonal": 0.1 * jax.random.normal(around, (self.channels, outputs, inputs))
                - math.log(inputs),
                "below": scale * jax.random.normal(below, shape),
                "bias": 0.1 * jax.random.normal(offset, (self.channels, outputs)),
            }
        if context is not None:
            parameters["context"] = jnp.zeros((context.shape[-1], self.channels, sizes[1]))
        return {"params": parameters}

    def __call__(self, variables: dict[str, Any], context: Array | None) -> bijectors.Chain:
        """Builds the step from its variables."""
        parameters = variables["params"]
        blocks = [
            Block(**parameters[f"layer_{number}"]) for number in range(len(self.hidden_sizes) + 1)
        ]
        if context is not None:
            given = jnp.tensordot(context, parameters["context"], 1)
            blocks[0] = blocks[0]._replace(bias=blocks[0].bias + given)
        return bijectors.Chain(
            [
                bijectors.Reverse(),
                bijectors.BlockAutoregressive(blocks, parameters["gate"]),
                bijectors.ActNorm(**parameters["actnorm"], event_ndims=1),
            ]
        )
