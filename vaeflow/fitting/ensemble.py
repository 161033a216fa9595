"""Ensembles: the mixture of the members, the loss that trains them together, compiled calls.

The variables of members have them along a first axis; a single model is an ensemble of one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import LOCAL, Axis
from vaeflow.fitting.arrays import takes_images
from vaeflow.metrics.likelihood import importance_weighted_log_likelihood
from vaeflow.typing import Aux

PyTree = Any

POSTERIOR_SAMPLES = 100
"""Samples of the posterior of each example by which models with latents are evaluated."""


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


# Compiled functions


@functools.partial(jax.jit, static_argnums=0)
def member_log_prob(
    model: nn.Module, variables: PyTree, batch: PyTree, shared: PyTree, key: jax.Array
) -> jax.Array:
    """Computes log-densities ``[member, example]``; `shared` is one context for all, or None."""
    keys = _keys(key, batch["index"])
    context = batch.get("context", shared)

    def one(own: PyTree) -> jax.Array:
        noise = keys if takes_images(model) else None
        return model.apply(own, batch["values"], noise, context=context, method="log_prob")

    return jax.vmap(one)(variables)


@functools.partial(jax.jit, static_argnums=0)
def member_log_likelihood(
    model: nn.Module, variables: PyTree, batch: PyTree, shared: PyTree, key: jax.Array
) -> jax.Array:
    """Computes importance-weighted bounds ``[member, example]``; see `member_log_prob`."""
    keys = _keys(key, batch["index"])
    context = batch.get("context", shared)
    if context is not None:
        context = jnp.broadcast_to(context, batch["index"].shape)

    def one(own: PyTree) -> jax.Array:
        # One sample at a time: images of a hundred samples are many.
        options = {"num_samples": POSTERIOR_SAMPLES, "chunk": 1, "context": context}
        return importance_weighted_log_likelihood(model, own, batch["values"], keys, **options)

    return jax.vmap(one)(variables)


@functools.partial(jax.jit, static_argnums=0)
def encode_rows(model: nn.Module, variables: PyTree, batch: PyTree, key: jax.Array) -> PyTree:
    """Encodes examples by one model."""
    keys = _keys(key, batch["index"]) if takes_images(model) else None
    given = {"context": batch["context"]} if "context" in batch else {}
    return model.apply(variables, batch["values"], keys, method="encode", **given)


@functools.partial(jax.jit, static_argnums=0)
def decode_rows(model: nn.Module, variables: PyTree, batch: PyTree) -> jax.Array:
    """Decodes codes by one model."""
    given = {"context": batch["context"]} if "context" in batch else {}
    return model.apply(variables, batch["values"], method="decode", **given)


@functools.partial(jax.jit, static_argnums=(0, 1))
def member_samples(
    model: nn.Module,
    num_samples: int,
    variables: PyTree,
    context: jax.Array | None,
    key: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    """Samples from each member, ``[member, num_samples, *batch, *event]``."""

    def one(own: PyTree, number: jax.Array) -> jax.Array:
        keys = jax.random.fold_in(key, number)
        options = {"context": context, "temperature": temperature}
        return model.apply(own, keys, num_samples, method="sample", **options)

    members = jax.tree.leaves(variables)[0].shape[0]
    return jax.vmap(one)(variables, jnp.arange(members))


def _keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """A key for each example, which depends on its number alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)
