"""Mixtures of distributions of one family, with responsibilities.

Normal components are evaluated one dimension at a time, in memory that doesn't grow with them.
"""

from __future__ import annotations

import math

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow._util.arrays import check_event_shape
from vaeflow.distributions.gaussian import Normal, normals_of, pairwise_log_prob


class Mixture(distrax.MixtureSameFamily):
    """A mixture of K distributions: log p(x) = log sum_k softmax(logits)_k p_k(x).

    A sample is one from a random component. It is reparameterised in the
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

    @property
    def dtype(self):
        """Type of the samples: that of the components."""
        return self.components_distribution.dtype

    def _sample_n(self, key: Array, n: int) -> Array:
        # distrax selects by one-hot vectors of JAX's default type.
        return super()._sample_n(key, n).astype(self.dtype)

    def log_prob(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes log p(x) in nats.

        Raises:
          ValueError: If the events have another shape.
        """
        return jax.nn.logsumexp(self._log_joint(value), axis=0)

    def log_cdf(self, value: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch"]:
        """Computes the logarithm of the probability that no dimension exceeds its value."""
        event = self.event_shape
        check_event_shape("Mixture", value.shape, event)
        log_weight = jax.nn.log_softmax(self.mixture_distribution.logits, axis=-1)
        expanded = jnp.expand_dims(value, -1 - len(event))
        log_cdf = self.components_distribution.log_cdf(expanded)
        return jax.nn.logsumexp(log_weight + log_cdf, axis=-1)

    def log_responsibilities(
        self, value: Float[Array, "*batch_and_event"]
    ) -> Float[Array, "*batch K"]:
        """Computes log P(component k | x) in nats, for each component along the last axis."""
        return jnp.moveaxis(jax.nn.log_softmax(self._log_joint(value), axis=0), 0, -1)

    def component_of(self, value: Float[Array, "*batch_and_event"]) -> Int[Array, "*batch"]:
        """Returns the component that each example most probably comes from: its cluster."""
        return jnp.argmax(self._log_joint(value), axis=0)

    def _log_joint(self, value: Array) -> Float[Array, "K *batch"]:
        """Computes log (weight of k times p_k(x))."""
        components, event = self.components_distribution, self.event_shape
        check_event_shape("Mixture", value.shape, event)
        log_weight = jax.nn.log_softmax(self.mixture_distribution.logits, axis=-1)
        normal = normals_of(components)
        if normal is None or self.batch_shape or not event:
            expanded = jnp.expand_dims(value, -1 - len(event))
            return jnp.moveaxis(log_weight + components.log_prob(expanded), -1, 0)
        batch, size = value.shape[: value.ndim - len(event)], math.prod(event)
        loc, scale = jnp.broadcast_arrays(normal.loc, normal.scale)
        flat = Normal(loc.reshape(-1, size), scale.reshape(-1, size))
        log_density, _ = pairwise_log_prob(flat, value.reshape(math.prod(batch), size))
        return (log_weight[:, None] + log_density).reshape(len(log_weight), *batch)
