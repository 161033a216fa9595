"""Continuous flows (FFJORD, Grathwohl et al. 2019): neural ordinary differential equations."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jaxtyping import Array

from vaeflow import bijectors
from vaeflow.bijectors import ActNorm, Chain, Conditioner, Inverse
from vaeflow.flows.base import Flow, check_vector_shape
from vaeflow.nn import TimeDependentMLP
from vaeflow.nn.normalization import actnorm_parameters, data_dependent_param


class ContinuousFlow(Flow, kw_only=True):
    """Ordinary differential equations dx/dt = f(x, t), one after another, from noise to data.

    The velocity f is a network of the state, the time and the context. Initially it is zero, so the
    flow only inverts the activation normalization that standardises the data. Both directions cost
    the same: for each step of a solver, six passes of the network and of its gradient, the latter
    once for each dimension.

    In training the trace of the Jacobian may be estimated instead, from `num_probes` passes:
    wherever the flow is applied with an rng named ``"probe"``, from which each equation has a key.
    Without that rng log-determinants are exact. Needs diffrax, from the extra ``continuous``.

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
      rtol: Relative error tolerance of a solver step.
      atol: Absolute error tolerance of a solver step.
      max_steps: Largest number of steps that each solver may try.
    """

    num_steps: int = 1
    hidden_sizes: Sequence[int] = (64, 64)
    num_probes: int = 0
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 256

    def check_fields(self) -> None:
        """Checks the shape of an event and the counts."""
        check_vector_shape(self)
        if self.num_steps < 1 or self.num_probes < 0:
            raise ValueError(
                "ContinuousFlow: num_steps must be at least 1 and num_probes at least 0, "
                f"got {self.num_steps} and {self.num_probes}"
            )

    def context_features(self, params, given) -> int:
        """Number of features of the context that parameters were made for, 0 for none."""
        return self._network.context_features(params["block_0"])

    def build(self, context, data, batch_shape) -> Chain:
        """Builds the bijector inside the compact call; arguments as in `Flow.build`."""
        del batch_shape
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

    @property
    def _network(self) -> TimeDependentMLP:
        return TimeDependentMLP(self.event_shape[0], hidden_sizes=self.hidden_sizes, parent=None)

    def _velocity(self, name: str, context: Array | None, data: Array | None) -> Conditioner:
        network = self._network
        if self.is_initializing():
            key = self.make_rng("params")
            params = self.param(
                name, lambda _: network.init(key, data, data[:, 0], context)["params"]
            )
        else:
            params = self.get_variable("params", name)
        return Conditioner(network, {"params": params}, context)
