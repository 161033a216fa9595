"""The mixture of the members of an ensemble, and the loss that trains them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import LOCAL, Axis
from vaeflow.typing import Aux

PyTree = Any


class Ensemble(distrax.Distribution):
    """The equally weighted mixture of densities of one model with several sets of variables.

    log p(x) = log (1/M) sum_m p_m(x).

    Source: Lakshminarayanan, Pritzel & Blundell 2017, "Simple and scalable predictive uncertainty
    estimation using deep ensembles".

    Args:
      model: A module whose call returns a distribution, such as `vaeflow.models.FlowModel`.
      variables: Its variables, each array with the members along its first axis.
      context: As for the model.
      temperature: As for the model.
    """

    def __init__(
        self,
        model: nn.Module,
        variables: PyTree,
        context: Array | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self._model = model
        self._variables = variables
        self._context = context
        self._temperature = temperature

    @property
    def num_members(self) -> int:
        """Number M of members."""
        return jax.tree.leaves(self._variables)[0].shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return tuple(self._model.event_shape)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Batch axes: those of the context."""
        shape = jax.eval_shape(lambda: self._first().sample(seed=jax.random.key(0))).shape
        return shape[: len(shape) - len(self.event_shape)]

    def members(self) -> list[distrax.Distribution]:
        """Returns the distribution of each member."""
        own = [
            jax.tree.map(lambda leaf, i=i: leaf[i], self._variables)
            for i in range(self.num_members)
        ]
        return [self._of(variables) for variables in own]

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes the log-density of the mixture in nats."""
        terms = jax.vmap(lambda variables: self._of(variables).log_prob(value))(self._variables)
        return jax.nn.logsumexp(terms, axis=0) - jnp.log(self.num_members)

    def _sample_n(self, key: Array, n: int) -> Array:
        choice, noise = jax.random.split(key)

        def draw(variables: PyTree, number: Array) -> Array:
            own = jax.random.fold_in(noise, number)
            return self._of(variables).sample(seed=own, sample_shape=n)

        draws = jax.vmap(draw)(self._variables, jnp.arange(self.num_members))
        shape = draws.shape[1 : draws.ndim - len(self.event_shape)]
        chosen = jax.random.randint(choice, shape, 0, self.num_members)
        chosen = chosen.reshape((1, *shape) + (1,) * len(self.event_shape))
        return jnp.take_along_axis(draws, chosen, axis=0)[0]

    def _of(self, variables: PyTree) -> distrax.Distribution:
        return self._model.apply(variables, context=self._context, temperature=self._temperature)

    def _first(self) -> distrax.Distribution:
        return self._of(jax.tree.map(lambda leaf: leaf[0], self._variables))


@dataclasses.dataclass(frozen=True)
class EnsembleLoss:
    """The sum of a loss over members, whose gradient is that of each member alone.

    Attributes:
      loss: The loss of one member; see `vaeflow.losses`.
    """

    loss: Callable[..., Any]

    def __call__(
        self,
        model: nn.Module,
        variables: PyTree,
        batch: PyTree,
        rng: Array,
        *,
        axis: Axis = LOCAL,
        train: bool = True,
        **weights: Any,
    ) -> tuple[Float[Array, ""], Aux]:
        """Computes the sum of the losses, and the mean of each metric."""

        def one(own: PyTree, number: Array) -> tuple[Array, Aux]:
            keys = jax.vmap(jax.random.fold_in, (0, None))(jnp.atleast_1d(rng), number)
            return self.loss(model, own, batch, keys, axis=axis, train=train, **weights)

        members = jax.tree.leaves(variables)[0].shape[0]
        losses, aux = jax.vmap(one)(variables, jnp.arange(members))
        metrics = {name: jnp.mean(value, axis=0) for name, value in aux.metrics.items()}
        return jnp.sum(losses), Aux(metrics, aux.state)
