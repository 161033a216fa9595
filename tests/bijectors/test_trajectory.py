"""States between the steps of bijectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import makers
from vaeflow import bijectors
from vaeflow.bijectors.compose import Stepwise

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (5, 4))
DOUBLE = bijectors.ElementwiseAffine(jnp.zeros(4), jnp.log(jnp.full(4, 2.0)))


def one_by_one(stack, x, inverse=False):
    """The states by a loop over the steps."""
    states = [x]
    order = range(3)[::-1] if inverse else range(3)
    for number in order:
        variables = jax.tree.map(lambda leaf, number=number: leaf[number], stack.variables)
        step = stack.step(variables, stack.context)
        states.append(step.inverse(states[-1]) if inverse else step.forward(states[-1]))
    return jnp.stack(states)


@pytest.mark.parametrize(
    "options", [{}, {"backward": "reversible"}, {"backward": "remat"}, {"unroll": True}], ids=str
)
def test_states_of_a_scan_are_those_of_its_steps(options):
    stack = makers.scan(**options)(KEY)
    for inverse in (False, True):
        states = stack.states(X, inverse)
        np.testing.assert_allclose(states, one_by_one(stack, X, inverse), rtol=1e-5, atol=1e-5)
        whole = stack.inverse(X) if inverse else stack.forward(X)
        np.testing.assert_allclose(states[-1], whole, rtol=1e-5, atol=1e-5)


def test_states_use_the_context_and_are_float32():
    context = jax.random.normal(jax.random.key(2), (5, 2))
    stack = makers.scan()(KEY, context)
    states = stack.states(X.astype(jnp.bfloat16))
    assert states.dtype == jnp.float32
    expected = one_by_one(stack, X.astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_allclose(states, expected, rtol=1e-5, atol=1e-5)


def test_trajectory_of_chains_and_inverses():
    stack = makers.scan()(KEY)
    flow = bijectors.Chain([DOUBLE, bijectors.Inverse(stack)])
    states = bijectors.trajectory(flow, X)
    assert states.shape == (5, 5, 4)  # noise, three steps, the scale
    np.testing.assert_array_equal(states[0], X)
    back = one_by_one(stack, X, inverse=True)
    np.testing.assert_allclose(states[:4], back, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(states[4], 2 * back[3], rtol=1e-5, atol=1e-5)
    returned = bijectors.trajectory(flow, states[-1], inverse=True)
    np.testing.assert_allclose(returned, states[::-1], rtol=1e-4, atol=1e-4)


def test_other_bijectors_are_one_step():
    assert not isinstance(DOUBLE, Stepwise)
    np.testing.assert_allclose(
        bijectors.trajectory(DOUBLE, X), jnp.stack([X, 2 * X]), rtol=1e-6, atol=1e-6
    )


def test_changing_shapes_raises():
    flatten = bijectors.Reshape((2, 2), (4,))
    with pytest.raises(ValueError, match=r"\(3, 2, 2\) to \(3, 4\)"):
        bijectors.trajectory(flatten, jnp.ones((3, 2, 2)))
