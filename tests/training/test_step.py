"""Training steps: updates, players, non-finite losses, microbatches, scans and compilations."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import vaeflow as vf
from vaeflow import training
from vaeflow._util.arrays import Axis
from vaeflow.losses import Aux
from vaeflow.training import parallel
from vaeflow.training.update import ema_decay_at

CONFIG = training.TrainConfig(batch_size=6)


def stream(count: int) -> list:
    return list(itertools.islice(toy.batches(CONFIG).stream(0), count))


def start(optimizer) -> training.TrainState:
    return training.create_train_state(toy.initialize(), optimizer)


def run(step, state, batches):
    history = []
    for batch in batches:
        state, metrics = step(state, batch)
        history.append(metrics)
    return state, history


def test_step_is_one_gradient_update():
    optimizer = optax.sgd(0.5)
    (batch,) = stream(1)
    variables = toy.initialize()

    @jax.jit
    def value_and_gradient():
        keys = jax.random.split(jax.random.fold_in(jax.random.key(3), 0), 6)

        def value(params):
            return toy.loss(
                toy.Model(), {**variables, "params": params}, batch, keys, axis=Axis(), train=True
            )[0]

        return jax.value_and_grad(value)(variables["params"])

    value, gradient = jax.device_get(value_and_gradient())
    step = training.make_train_step(toy.Model(), toy.loss, optimizer, seed=3)
    state, metrics = step(start(optimizer), batch)
    for new, old, slope in zip(
        *map(
            jax.tree.leaves,
            jax.device_get((state.players["model"].parameters, variables["params"], gradient)),
        ),
        strict=True,
    ):
        np.testing.assert_allclose(new, old - 0.5 * slope, rtol=1e-5, atol=1e-7)
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    assert state.state["statistics"]["count"] == 1


@pytest.mark.parametrize("step", [0, 500])
def test_average_follows_the_parameters_by_its_decay(step):
    optimizer, decay = optax.sgd(0.5), 0.9
    (batch,) = stream(1)
    before = start(optimizer)
    before = dataclasses.replace(before, step=jnp.int32(step))
    update = training.make_train_step(toy.Model(), toy.loss, optimizer, seed=0, ema_decay=decay)
    initial = jax.device_get(before.ema["model"])
    after = jax.device_get(update(before, batch)[0])
    kept = min(decay, (1 + step) / (10 + step))

    def expected(old, new):
        return kept * old + (1 - kept) * new

    found = after.ema["model"], jax.tree.map(expected, initial, after.players["model"].parameters)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *found)


def test_noise_depends_on_seed_and_step():
    optimizer = optax.sgd(0.0)
    (batch,) = stream(1)
    losses = []
    for seed in (0, 0, 1):
        step = training.make_train_step(toy.Model(), toy.loss, optimizer, seed=seed)
        losses.append([float(m["loss"]) for m in run(step, start(optimizer), [batch] * 2)[1]])
    assert losses[0] == losses[1]
    assert len({*losses[0], *losses[2]}) == 4


def test_weight_schedules_are_traced_and_step_compiles_once():
    traces = []

    def counted(*arguments, **options):
        traces.append(1)
        return toy.loss(*arguments, **options)

    optimizer = optax.adam(1e-3)
    step = training.make_train_step(
        toy.Model(), counted, optimizer, seed=0, weights={"weight": lambda step: 1.0 + step}
    )
    state, batches = start(optimizer), stream(4)
    with toy.compilations() as compiled:
        _, history = run(step, state, batches)
    assert [float(metrics["weight"]) for metrics in history] == [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_allclose(history[3]["loss"], 4 * history[3]["error"], rtol=1e-6)
    assert len(traces) == 1
    assert len(compiled) == 1


def test_moving_average_follows_its_recurrence():
    def pull(model, variables, batch, rng, *, axis, train):
        return jnp.square(variables["params"]["a"] - 5.0), Aux({}, {})

    state = training.create_train_state({"params": {"a": jnp.zeros(())}}, optax.sgd(0.1))
    step = training.make_train_step(None, pull, optax.sgd(0.1), seed=0, ema_decay=0.999)
    expected, parameters = 0.0, []
    for t in range(100):
        state, _ = step(state, {"image": np.zeros((1, 1))})
        parameters.append(float(state.players["model"].parameters["a"]))
        decay = min(0.999, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * parameters[-1]
    assert float(state.ema["model"]["a"]) == pytest.approx(expected, rel=1e-5)
    assert float(state.ema["model"]["a"]) > 4.9
    assert float(ema_decay_at(0.999, jnp.int32(10**6))) == pytest.approx(0.999)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_non_finite_step_freezes_the_state(where):
    optimizer = optax.adam(1e-2)

    def broken(model, variables, batch, rng, *, axis, train):
        value, aux = toy.loss(model, variables, batch, rng, axis=axis, train=train)
        bad = batch["bad"][0]
        if where == "loss":
            return value + jnp.where(bad, jnp.inf, 0.0), aux
        # The square root of zero is finite, its slope isn't.
        square = 1.0 + jnp.sum(variables["params"]["Dense_0"]["kernel"] ** 2)
        return value + jnp.sqrt(jnp.where(bad, 0.0, 1.0) * square), aux

    step = training.make_train_step(toy.Model(), broken, optimizer, seed=0)
    batches = [
        {**batch, "bad": np.full(6, position == 2)} for position, batch in enumerate(stream(5))
    ]
    good, _ = run(step, start(optimizer), batches[:2])
    good = jax.tree.map(np.array, good)
    state, history = run(step, start(optimizer), batches)
    assert np.isfinite(history[1]["gradient_norm"])
    assert not np.isfinite(history[2]["gradient_norm" if where == "gradient" else "loss"])
    assert np.isfinite(history[3]["gradient_norm"])
    assert state.step == 2
    assert not state.finite
    toy.equal(state.replace(finite=np.array(True)), good)


def test_players_are_updated_in_order_by_their_losses():
    def first(model, variables, batch, rng, *, axis, train, push):
        a, b = (variables["params"][name]["value"] for name in ("a", "b"))
        return push * a + 100.0 * b, Aux({"b": b}, {"seen": {"count": jnp.int32(1)}})

    def second(model, variables, batch, rng, *, axis, train):
        a, b = (variables["params"][name]["value"] for name in ("a", "b"))
        count = variables["seen"]["count"]
        noise = jax.random.normal(rng[0])
        return a * b, Aux({"a": a, "count": count, "noise": noise}, {})

    optimizers = {"a": optax.sgd(1.0), "b": optax.sgd(0.5)}
    variables = {
        "params": {"a": {"value": jnp.float32(1)}, "b": {"value": jnp.float32(2)}},
        "seen": {"count": jnp.int32(0)},
    }
    step = training.make_train_step(
        None, {"a": first, "b": second}, optimizers, seed=0, weights={"a": {"push": 3.0}}
    )
    state, metrics = step(
        training.create_train_state(variables, optimizers), {"image": np.zeros((2, 1))}
    )
    assert float(state.players["a"].parameters["value"]) == 1 - 3
    assert float(metrics["b/a"]) == 1 - 3
    assert int(metrics["b/count"]) == 1
    assert float(state.players["b"].parameters["value"]) == 2 - 0.5 * (1 - 3)
    assert {"a/loss", "b/loss", "a/gradient_norm", "b/gradient_norm", "a/b"} <= set(metrics)
    noise = jax.random.normal(training.make_strategy().keys(0, jnp.int32(0), 2)[0])
    assert float(metrics["b/noise"]) != float(noise)


def test_update_over_a_named_axis_equals_undivided_update():
    optimizer = optax.sgd(0.3)
    (batch,) = stream(1)
    keys = training.make_strategy().keys(0, jnp.int32(0), 6)
    full = training.make_update(toy.Model(), toy.loss, optimizer)
    parts = training.make_update(toy.Model(), toy.loss, optimizer, axis=Axis("data"))

    @jax.jit
    def both(state):
        divided = jax.tree.map(lambda rows: rows.reshape(2, 3, *rows.shape[1:]), (batch, keys))
        over_parts = jax.vmap(parts, in_axes=(None, 0, 0), axis_name="data")
        return full(state, batch, keys), over_parts(state, *divided)

    expected, actual = both(start(optimizer))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
        np.testing.assert_allclose(np.stack([a, a]), b, rtol=1e-5, atol=1e-7)


@pytest.mark.optimized
@pytest.mark.slow
def test_scanned_steps_equal_single_steps():
    optimizer = optax.adam(1e-2)
    options = {"seed": 0, "weights": {"weight": lambda step: 1.0 + step}}
    single = training.make_train_step(toy.Model(), toy.loss, optimizer, **options)
    expected, history = run(single, start(optimizer), stream(7))

    scanned = training.make_train_step(toy.Model(), toy.loss, optimizer, scan_steps=4, **options)
    batches = toy.batches(CONFIG)
    examples = batches.examples()
    state, scalars = start(optimizer), []
    for first, count in ((0, 3), (3, 4)):
        rows = list(itertools.islice(batches.plan(first), 4))
        plan = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        with toy.compilations() as compiled:
            state, metrics = scanned(state, examples, plan, np.int32(count))
        assert metrics["loss"].shape == (4,)
        scalars += [{k: v[i] for k, v in metrics.items()} for i in range(count)]
        assert not (first and compiled)
    toy.equal(state, expected)
    toy.equal(scalars, history)


def test_scan_steps_is_the_length_of_the_plan():
    step = training.make_train_step(toy.Model(), toy.loss, optax.sgd(1.0), seed=0, scan_steps=3)
    batches = toy.batches(CONFIG)
    plan = jax.tree.map(lambda *rows: np.stack(rows), *itertools.islice(batches.plan(0), 2))
    with pytest.raises(ValueError, match="plan must have scan_steps=3 batches, got 2"):
        step(start(optax.sgd(1.0)), batches.examples(), plan, np.int32(2))
    with pytest.raises(ValueError, match="scan_steps must be at least 1, got 0"):
        training.make_train_step(toy.Model(), toy.loss, optax.sgd(1.0), seed=0, scan_steps=0)


def test_state_is_replicated_once(monkeypatch):
    original, calls = parallel.replicate, []

    def replicate(tree, mesh):
        calls.append(tree)
        return original(tree, mesh)

    monkeypatch.setattr(parallel, "replicate", replicate)
    step = training.make_train_step(toy.Model(), toy.loss, optax.sgd(1.0), seed=0)
    run(step, start(optax.sgd(1.0)), stream(3))
    assert len(calls) == 1


def test_unknown_player_names_raise():
    with pytest.raises(ValueError, match=r"losses must be named \['model'\], got \['critic'\]"):
        training.make_update(None, {"critic": toy.loss}, optax.sgd(1.0))
    with pytest.raises(ValueError, match=r"among \['a'\], got \['b'\]"):
        training.make_update(None, {"a": toy.loss}, {"a": optax.sgd(1.0)}, weights={"b": {}})


@pytest.mark.slow
def test_bfloat16_networks_keep_float32_state():
    flow = vf.flows.Glow(
        (4, 4, 1), num_levels=1, num_steps=2, hidden_features=8, dtype=jnp.bfloat16
    )
    model = vf.models.FlowModel(flow, vf.models.UniformDequantizer())
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    optimizer = optax.adam(1e-2)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    state = training.create_train_state(variables, optimizer)
    loss = vf.losses.negative_log_likelihood
    step = training.make_train_step(model, loss, optimizer, seed=0)
    after, history = run(step, state, [{"image": images}] * 5)
    types = {leaf.dtype for leaf in jax.tree.leaves((after.players, after.ema))}
    assert types == {jnp.dtype("float32"), jnp.dtype("int32")}  # integers: the count of Adam
    assert all(metrics["loss"].dtype == jnp.float32 for metrics in history)
    assert history[-1]["loss"] < history[0]["loss"]


def test_microbatches_equal_the_full_batch():
    """Rows, noise and flips included; the collection counts each part."""
    optimizer = optax.adam(1e-2)
    (batch,) = stream(1)
    full, parts = (
        training.make_train_step(toy.Model(), toy.loss, optimizer, seed=0, accumulate=count)
        for count in (1, 3)
    )
    expected, scalars = full(start(optimizer), batch)
    actual, actual_metrics = parts(start(optimizer), batch)
    assert (expected.state["statistics"]["count"], actual.state["statistics"]["count"]) == (1, 3)
    for a, b in zip(
        jax.tree.leaves((expected.players, expected.ema, scalars)),
        jax.tree.leaves((actual.players, actual.ema, actual_metrics)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)
    with pytest.raises(ValueError, match="accumulate must divide the rows of a batch, got 4 for 6"):
        training.make_train_step(toy.Model(), toy.loss, optimizer, seed=0, accumulate=4)(
            start(optimizer), batch
        )
