"""Products of independent groups of dimensions, and log-densities and KL divergences per dimension.

Losses and metrics treat every posterior as groups: one that isn't `Grouped` is the group "z".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from tensorflow_probability.substrates.jax.distributions import RegisterKL

from vaeflow._util.arrays import check_event_shape
from vaeflow.distributions.concrete import Concrete
from vaeflow.distributions.gaussian import normals_of

WHOLE = "z"
"""Name of the only group of a distribution that isn't `Grouped`."""


class Grouped(distrax.Distribution):
    """Product of independent distributions, concatenated in one vector.

    log p(z) = sum_g log p_g(z^g).

    Shapes: events are ``[dimension]``, the sum of the groups' sizes; all groups have
    equal batch axes.
    """

    def __init__(self, groups: Mapping[str, distrax.Distribution]):
        """Builds the distribution.

        Args:
          groups: Distributions of vectors by name, in the order of their dimensions.

        Raises:
          ValueError: If there is none, or they differ in their batch axes.
        """
        super().__init__()
        batches = {distribution.batch_shape for distribution in groups.values()}
        if len(batches) != 1:
            shapes = {name: part.batch_shape for name, part in groups.items()}
            raise ValueError(f"groups must share their batch axes, got {shapes}")
        # Tuples, since pytrees sort the keys of dicts.
        self._names = tuple(groups)
        self._parts = tuple(groups.values())

    @property
    def groups(self) -> dict[str, distrax.Distribution]:
        """The distributions by name, in order."""
        return dict(zip(self._names, self._parts, strict=True))

    def split(
        self, value: Float[Array, "*batch dimension"]
    ) -> dict[str, Float[Array, "*batch part"]]:
        """Splits a vector into the groups, by name.

        Raises:
          ValueError: If the vector has another number of dimensions.
        """
        check_event_shape("Grouped", value.shape, self.event_shape)
        ends = list(itertools.accumulate(part.event_shape[0] for part in self._parts))
        pieces = jnp.split(value, ends[:-1], axis=-1)
        return dict(zip(self._names, pieces, strict=True))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return (sum(part.event_shape[0] for part in self._parts),)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return self._parts[0].batch_shape

    @property
    def dtype(self):
        """Type of the samples."""
        return jnp.result_type(*(part.dtype for part in self._parts))

    def log_prob(self, value: Float[Array, "*batch dimension"]) -> Float[Array, "*batch"]:
        """Computes the log-density in nats."""
        pieces = self.split(value)
        return sum(part.log_prob(pieces[name]) for name, part in self.groups.items())

    def log_cdf(self, value: Float[Array, "*batch dimension"]) -> Float[Array, "*batch"]:
        """Computes the logarithm of the probability that no dimension exceeds its value."""
        pieces = self.split(value)
        return sum(part.log_cdf(pieces[name]) for name, part in self.groups.items())

    def mean(self) -> Float[Array, "*batch dimension"]:
        """The means of the groups."""
        return jnp.concatenate([part.mean() for part in self._parts], axis=-1)

    def variance(self) -> Float[Array, "*batch dimension"]:
        """The variances of the groups."""
        return jnp.concatenate([part.variance() for part in self._parts], axis=-1)

    def mode(self) -> Float[Array, "*batch dimension"]:
        """The modes of the groups."""
        return jnp.concatenate([part.mode() for part in self._parts], axis=-1)

    def median(self) -> Float[Array, "*batch dimension"]:
        """The medians of the groups."""
        return jnp.concatenate([part.median() for part in self._parts], axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy in nats: the sum of those of the groups."""
        return sum(part.entropy() for part in self._parts)

    def _sample_n(self, key: Array, n: int) -> Array:
        keys = jax.random.split(key, len(self._parts))
        parts = [
            part.sample(seed=key, sample_shape=n)
            for part, key in zip(self._parts, keys, strict=True)
        ]
        return jnp.concatenate(parts, axis=-1)


@RegisterKL(Grouped, Grouped)
def _kl_of_groups(p: Grouped, q: Grouped, **kwargs: Any) -> Float[Array, "*batch"]:
    """Computes KL(p || q) in nats: the sum of those of the groups."""
    del kwargs
    sizes, others = (
        {name: part.event_shape for name, part in each.groups.items()} for each in (p, q)
    )
    if list(sizes.items()) != list(others.items()):
        raise ValueError(f"both must have the same groups, got {sizes} and {others}")
    parts = zip(p.groups.values(), q.groups.values(), strict=True)
    return sum(one.kl_divergence(other) for one, other in parts)


def groups_of(distribution: distrax.Distribution) -> dict[str, distrax.Distribution]:
    """Returns the groups of a distribution by name: only `WHOLE` if it isn't `Grouped`."""
    return distribution.groups if isinstance(distribution, Grouped) else {WHOLE: distribution}


def pieces_of(
    distribution: distrax.Distribution, value: Float[Array, "*batch latent"]
) -> dict[str, Float[Array, "*batch part"]]:
    """Splits vectors like `groups_of` splits their distribution, by name of the group.

    Args:
      distribution: Of vectors.
      value: Vectors, with any batch axes.
    """
    grouped = isinstance(distribution, Grouped)
    return distribution.split(value) if grouped else {WHOLE: value}


def per_dim_log_prob(
    distribution: distrax.Distribution, value: Float[Array, "*batch latent"]
) -> dict[str, Float[Array, "*batch dimension"]]:
    """Computes the log-density of each independent dimension, in nats, by group.

    Only independent normals factorize further. A `Concrete` variable counts as one dimension, with
    its relaxed log-probability sum_k x_k log pi_k, and any other group as one dimension.

    Args:
      distribution: Of vectors.
      value: Vectors, whose batch axes broadcast against those of the distribution.
    """
    pieces = pieces_of(distribution, value)
    return {name: _per_dim(part, pieces[name]) for name, part in groups_of(distribution).items()}


def _per_dim(part: distrax.Distribution, value: Array) -> Array:
    if (normal := normals_of(part)) is not None:
        return normal.log_prob(value)
    log_prob = part.log_mass(value) if isinstance(part, Concrete) else part.log_prob(value)
    return log_prob[..., None]


def per_dim_kl(
    q: distrax.Distribution, p: distrax.Distribution
) -> dict[str, Float[Array, "*batch dimension"]]:
    """Computes KL(q || p) of each independent dimension, in nats, for groups with a closed form.

    For normals log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2 with means m and
    deviations s. For `Concrete` variables that of their categories, sum_k pi_k log(pi_k / rho_k).

    Args:
      q: A distribution of vectors.
      p: Another, whose batch axes broadcast to those of q; of the same groups.

    Returns:
      Values for the groups where both sides are of one of these kinds; none for others.
    """
    others = groups_of(p)
    terms = {name: _kl(part, others.get(name)) for name, part in groups_of(q).items()}
    return {name: value for name, value in terms.items() if value is not None}


def _kl(q: distrax.Distribution, p: distrax.Distribution | None) -> Array | None:
    if isinstance(q, Concrete) and isinstance(p, Concrete):
        terms = jnp.exp(q.log_probability) * (q.log_probability - p.log_probability)
        return jnp.sum(terms, axis=-1, keepdims=True)
    q, p = normals_of(q), normals_of(p)
    if q is None or p is None:
        return None
    ratio = q.scale / p.scale
    distance = ((q.loc - p.loc) / p.scale) ** 2
    return 0.5 * (distance + (ratio - 1) * (ratio + 1)) - jnp.log(ratio)
