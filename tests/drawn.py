"""Distributions, samples and densities, each from one program rather than one for each step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import distrax
import jax
import numpy as np

KEY = jax.random.key(3)
SHAPE = (4, 5)
"""Of the samples."""


class Drawn(NamedTuple):
    """A distribution, samples of it, and their densities computed in two ways."""

    distribution: distrax.Distribution
    samples: np.ndarray
    log_prob: np.ndarray
    again: np.ndarray


@functools.cache
def drawn(make: Callable[..., distrax.Distribution], *batch: int) -> Drawn:
    """Makes a distribution of a batch shape."""

    @jax.jit
    def run() -> Any:
        distribution = make(*batch)
        samples, density = distribution.sample_and_log_prob(seed=KEY, sample_shape=SHAPE)
        return distribution, (samples, density, distribution.log_prob(samples))

    distribution, rest = run()
    return Drawn(distribution, *jax.device_get(rest))


def made(make: Callable[..., distrax.Distribution], *batch: int) -> distrax.Distribution:
    """The distribution alone."""
    return drawn(make, *batch).distribution


@jax.jit
def log_prob(distribution: distrax.Distribution, value: Any) -> Any:
    """The density, of a distribution that is given as an argument."""
    return distribution.log_prob(value)


@functools.partial(jax.jit, static_argnames="shape")
def sample(distribution: distrax.Distribution, shape: tuple[int, ...]) -> Any:
    """Samples alone."""
    return distribution.sample(seed=KEY, sample_shape=shape)
