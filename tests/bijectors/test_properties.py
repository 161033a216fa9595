"""Maps of vectors at parameters, inputs and contexts of all sizes, searched by hypothesis."""

from __future__ import annotations

import fnmatch
import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from tests import registry
from vaeflow.testing.pytrees import float_leaves, leaf_names, replace_float_leaves

EXAMPLES = 70
"""Cases of each entry."""

ENTRIES = [
    entry
    for entry in registry.BIJECTORS
    if len(entry.event_shape) == 1 and not entry.public.__name__.startswith("Scan")
]
BATCH = (2, 3)
BOUND = ("basis", "*.basis")
"""Leaves whose size isn't free: orthonormal columns."""
SATURATED = {"Logit", "Sigmoid"}
"""Maps to and from an interval, at whose ends float32 can't tell values apart."""
ROUNDING = 3e-7
"""A relative change of inputs that float32 rounding may make."""


def sizes(least: float, most: float) -> strategies.SearchStrategy[float]:
    """Numbers that are as likely in each decade."""
    exponents = strategies.floats(np.log10(least), np.log10(most))
    return exponents.map(lambda exponent: 10.0**exponent)


@functools.cache
def compiled(entry: registry.Entry):
    """Compiles both directions of an entry's bijector, with its leaves multiplied by a factor."""

    @jax.jit
    def run(key, factor, x, context):
        bijector = entry.make(key) if context is None else entry.make(key, context)
        constant = [
            any(fnmatch.fnmatchcase(name, pattern) for pattern in (*entry.constant, *BOUND))
            for name in leaf_names(bijector)
        ]
        leaves = [
            leaf if kept else factor * leaf
            for leaf, kept in zip(float_leaves(bijector), constant, strict=True)
        ]
        bijector = replace_float_leaves(bijector, leaves)
        # One program for x and for x nudged both ways.
        nudged = jnp.stack([x, x * (1 - ROUNDING), x * (1 + ROUNDING)])
        images, log_dets = jax.vmap(bijector.forward_and_log_det)(nudged)
        y, log_det = images[0], log_dets[0]
        back, back_log_det = bijector.inverse_and_log_det(y)
        again, again_log_det = bijector.forward_and_log_det(back)
        spread = jnp.sum(jnp.abs(images - y), axis=0)
        log_det_spread = jnp.sum(jnp.abs(log_dets - log_det), axis=0)
        return y, log_det, back, back_log_det, again, again_log_det, spread, log_det_spread

    return run


def test_there_are_two_thousand_cases() -> None:
    """The entries and the cases of each make 2,000 or more."""
    assert EXAMPLES * len(ENTRIES) >= 2000
    assert len({entry.public for entry in ENTRIES}) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_round_trips_at_every_size(entry: registry.Entry) -> None:
    """Images are finite and invert, and a bad example is isolated."""
    cases = []

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(
        seed=strategies.integers(0, 2**31 - 1),
        factor=sizes(0.05, 2.0),
        size=sizes(1e-3, 1.0 if entry.public.__name__ in SATURATED else 30.0),
        context_size=sizes(1e-2, 2.0),
        bad=strategies.sampled_from([jnp.nan, jnp.inf, -jnp.inf]),
    )
    def check(seed, factor, size, context_size, bad):
        cases.append(seed)
        keys = jax.random.split(jax.random.key(seed), 3)
        x = size * jax.random.normal(keys[0], (*BATCH, *entry.event_shape))
        context = None
        if entry.context_shape is not None:
            shape = (*BATCH[1:], *entry.context_shape)
            context = context_size * jax.random.normal(keys[1], shape)
        run = functools.partial(compiled(entry), keys[2], factor, context=context)
        y, log_det, back, back_log_det, again, again_log_det, spread, log_det_spread = map(
            np.asarray, run(x)
        )
        assert log_det.shape == back_log_det.shape == BATCH
        assert np.all(np.isfinite(y))
        assert np.all(np.isfinite(log_det))
        assert np.all(np.isfinite(back))
        # The image of what came back, as ill-conditioned maps may come back elsewhere.
        assert np.all(np.abs(again - y) <= 1e-3 * (1 + np.abs(y).max()) + 100 * spread)
        # At the point that came back, for the same reason.
        slack = 1e-3 * (1 + np.abs(log_det)) + 100 * log_det_spread
        assert np.all(np.abs(again_log_det + back_log_det) <= slack)
        spoilt = run(x.at[1, 2, 0].set(bad))
        others = np.ones(BATCH, bool)
        others[1, 2] = False
        for value, clean in zip(spoilt[:4], (y, log_det, back, back_log_det), strict=True):
            np.testing.assert_array_equal(np.asarray(value)[others], clean[others])
        if np.isnan(bad):  # maps onto an interval take infinity to its end
            assert not np.all(np.isfinite(np.asarray(spoilt[0])[1, 2]))

    check()
    assert len(cases) >= EXAMPLES
