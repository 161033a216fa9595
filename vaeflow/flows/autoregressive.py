"""Autoregressive flows: MAF, IAF and block neural autoregressive flows.

Each dimension is mapped given those before it. The direction that reads known inputs costs one pass
of a network; the other solves for one dimension after another.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from vaeflow import bijectors
from vaeflow.bijectors import AffineTransformer, BoundedLogScale, Chain, Conditioner, Transformer
from vaeflow.bijectors.autoregressive import Block
from vaeflow.flows.base import VectorFlow
from vaeflow.nn import MaskedMLP
from vaeflow.nn.normalization import actnorm_parameters


class _MaskedFlow(VectorFlow, kw_only=True):
    """Masked autoregressive maps with reversals, in the direction that `to_noise` says.

    Attributes:
      transformer: The family of maps.
      hidden_sizes: Units of each hidden layer of the masked networks, or None for their default:
        see `vaeflow.nn.MaskedMLP`, where narrow ones don't read every dimension before.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
    """

    transformer: Transformer = AffineTransformer()
    hidden_sizes: Sequence[int] | None = None
    dtype: Any = jnp.float32

    normalize: ClassVar[bool]
    """Whether a step begins with an actnorm, initialised from data."""

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the variables of a step."""
        params = {"network": self._network.init(key, data, context)["params"]}
        if self.normalize:
            shift, log_scale = actnorm_parameters(data)
            params["actnorm"] = {"shift": shift, "log_scale": log_scale}
        return {"params": params}

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        return self._network.context_features(params["network"])

    @nn.nowrap
    def step(self, variables, context) -> Chain:
        """Builds a step from its variables."""
        params = variables["params"]
        network = Conditioner(self._network, {"params": params["network"]}, context)
        parts = [bijectors.Reverse(), bijectors.MaskedAutoregressive(network, self.transformer)]
        if self.normalize:
            parts.append(bijectors.ActNorm(**params["actnorm"], event_ndims=1))
        return Chain(parts)

    @property
    def _network(self) -> MaskedMLP:
        """The masked network: parameters of the map of each dimension."""
        return MaskedMLP(
            self.event_shape[0],
            num_parameters=self.transformer.num_parameters,
            hidden_sizes=self.hidden_sizes,
            dtype=self.dtype,
            parent=None,
        )


class MaskedAutoregressiveFlow(_MaskedFlow, kw_only=True):
    """Maps each dimension given those before it, from data to noise: densities are cheap.

    From data to noise a step is an actnorm, a map of each dimension from `transformer`'s family
    given those before it, and a reversal of the dimensions. Initially the maps are the identity, so
    the flow only standardises the data. From data to noise a step costs one pass of its network;
    from noise to data the work of one pass as well, but in as many sequential steps as there are
    dimensions.

    With ``transformer=SplineTransformer()`` it is the autoregressive neural spline flow with
    reversals for its mixing.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Papamakarios, Pavlakou & Murray 2017, "Masked Autoregressive Flow for Density
    Estimation", section 3, with activation normalization for batch normalization.

    Attributes:
      transformer: The family of maps.
      hidden_sizes: Units of each hidden layer of the masked networks, or None for their default:
        see `vaeflow.nn.MaskedMLP`, where narrow ones don't read every dimension before.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
    """

    to_noise = True
    normalize = True


class InverseAutoregressiveFlow(_MaskedFlow, kw_only=True):
    """Maps each dimension given those before it, from noise to data: samples are cheap.

    From noise to data a step is a map of each dimension from `transformer`'s family given those
    before it, initially the identity, and a reversal of the dimensions. From noise to data a step
    costs one pass of its network; from data to noise the work of one pass as well, but in as many
    sequential steps as there are dimensions.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling 2016, "Improving Variational
    Inference with Inverse Autoregressive Flow", section 3.

    Attributes:
      transformer: The family of maps.
      hidden_sizes: Units of each hidden layer of the masked networks, or None for their default:
        see `vaeflow.nn.MaskedMLP`, where narrow ones don't read every dimension before.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
    """

    transformer: Transformer = AffineTransformer(BoundedLogScale(-3.0, 3.0))

    to_noise = False
    normalize = False


class BlockAutoregressiveFlow(VectorFlow, kw_only=True):
    """Networks whose output i is increasing in input i and reads those before, from data to noise.

    From data to noise a step is an actnorm, such a network, with positive diagonal blocks, and a
    reversal of the dimensions. Initially a step is close to the mean of the identity and a tanh.

    Data to noise is the cheap direction: one pass of the network a step. Samples take a numerical
    search for each dimension.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: De Cao, Titov & Aziz 2019, "Block neural autoregressive flow".

    Attributes:
      hidden_sizes: Units of each hidden layer for each dimension.
    """

    hidden_sizes: Sequence[int] = (8,)

    to_noise = True

    @nn.nowrap
    def init_step(self, key, data, context) -> dict[str, Any]:
        """Creates the variables of a step: its dimensions initially hardly depend on others."""
        channels = self.event_shape[0]
        shift, log_scale = actnorm_parameters(data)
        params = {
            "actnorm": {"shift": shift, "log_scale": log_scale},
            "gate": jnp.zeros(channels, jnp.float32),
        }
        sizes = [1, *self.hidden_sizes, 1]
        normal = functools.partial(jax.random.normal, dtype=jnp.float32)
        for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            # Noise breaks the symmetry of units.
            keys = jax.random.split(jax.random.fold_in(key, number), 3)
            scale = 0.1 / math.sqrt(channels * inputs)
            params[f"layer_{number}"] = {
                "diagonal": 0.1 * normal(keys[0], (channels, outputs, inputs)) - math.log(inputs),
                "below": scale * normal(keys[1], (channels, outputs, channels, inputs)),
                "bias": 0.1 * normal(keys[2], (channels, outputs)),
            }
        if context is not None:
            params["context"] = jnp.zeros((context.shape[-1], channels, sizes[1]), jnp.float32)
        return {"params": params}

    @nn.nowrap
    def step_context_features(self, params, given) -> int:
        """Number of features of the context of a step, 0 for none."""
        return params["context"].shape[0] if "context" in params else 0

    @nn.nowrap
    def step(self, variables, context) -> Chain:
        """Builds a step from its variables."""
        params = variables["params"]
        blocks = [
            Block(**params[f"layer_{number}"]) for number in range(len(self.hidden_sizes) + 1)
        ]
        if context is not None:
            shift = jnp.tensordot(context, params["context"], 1)
            blocks[0] = blocks[0]._replace(bias=blocks[0].bias + shift)
        return Chain(
            [
                bijectors.Reverse(),
                bijectors.BlockAutoregressive(blocks, params["gate"]),
                bijectors.ActNorm(**params["actnorm"], event_ndims=1),
            ]
        )
