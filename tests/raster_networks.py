"""Small networks over maps of codes, with noise on their parameters."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from tests.variables import drawn_variables, noisy
from vaeflow import nn

KEY = jax.random.key(5)
CODES = 5
CONTEXTS = {"none": None, "vectors": (3,), "maps": (3, 4, 3)}


def gated(shape=(3, 4), codes=CODES, **options):
    return nn.GatedPixelCNN(shape, num_codes=codes, **{"channels": 8, "num_blocks": 2} | options)


def snail(shape=(3, 4), codes=CODES, **options):
    sizes = {"channels": 8, "num_blocks": 1, "num_residuals": 1, "num_heads": 2}
    return nn.PixelSNAIL(shape, num_codes=codes, **sizes | options)


NETWORKS = {"GatedPixelCNN": gated, "PixelSNAIL": snail}


def context_of(kind, rows):
    event = CONTEXTS[kind]
    return None if event is None else jax.random.normal(KEY, (rows, *event))


@functools.partial(jax.jit, static_argnums=(0, 1))
def maps_of(network, rows):
    return jax.random.randint(KEY, (rows, *network.map_shape), 0, network.num_codes)


def initialised(network, context=None):
    """Variables, which are made once for each network and shape of contexts.

    Not for use in a function that is being compiled, which the cache would outlive: see
    `noisy_variables`.
    """
    return _initialised(network, None if context is None else context.shape[1:])


@functools.cache
def _initialised(network, shape):
    example = None if shape is None else jnp.zeros((1, *shape))
    return noisy(drawn_variables(network.init, maps_of(network, 1), example), 0.3)


def noisy_variables(network, context=None):
    return noisy(network.init(KEY, maps_of(network, 1), context), 0.3)
