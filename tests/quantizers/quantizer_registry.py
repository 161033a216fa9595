"""Every public quantizer, in the kinds that behave differently.

A new quantizer gets entries here, and with them the laws of `test_quantizer_laws.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import quantizers
from vaeflow.quantizers import (
    FiniteScalarQuantizer,
    GroupedQuantizer,
    GumbelQuantizer,
    LookupFreeQuantizer,
    MovingAverage,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
    rotation_trick,
)

KEY = jax.random.key(6)
FEATURES = jax.random.normal(jax.random.key(5), (5, 3, 2, 4))

Pullback = Callable[["Entry", np.ndarray, np.ndarray], np.ndarray]


def identity(entry, features, cotangent):
    """Of the straight-through gradient."""
    return cotangent


def rotated(entry, features, cotangent):
    """The transpose of lambda R, each matrix written out; of groups, for each of them."""
    codes = np.asarray(entry.evaluate(entry.variables, features).values, np.float64)
    features, result = np.asarray(features, np.float64), np.zeros(features.shape)
    for place in np.ndindex(features.shape[:-1]):
        x, e = features[place], codes[place]
        lengths = np.linalg.norm(x), np.linalg.norm(e)
        x, e = x / lengths[0], e / lengths[1]
        r = (x + e) / np.linalg.norm(x + e)
        rotation = np.eye(len(x)) - 2 * np.outer(r, r) + 2 * np.outer(e, x)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(len(x)), atol=1e-6)
        result[place] = (lengths[1] / lengths[0]) * rotation.T @ cotangent[place]
    return result


def of_direction(entry, features, cotangent):
    """That of x / ||x||: (I - u u^T) / ||x||."""
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    direction = features / length
    along = np.sum(direction * cotangent, axis=-1, keepdims=True)
    return (cotangent - along * direction) / length


def of_levels(entry, features, cotangent):
    """h (1 - tanh(x + a)^2) / floor(L / 2) for each channel."""
    quantizer = entry.quantizer
    while isinstance(quantizer, GroupedQuantizer):
        quantizer = quantizer.quantizer
    levels = np.resize(quantizer.levels, features.shape[-1])
    half = 1.001 * (levels - 1) / 2
    shift = np.arctanh(np.where((levels % 2 == 0) & (levels > 2), 0.5, 0) / half)
    return cotangent * half / np.cosh(features + shift) ** 2 / (levels // 2)


def of_relaxed_sample(entry, features, cotangent):
    """That of softmax(x W + b) E: nothing is drawn in evaluation."""
    parameters = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), entry.variables["params"])
    kernel, codes = parameters["logits"]["kernel"], parameters["codebook"]
    logits = features @ kernel + parameters["logits"]["bias"]
    y = np.exp(logits) / np.sum(np.exp(logits), axis=-1, keepdims=True)
    toward = cotangent @ codes.T
    return (y * (toward - np.sum(y * toward, axis=-1, keepdims=True))) @ kernel.T


@dataclasses.dataclass(frozen=True)
class Entry:
    """A quantizer of four channels.

    Attributes:
      public: The class that the entry is about.
      variant: What sets it apart from other entries of the class.
      quantizer: The module.
      pullback: Of the quantised values in evaluation, in numpy.
      idempotent: Whether quantised values are their own codes.
      exact: Whether values in training are those of single codes.
      coupled: Names of losses that depend on other rows.
      slow: Whether its laws are left to `-m slow`, since those of other entries imply them.
    """

    public: type
    variant: str
    quantizer: Quantizer
    pullback: Pullback = identity
    idempotent: bool = False
    exact: bool = True
    coupled: tuple[str, ...] = ()
    slow: bool = False

    @property
    def name(self) -> str:
        return f"{self.public.__name__}-{self.variant}"

    @functools.cached_property
    def variables(self) -> dict:
        return jax.jit(self.quantizer.init)(KEY, FEATURES)

    @functools.cached_property
    def evaluate(self) -> Callable:
        return jax.jit(self.quantizer.apply)

    @functools.cached_property
    def train(self) -> Callable:
        """From variables, features and keys to the result and new collections."""

        def train(variables, features, rng):
            return self.quantizer.apply(variables, features, rng, train=True, mutable=["codebook"])

        return jax.jit(train)

    @functools.cached_property
    def gradient(self) -> Callable:
        """Losses and values of each row, and the gradients of the sum of those that aren't NaN."""

        def total(params, variables, features):
            result = self.quantizer.apply({**variables, "params": params}, features)
            terms = sum(result.losses.values()) + jnp.sum(result.values, axis=(1, 2, 3))
            return jnp.nansum(terms), terms

        def gradient(variables, features):
            slope = jax.grad(total, (0, 2), has_aux=True)
            gradients, terms = slope(variables.get("params", {}), variables, features)
            return terms, gradients

        return jax.jit(gradient)

    @functools.cached_property
    def lookup(self) -> Callable:
        return jax.jit(lambda *arguments: self.quantizer.apply(*arguments, method="lookup"))


EVEN = MovingAverage(decay=0.5, restart_below=0.5)
GUMBEL = GumbelQuantizer(6)

ENTRIES = (
    Entry(VectorQuantizer, "averaged", VectorQuantizer(6, average=EVEN), idempotent=True),
    Entry(VectorQuantizer, "by gradients", VectorQuantizer(6, average=None), idempotent=True),
    Entry(
        VectorQuantizer,
        "rotation",
        VectorQuantizer(6, average=None, gradient=rotation_trick),
        rotated,
        idempotent=True,
    ),
    Entry(
        VectorQuantizer,
        "cosine",
        VectorQuantizer(6, average=MovingAverage(restart_below=0), cosine=True),
        of_direction,
        idempotent=True,
    ),
    Entry(
        ResidualQuantizer, "dropout", ResidualQuantizer(6, num_stages=3, average=EVEN, dropout=True)
    ),
    Entry(
        ResidualQuantizer,
        "shared",
        ResidualQuantizer(6, num_stages=3, average=EVEN, shared=True),
        slow=True,
    ),
    Entry(
        ResidualQuantizer,
        "rotation",
        ResidualQuantizer(6, num_stages=2, average=None, gradient=rotation_trick, shared=True),
        rotated,
    ),
    Entry(
        GroupedQuantizer,
        "vectors",
        GroupedQuantizer(VectorQuantizer(6, average=EVEN), num_groups=2),
        idempotent=True,
    ),
    Entry(
        GroupedQuantizer,
        "residuals",
        GroupedQuantizer(
            ResidualQuantizer(6, num_stages=2, average=EVEN, dropout=True), num_groups=2
        ),
        slow=True,
    ),
    Entry(
        GroupedQuantizer,
        "levels",
        GroupedQuantizer(FiniteScalarQuantizer((3, 4)), num_groups=2),
        of_levels,
    ),
    Entry(FiniteScalarQuantizer, "levels", FiniteScalarQuantizer((3, 8, 2, 5)), of_levels),
    Entry(
        LookupFreeQuantizer,
        "bits",
        LookupFreeQuantizer(4, 2.0),
        idempotent=True,
        coupled=("entropy",),
    ),
    Entry(GumbelQuantizer, "hard", GUMBEL, of_relaxed_sample),
    Entry(GumbelQuantizer, "relaxed", GUMBEL.copy(hard=False), of_relaxed_sample, exact=False),
)

FIRST = tuple({entry.public: entry for entry in reversed(ENTRIES)}.values())
"""One entry of each class."""


def missing() -> set[type]:
    """The public quantizers that no entry is about."""
    public = {getattr(quantizers, name) for name in quantizers.__all__}
    kinds = {kind for kind in public if inspect.isclass(kind) and issubclass(kind, Quantizer)}
    return kinds - {Quantizer} - {entry.public for entry in ENTRIES}


def numbers(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)
