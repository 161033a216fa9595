"""The train state: players, mutable collections, averages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest
import toy

from vaeflow.training import create_train_state, variables_of


def test_a_new_state_holds_the_variables_once_each_and_its_own():
    variables = toy.initialize()
    state = create_train_state(variables, optax.adam(1e-3))
    toy.equal(variables_of(state), variables)
    toy.equal(variables_of(state, ema=True), variables)
    assert state.step == 0
    assert list(state.players) == ["model"]
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state, variables))]
    assert len(set(buffers)) == len(buffers)


def test_several_players_share_one_dictionary_of_variables():
    variables = {
        "params": {"first": {"a": jnp.ones(2)}, "second": {"b": jnp.zeros(3)}},
        "seen": {"count": jnp.int32(4)},
    }
    optimizers = {"second": optax.sgd(1.0), "first": optax.adam(1.0)}
    state = create_train_state(variables, optimizers, ema=False)
    assert list(state.players) == ["second", "first"]
    toy.equal(variables_of(state), variables)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='must hold "params", got'):
        create_train_state({"weights": 1}, optax.sgd(1.0))
    with pytest.raises(ValueError, match=r"\['a', 'b'\], got \['a'\]"):
        create_train_state({"params": {"a": {}}}, {"a": optax.sgd(1.0), "b": optax.sgd(1.0)})
    state = create_train_state({"params": {"a": jnp.ones(1)}}, optax.sgd(1.0), ema=False)
    with pytest.raises(ValueError, match="ema must be False"):
        variables_of(state, ema=True)
