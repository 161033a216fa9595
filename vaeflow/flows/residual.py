"""Residual flows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Float

from vaeflow import bijectors
from vaeflow.bijectors import Chain, Conditioner
from vaeflow.bijectors.elementwise import actnorm_parameters
from vaeflow.flows.base import VectorFlow, probe_key, random_signs
from vaeflow.nn import LipschitzMLP


class ResidualFlow(VectorFlow):
    """Adds a contraction to its input, K times, from data to noise: densities are cheap.

    Each step standardises the entries and adds to them what a network with a bounded Lipschitz
    constant makes of them. The networks are zero at first, so the flow only standardises the data.
    They are free but for their bound: every entry may depend on every other. From data to noise a
    step costs one pass of its network for the values, and as many vector-Jacobian products as there
    are entries for the exact log-determinant; from noise to data some dozens of passes.

    With `num_probes` the log-determinants are estimated in training, without bias to speak of, at a
    cost that doesn't grow with the number of entries: where a key is given as
    ``apply(..., rngs={"probe": key})``, which losses do when they train. Each row of the data (of
    the context, where the flow is called without data) has noise of its own; each step has its own,
    and its own number of terms. Without that key log-determinants are exact.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen 2019, "Invertible residual networks";
    Chen, Behrmann, Duvenaud & Jacobsen 2019, "Residual flows for invertible generative modeling".

    Attributes:
      hidden_sizes: Units of each hidden layer of the networks.
      lipschitz: Bound on the Lipschitz constant of each network, in (0, 1). A step stretches no
        distance by more than 1 + lipschitz nor shrinks it by more than 1 - lipschitz, apart from
        its scaling; from noise to data it takes up to log(1e-6) / log(lipschitz) passes.
      num_probes: Number of probes of an estimated log-determinant; 0 where it is always exact.
    """

    hidden_sizes: Sequence[int] = (64, 64)
    lipschitz: float = 0.9
    num_probes: int = 0

    to_noise = True

    def step(self) -> _ResidualStep:
        """Builds the step, from data to noise."""
        return _ResidualStep(
            self.event_shape[0], hidden_sizes=self.hidden_sizes, lipschitz=self.lipschitz
        )

    def draws(self, batch: tuple[int, ...]) -> dict[str, Array] | None:
        """Draws the probes of every step, and how long its series is."""
        key = probe_key(self)
        if key is None:
            return None
        signs, roulette = jax.random.split(key)
        shape = (self.num_steps, self.num_probes, *batch, *self.event_shape)
        return {
            "probes": random_signs(signs, shape),
            "roulette": jax.random.uniform(roulette, (self.num_steps,)),
        }


@dataclasses.dataclass(frozen=True)
class _ResidualStep:
    """A residual map after an actnorm, from data to noise.

    Attributes:
      channels: Number of entries of a vector.
      hidden_sizes: Units of each hidden layer of the network.
      lipschitz: Bound on the Lipschitz constant of the network, in (0, 1).
    """

    channels: int
    hidden_sizes: Sequence[int] = (64, 64)
    lipschitz: float = 0.9

    event_ndims = 1
    collections = ("params",)

    @property
    def network(self) -> LipschitzMLP:
        """The network whose output is added."""
        hidden = self.hidden_sizes
        return LipschitzMLP(self.channels, hidden, self.lipschitz, parent=None)

    def init(
        self, key: Array, data: Float[Array, "batch channel"], context: Array | None
    ) -> dict[str, Any]:
        """Standardises the data, and leaves the rest unchanged."""
        shift, log_scale = actnorm_parameters(data)
        return {
            "params": {
                "actnorm": {"shift": shift, "log_scale": log_scale},
                "network": self.network.init(key, data, context)["params"],
            }
        }

    def __call__(self, variables: dict[str, Any], context: Array | None) -> Chain:
        """Builds the step from its variables, and from draws if there are any."""
        parameters = variables["params"]
        network = Conditioner(self.network, {"params": parameters["network"]}, context)
        return Chain(
            [
                bijectors.Residual(network, **variables.get("draws", {})),
                bijectors.ActNorm(**parameters["actnorm"], event_ndims=1),
            ]
        )
