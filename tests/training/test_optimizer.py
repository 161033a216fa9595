"""Optimisers, schedules and the ranges of `TrainConfig`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vaeflow.training import TrainConfig, make_optimizer, make_schedule


def test_warmup_with_constant_and_cosine_schedules():
    options = {"steps": 10, "learning_rate": 0.4, "warmup_steps": 4}
    constant = make_schedule(TrainConfig(**options))
    np.testing.assert_allclose(
        [constant(t) for t in range(10)], [0.1, 0.2, 0.3] + [0.4] * 7, rtol=1e-6
    )
    cosine = make_schedule(TrainConfig(**options, schedule="cosine"))
    falling = [0.2 * (1 + np.cos(np.pi * t / 6)) for t in range(7)]
    np.testing.assert_allclose(
        [cosine(t) for t in range(11)], [0.1, 0.2, 0.3, 0.4, *falling], rtol=1e-5, atol=1e-8
    )
    assert make_schedule(TrainConfig(learning_rate=0.4))(0) == 0.4
    one = make_schedule(TrainConfig(learning_rate=0.4, warmup_steps=1))
    assert [float(one(t)) for t in range(2)] == pytest.approx([0.4, 0.4])


def test_constant_learning_rate_is_halved_repeatedly():
    halved = make_schedule(TrainConfig(learning_rate=0.8, halve_every=3))
    expected = [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1]
    np.testing.assert_allclose([halved(t) for t in range(10)], expected, rtol=1e-6)
    np.testing.assert_allclose(halved(3 * 20 + 2), 0.8 / 2**20, rtol=1e-5)
    # The first halving is that many steps after the warm-up.
    warmed = make_schedule(TrainConfig(learning_rate=0.8, halve_every=3, warmup_steps=2))
    np.testing.assert_allclose([warmed(t) for t in range(12)], [0.4, 0.8, *expected], rtol=1e-6)


def test_decays_are_the_betas_of_adam():
    optimizer = make_optimizer(TrainConfig(learning_rate=0.1), (0.5, 0.9))
    reference = optax.adam(0.1, b1=0.5, b2=0.9)
    parameters = {"kernel": jnp.array([1.0, -2.0])}
    state, other = optimizer.init(parameters), reference.init(parameters)
    for slope in ([1.0, 2.0], [-3.0, 0.5], [0.1, 4.0]):
        change, state = optimizer.update({"kernel": jnp.array(slope)}, state, parameters)
        expected, other = reference.update({"kernel": jnp.array(slope)}, other, parameters)
        np.testing.assert_allclose(change["kernel"], expected["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "reference"), [("adam", optax.adam(0.1)), ("adamax", optax.adamax(0.1))]
)
def test_optimizer_matches_optax(name, reference):
    optimizer = make_optimizer(TrainConfig(optimizer=name, learning_rate=0.1))
    parameters = {"kernel": jnp.array([1.0, -2.0])}
    state, other = optimizer.init(parameters), reference.init(parameters)
    for slope in ([1.0, 2.0], [-3.0, 0.5]):
        change, state = optimizer.update({"kernel": jnp.array(slope)}, state, parameters)
        expected, other = reference.update({"kernel": jnp.array(slope)}, other, parameters)
        np.testing.assert_allclose(change["kernel"], expected["kernel"], rtol=1e-6)


def test_gradients_are_clipped_by_global_norm():
    clipped = make_optimizer(TrainConfig(clip_norm=1.0))
    plain = make_optimizer(TrainConfig())
    parameters = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    gradient = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    small = {"a": jnp.array([0.6]), "b": jnp.array([0.8])}
    state = clipped.update(gradient, clipped.init(parameters), parameters)[1]
    expected = plain.update(small, plain.init(parameters), parameters)[1]
    moments = optax.tree.get(state, "mu"), optax.tree.get(expected, "mu")
    np.testing.assert_allclose(moments[0]["a"], moments[1]["a"], rtol=1e-6)
    np.testing.assert_allclose(moments[0]["b"], moments[1]["b"], rtol=1e-6)


def test_weight_decay_applies_to_kernels_alone():
    optimizer = make_optimizer(TrainConfig(learning_rate=0.1, weight_decay=0.5))
    parameters = {"layer": {"kernel": jnp.full((3, 2, 2), 4.0), "bias": jnp.full((2, 2), 4.0)}}
    gradient = {"layer": {"kernel": jnp.zeros((3, 2, 2)), "bias": jnp.zeros((2, 2))}}
    change, _ = optimizer.update(gradient, optimizer.init(parameters), parameters)
    np.testing.assert_allclose(change["layer"]["kernel"], -0.1 * 0.5 * 4.0, rtol=1e-6)
    np.testing.assert_array_equal(change["layer"]["bias"], 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "train.steps must be at least 1, got 0"),
        ({"batch_size": -3}, "train.batch_size must be at least 1, got -3"),
        ({"seed": -1}, "train.seed must be at least 0, got -1"),
        ({"learning_rate": 0.0}, "train.learning_rate must be above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "train.learning_rate must be finite, got nan"),
        ({"ema_decay": 1.0}, r"train.ema_decay must be in \[0, 1\), got 1.0"),
        ({"halve_every": -1}, "train.halve_every must be at least 0, got -1"),
        (
            {"halve_every": 5, "schedule": "cosine"},
            "train.halve_every must be 0 with a cosine, got 5",
        ),
        ({"optimizer": "sgd"}, r"train.optimizer must be one of \('adam', 'adamax'\), got 'sgd'"),
    ],
)
def test_values_out_of_range_raise(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)
