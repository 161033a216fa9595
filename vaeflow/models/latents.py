"""What inference in a latent-variable model answers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

PyTree = Any


class Latents(NamedTuple):
    """Samples of q(z | x) with their densities, in nats, by group of latents.

    Attributes:
      z: The samples, ``[sample, batch, latent]``, or a pytree of such where the model has several
        groups.
      log_q: log q of each group by name, given the groups drawn before it, ``[sample, batch]``.
      log_p: The same under the prior.
      kl: KL(q || p) of each latent of a group, ``[batch, latent]``, by name, for groups where both
        sides are known to have it in closed form; averaged over samples of the groups above it,
        where it depends on them.
    """

    z: PyTree
    log_q: dict[str, Float[Array, "sample batch"]]
    log_p: dict[str, Float[Array, "sample batch"]]
    kl: dict[str, Float[Array, "batch latent"]]

    def log_ratio(self) -> Float[Array, "sample batch"]:
        """Computes log p(z) - log q(z | x), over all groups."""
        return sum(self.log_p[name] - self.log_q[name] for name in self.log_q)

    def kl_by_group(self) -> dict[str, Float[Array, " batch"]]:
        """KL(q || p) of each group: in closed form where there is one, else from the samples."""
        return {
            name: (
                self.kl[name].sum(-1)
                if name in self.kl
                else (self.log_q[name] - self.log_p[name]).mean(0)
            )
            for name in self.log_q
        }


def stopped(tree: PyTree) -> PyTree:
    """Stops gradients through every leaf."""
    return jax.tree.map(jax.lax.stop_gradient, tree)
