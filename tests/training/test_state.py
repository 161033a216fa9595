"""The train state: players, mutable collections, averages."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest
import toy

from vaeflow.training import Player, create_train_state, variables_of
from vaeflow.training.state import LoopState


def test_new_state_shares_no_buffers():
    variables = toy.initialize()
    state = create_train_state(variables, optax.adam(1e-3))
    toy.equal(variables_of(state), variables)
    toy.equal(variables_of(state, ema=True), variables)
    assert state.step == 0
    assert list(state.players) == ["model"]
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state, variables))]
    assert len(set(buffers)) == len(buffers)


def test_variables_of_several_players():
    variables = {
        "params": {"first": {"a": jnp.ones(2)}, "second": {"b": jnp.zeros(3)}},
        "seen": {"count": jnp.int32(4)},
    }
    optimizers = {"second": optax.sgd(1.0), "first": optax.adam(1.0)}
    state = create_train_state(variables, optimizers, ema=False)
    assert list(state.players) == ["second", "first"]
    toy.equal(variables_of(state), variables)


def test_invalid_variables_raise():
    with pytest.raises(ValueError, match='must hold "params", got'):
        create_train_state({"weights": 1}, optax.sgd(1.0))
    with pytest.raises(ValueError, match=r"\['a', 'b'\], got \['a'\]"):
        create_train_state({"params": {"a": {}}}, {"a": optax.sgd(1.0), "b": optax.sgd(1.0)})
    state = create_train_state({"params": {"a": jnp.ones(1)}}, optax.sgd(1.0), ema=False)
    with pytest.raises(ValueError, match="ema must be False"):
        variables_of(state, ema=True)


def test_checkpoint_keys_are_those_of_all_versions():
    """Files of version 0.1.0 have these names; renamed fields must not change them."""
    train = create_train_state({"params": {"w": jnp.ones(1)}, "seen": {"n": 1}}, optax.sgd(1.0))
    state = LoopState(train, variables_of(train), {"loss": 1.0, "other": None}, 7)
    assert state.to_json() == {"evaluation": {"loss": 1.0, "other": None}, "evaluated_step": 7}
    paths = {jax.tree_util.keystr(path) for path, _ in jax.tree.flatten_with_path(state.tree())[0]}
    assert paths == {
        "['state'].step",
        "['state'].finite",
        "['state'].players['model'].parameters['w']",
        "['state'].state['seen']['n']",
        "['state'].ema['model']['w']",
        "['best']['params']['w']",
        "['best']['seen']['n']",
    }
    restored = LoopState.from_json(state.tree(), state.to_json())
    assert restored == state
    fields = {field.name for field in dataclasses.fields(Player)}
    assert fields == {"parameters", "optimizer_state"}
