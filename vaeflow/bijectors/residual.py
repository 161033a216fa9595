"""Residual maps: the identity plus a contraction."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors.base import Bijector, check_event_shape
from vaeflow.bijectors.conditioner import Conditioner
from vaeflow.bijectors.contraction import solve_residual
from vaeflow.bijectors.residual_log_det import estimated_log_det, exact_log_det

PyTree = Any


class ContractiveNetwork(Protocol):
    """A hashable network with a Lipschitz constant below one at all values of its variables.

    `vaeflow.nn.LipschitzMLP` is one. It is applied in two parts, of which the first is computed
    once where the second is computed in a loop.

    Attributes:
      features: Number of outputs, and of inputs: the length of an event's last axis.
    """

    features: int

    def normalized(self, variables: PyTree) -> PyTree:
        """Bounds the network, as far as that doesn't depend on its input."""

    def apply_normalized(self, normalized: PyTree, x: Array, context: Array | None) -> Array:
        """Maps ``[batch, *event]`` to the same shape, with a context ``[batch, *context]``."""


class Residual(Bijector):
    """Adds to a vector what a contraction makes of it: y = x + g(x), with Lip(g) < 1.

    Forward is the cheap direction: one pass of the network. Inverse iterates x <- y - g(x) to a
    relative change of `tolerance`, as `solve_residual` does: differentiable by the implicit
    function theorem, and NaN for an example whose iteration doesn't converge. So the residual map
    runs from data to noise in a density model, as in the inverse of this bijector's flow.

    log|det dy/dx| = log|det(I + dg/dx)| is exact, from as many vector-Jacobian products as there
    are entries. Given `probes` and `roulette` it is estimated by a power series instead, in some
    six products for each probe on average, whatever the number of entries; see
    `estimated_log_det` for how and how well. The estimate belongs to those draws: the same draws
    give the same estimate both ways. Reverse-mode derivatives only.

    Shapes: ``[*batch, *event]`` both ways.

    Source: Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen 2019, "Invertible residual networks";
    Chen, Behrmann, Duvenaud & Jacobsen 2019, "Residual flows for invertible generative modeling".
    """

    static_fields = ("tolerance",)

    def __init__(
        self,
        network: Conditioner,
        probes: Float[Array, "probe *batch_and_event"] | None = None,
        roulette: Float[Array, ""] | None = None,
        tolerance: float = 1e-6,
    ):
        """Builds the map.

        Args:
          network: The contraction g; its module is a `ContractiveNetwork`.
          probes: Noise whose entries have mean zero, variance one and no correlations, with batch
            axes that broadcast to those of the input; None for exact log-determinants.
          roulette: A draw from the uniform distribution on [0, 1), given with probes.
          tolerance: Relative size of an acceptable change of an iteration.

        Raises:
          ValueError: If one of `probes` and `roulette` is given without the other.
        """
        super().__init__(event_ndims_in=network.event_ndims)
        if (probes is None) != (roulette is None):
            raise ValueError(
                "probes and roulette must be given together, "
                f"got {'probes' if roulette is None else 'roulette'} alone"
            )
        self.network = network
        self.probes = probes
        self.roulette = roulette
        self.tolerance = tolerance

    def _forward(self, x):
        contraction, x = self._contraction(), self._prepared(x)
        return x + contraction(x), self._log_det(contraction, x)

    def _inverse(self, y):
        contraction, y = self._contraction(), self._prepared(y)
        x = solve_residual(contraction, y, self.event_ndims_in, self.tolerance)
        # Where there is no solution, the Jacobian of a network that is linear doesn't show it.
        events = tuple(range(x.ndim - self.event_ndims_in, x.ndim))
        unsolved = jnp.any(jnp.isnan(x), axis=events)
        return x, jnp.where(unsolved, jnp.nan, -self._log_det(contraction, x))

    def _prepared(self, x: Array) -> Array:
        check_event_shape(self.name, x.shape, (self.network.module.features,))
        # As wide as anything that meets it: iterations and products keep one type.
        leaves = jax.tree.leaves((self.network.variables, self.network.context))
        wide = [leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return x.astype(jnp.result_type(x.dtype, jnp.float32, *wide))

    def _contraction(self) -> Conditioner:
        network = self.network
        return dataclasses.replace(
            network,
            module=_Normalized(network.module),
            variables=network.module.normalized(network.variables),
        )

    def _log_det(self, contraction: Conditioner, x: Array) -> Array:
        if self.probes is None:
            return exact_log_det(contraction, x, self.event_ndims_in)
        shape = self.probes.shape
        missing = x.ndim + 1 - len(shape)
        probes = self.probes.reshape((shape[0], *(1,) * missing, *shape[1:]))
        try:
            probes = jnp.broadcast_to(probes, (shape[0], *x.shape))
        except ValueError:
            raise ValueError(
                f"{self.name}: probes of shape {shape} have axes after the first that don't "
                f"broadcast to those of the input of shape {x.shape}"
            ) from None
        return estimated_log_det(
            contraction, x, probes.astype(x.dtype), self.roulette, self.event_ndims_in
        )


@dataclasses.dataclass(frozen=True)
class _Normalized:
    """The second part of a network, as a `Conditioner` applies it."""

    network: ContractiveNetwork

    def apply(self, normalized: PyTree, x: Array, context: Array | None) -> Array:
        return self.network.apply_normalized(normalized, x, context)
