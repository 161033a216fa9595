"""Continuous flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vaeflow import bijectors
from vaeflow.bijectors import ActNorm, Chain, Conditioner, Inverse
from vaeflow.bijectors.elementwise import actnorm_parameters
from vaeflow.flows.base import initial_data, prepare_context
from vaeflow.nn import TimeDependentMLP
from vaeflow.nn.normalization import data_dependent_param


class ContinuousFlow(nn.Module):
    """Moves noise to data by ordinary differential equations, one after another.

    The networks that give velocities read the state, the time and the context. At first velocities
    are zero, so the flow only undoes the activation normalization that standardises the data. Both
    directions cost the same: for each step of a solver, six passes of the network and of its
    gradient, the latter once for each entry.

    In training the trace of the Jacobian may be estimated instead, from `num_probes` passes: wherever
    the flow is applied with an rng named ``"probe"``, which gives each block a key. Without that
    rng log-determinants are exact. It needs diffrax, from the extra ``continuous``.

    Shapes: noise and data are ``[*batch, channel]``.

    Source: Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud 2019, "FFJORD: Free-form continuous
    dynamics for scalable reversible generative models".

    Attributes:
      event_shape: Shape of the data: (channel,).
      num_steps: Number of differential equations.
      hidden_sizes: Units of each hidden layer of the networks.
      num_probes: Number of random vectors that estimate a trace where there is an rng; 0 for exact
        traces always.
      num_classes: Number of classes where the context is an integer label, otherwise None.
      rtol: Error allowed in a step, relative to the size of an entry.
      atol: Error allowed in a step besides.
      max_steps: Number of steps that each solver may try.
    """

    event_shape: tuple[int]
    num_steps: int = 1
    hidden_sizes: Sequence[int] = (64, 64)
    num_probes: int = 0
    num_classes: int | None = None
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 256

    context_ndims: ClassVar[int] = 1

    @property
    def noise_shape(self) -> tuple[int]:
        """Shape of the noise: that of the data."""
        return tuple(self.event_shape)

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        data: Float[Array, "batch channel"] | None = None,
    ) -> Chain:
        """Builds the bijector, forward from noise to data.

        Args:
          context: Labels ``[*batch]`` or vectors ``[*batch, feature]``, or None.
          data: In `init`, the batch that the first parameters standardise; otherwise ignored.
            Without it `init` uses standard normal noise.

        Raises:
          ValueError: If the event isn't a vector, the data or the context doesn't fit, a number is
            out of range, or diffrax isn't installed.
        """
        if len(self.event_shape) != 1 or self.event_shape[0] < 1:
            raise ValueError(
                f"Continuous: event_shape must be (channel,) with at least 1 channel, "
                f"got {self.event_shape}"
            )
        if self.num_steps < 1 or self.num_probes < 0:
            raise ValueError(
                "Continuous: blocks must be at least 1 and probes at least 0, "
                f"got {self.num_steps} and {self.num_probes}"
            )
        context = prepare_context(context, self.num_classes)
        batch = None if context is None else context.shape[:-1]
        data = initial_data(self, data, self.event_shape, batch)
        statistics = None if data is None else actnorm_parameters(data)
        actnorm = ActNorm(
            data_dependent_param(self, "shift", lambda: statistics[0]),
            data_dependent_param(self, "log_scale", lambda: statistics[1]),
            event_ndims=1,
        )
        key = self.make_rng("probe") if self.num_probes and self.has_rng("probe") else None
        parts = [Inverse(actnorm)]
        for number in range(self.num_steps):
            parts.append(
                bijectors.Continuous(
                    self._velocity(f"block_{number}", context, data),
                    None if key is None else jax.random.fold_in(key, number),
                    max(self.num_probes, 1),
                    rtol=self.rtol,
                    atol=self.atol,
                    max_steps=self.max_steps,
                )
            )
        return Chain(parts)

    def _velocity(self, name: str, context: Array | None, data: Array | None) -> Conditioner:
        network = TimeDependentMLP(self.event_shape[0], self.hidden_sizes, parent=None)
        if self.is_initializing():
            key = self.make_rng("params")
            parameters = self.param(
                name, lambda _: network.init(key, data, data[:, 0], context)["params"]
            )
        else:
            parameters = self.get_variable("params", name)
        return Conditioner(network, {"params": parameters}, context)
