"""What the levels of a hierarchy are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow.bijectors import Conditioner
from vaeflow.encoders.gaussian import positive


class GaussianNetwork(nn.Module):
    """A multilayer perceptron to means and deviations, side by side and not yet positive.

    Attributes:
      latents: Number of entries of which there are a mean and a deviation each.
      hidden: Sizes of the hidden layers, each followed by the activation.
      activation: The nonlinearity.
    """

    latents: int
    hidden: Sequence[int]
    activation: Callable[[Array], Array] = nn.tanh

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "*batch entry"],
        context: Float[Array, "*batch condition"] | None = None,
    ) -> Float[Array, "*batch number"]:
        """Maps vectors to twice as many numbers as latents, given a context if there is one."""
        x = inputs
        if context is not None:
            context = jnp.broadcast_to(context, (*x.shape[:-1], context.shape[-1]))
            x = jnp.concatenate([x, context.astype(x.dtype)], axis=-1)
        for size in self.hidden:
            x = self.activation(nn.Dense(size)(x))
        mean = nn.Dense(self.latents, name="mean")(x)
        return jnp.concatenate([mean, nn.Dense(self.latents, name="scale")(x)], axis=-1)


def normals(
    numbers: Float[Array, "*batch number"], temperature: float = 1.0
) -> distrax.Independent:
    """Makes distributions of what a `GaussianNetwork` answers, deviations times a temperature."""
    mean, raw = jnp.split(numbers, 2, axis=-1)
    return distrax.Independent(distrax.Normal(mean, temperature * positive(raw)), 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianConditional:
    """Normals whose parameters are a network's answer to what they are given, as a pytree.

    Attributes:
      network: A `GaussianNetwork` with its parameters and context.
      temperature: Factor of the deviations.
    """

    network: Conditioner
    temperature: Float[Array, ""] | float = 1.0

    def __call__(self, above: Float[Array, "*batch entry"]) -> distrax.Independent:
        """Builds the distributions, with the batch axes of what they are given."""
        return normals(self.network(above), self.temperature)
