"""Mixtures."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Mixture(distrax.MixtureSameFamily):
    """A mixture of K distributions: log p(x) = log sum_k softmax(logits)_k p_k(x).

    A sample takes one component at random and draws from it. It is reparameterised in the
    parameters of the components, as far as their own samples are, and not in the logits: no
    gradient reaches them through samples, as a loss that averages over samples would need. Maximum
    likelihood, which differentiates `log_prob`, reaches all.

    Shapes: `logits` are ``[*batch, K]``; the last batch axis of `components` is of size K.
    """

    def __init__(self, logits: Float[Array, "*batch K"], components: distrax.Distribution):
        """Builds the mixture.

        Args:
          logits: Logarithms of the weights, up to a constant.
          components: The components, along the last batch axis.

        Raises:
          ValueError: If the batch axes don't fit each other.
        """
        logits = jnp.asarray(logits)
        if logits.shape != components.batch_shape:
            raise ValueError(
                f"logits must have the batch shape of the components, {components.batch_shape}, "
                f"got shape {logits.shape}"
            )
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        super().__init__(distrax.Categorical(logits=logits), components)

    def log_responsibilities(
        self, value: Float[Array, "*batch_and_event"]
    ) -> Float[Array, "*batch K"]:
        """Computes log P(component k | x) in nats, for each component along the last axis."""
        components = self.components_distribution
        apart = jnp.expand_dims(value, -1 - len(self.event_shape))
        logits = self.mixture_distribution.logits
        return jax.nn.log_softmax(logits + components.log_prob(apart), axis=-1)

    def component_of(self, value: Float[Array, "*batch_and_event"]) -> Int[Array, "*batch"]:
        """Returns the component that each example most probably comes from: its cluster."""
        return jnp.argmax(self.log_responsibilities(value), axis=-1)
