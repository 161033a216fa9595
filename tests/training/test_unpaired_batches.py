"""Batches of two unpaired domains: the contract of `BatchSource`, and independent orders."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from vaeflow import data, training
from vaeflow.data.dataset import array_part
from vaeflow.losses import Aux
from vaeflow.training.batches import groups
from vaeflow.training.update import gather


def source(seed: int, count: int, channels: int) -> data.Source:
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 6, channels), dtype=np.uint8)
    return data.Source(array_part(images, None).read, np.arange(count), 7)


A, B = toy.source(), source(1, 50, 3)
BATCHES = training.UnpairedBatches(A, B, 8, seed=3, flip=True)


def take(count, stream) -> list:
    return list(itertools.islice(stream, count))


def equal(actual, expected) -> None:
    toy.equal(actual, expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype


def test_each_domain_has_the_examples_of_its_split():
    for batch in take(3, BATCHES.stream(0)):
        assert list(batch) == ["a", "b"]
        assert (batch["a"]["image"].shape, batch["b"]["image"].shape) == (
            (8, 4, 6, 1),
            (8, 4, 6, 3),
        )
        assert set(batch["a"]) == {"image", "label", "index"}
        assert set(batch["b"]) == {"image", "index"}
        for domain, split in (("a", A), ("b", B)):
            everything = data.stack(split)
            rows = [list(everything["index"]).index(index) for index in batch[domain]["index"]]
            original = everything["image"][rows]
            same = np.all(batch[domain]["image"] == original, axis=(1, 2, 3))
            mirrored = np.all(batch[domain]["image"] == original[:, :, ::-1], axis=(1, 2, 3))
            assert np.all(same | mirrored)
    equal(BATCHES.examples(), {"a": data.stack(A), "b": data.stack(B)})


@pytest.mark.parametrize("step", [1, 4, 9])
def test_resuming_equals_continuing(step):
    full = take(12, BATCHES.stream(0))
    equal(take(12 - step, BATCHES.stream(step)), full[step:])


@pytest.mark.parametrize("shards", [2, 4])
def test_concatenated_shards_are_the_global_batch(shards):
    parts = [take(3, BATCHES.stream(2, shard, shards)) for shard in range(shards)]
    together = [
        jax.tree.map(lambda *rows: np.concatenate(rows), *step) for step in zip(*parts, strict=True)
    ]
    equal(together, take(3, BATCHES.stream(2)))


@pytest.mark.parametrize("shard", [0, 1])
def test_plan_gathers_the_batches_of_the_stream(shard):
    plan = take(6, BATCHES.plan(5, shard, 2))
    examples = BATCHES.examples()
    for rows, batch in zip(plan, BATCHES.stream(5, shard, 2), strict=False):
        equal(gather(examples, rows), batch)
    for domain in ("a", "b"):
        flips = np.concatenate([rows[domain]["flip"] for rows in plan])
        assert flips.dtype == bool
        assert 0 < flips.sum() < len(flips)


def test_groups_keep_the_domains():
    plan = take(3, BATCHES.plan(0))
    (size, stacked), (last, filled) = groups(BATCHES.plan(0), iter([2, 1]), 2)
    assert (size, last) == (2, 1)
    for domain in ("a", "b"):
        assert stacked[domain]["index"].shape == filled[domain]["flip"].shape == (2, 8)
        np.testing.assert_array_equal(stacked[domain]["index"][1], plan[1][domain]["index"])
        np.testing.assert_array_equal(filled[domain]["index"], [plan[2][domain]["index"]] * 2)


def test_no_flips_without_flip():
    plan = take(6, training.UnpairedBatches(A, B, 8, seed=3).plan(0))
    assert not any(rows[domain]["flip"].any() for rows in plan for domain in ("a", "b"))


def test_orders_and_flips_of_domains_are_independent():
    # Enough rows that indices which have nothing in common correlate by 0.02, and few are equal.
    one = source(2, 500, 1)
    plan = take(10, training.UnpairedBatches(one, one, 250, seed=0, flip=True).plan(0))
    a, b = (
        {name: np.concatenate([rows[domain][name] for rows in plan]) for name in ("index", "flip")}
        for domain in ("a", "b")
    )
    assert abs(np.corrcoef(a["index"], b["index"])[0, 1]) < 0.06
    assert abs(np.corrcoef(a["flip"], b["flip"])[0, 1]) < 0.06
    assert np.mean(a["index"] == b["index"]) < 0.01  # 0.002 are by chance
    for each in (a, b):  # both go through all of the split in every epoch
        np.testing.assert_array_equal(np.sort(each["index"][:500]), np.arange(500))
    # Nor is one the other an epoch or a seed later.
    for shift in range(0, 2500, 500):
        assert np.mean(a["index"] == np.roll(b["index"], shift)) < 0.01
    later = take(10, training.UnpairedBatches(one, one, 250, seed=1, flip=True).plan(0))
    for domain in ("a", "b"):
        index = np.concatenate([rows[domain]["index"] for rows in later])
        assert all(np.mean(each["index"] == index) < 0.01 for each in (a, b))


def loss(model, variables, batch, rng, *, axis, train):
    """Squared errors of a number for each domain, with noise of the row."""
    noise = jax.vmap(jax.random.normal)(rng)
    means = {d: jnp.mean(batch[d]["image"] / 255.0, axis=(1, 2, 3)) for d in ("a", "b")}
    errors = {
        d: jnp.mean((variables["params"][d] + 0.1 * noise - means[d]) ** 2) for d in ("a", "b")
    }
    return errors["a"] + 2 * errors["b"], Aux(errors, {})


def state(optimizer):
    variables = {"params": {"a": jnp.float32(0.2), "b": jnp.float32(0.9)}}
    return training.create_train_state(variables, optimizer)


def test_microbatches_by_domain_equal_the_full_batch():
    optimizer = optax.sgd(0.3)
    (batch,) = take(1, BATCHES.stream(0))
    results = [
        training.make_train_step(None, loss, optimizer, seed=0, accumulate=count)(
            state(optimizer), batch
        )
        for count in (1, 4)
    ]
    assert float(results[0][0].players["model"].parameters["b"]) != pytest.approx(0.9, abs=1e-3)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_scanned_steps_gather_by_domain():
    optimizer = optax.sgd(0.3)
    single = training.make_train_step(None, loss, optimizer, seed=0)
    scanned = training.make_train_step(None, loss, optimizer, seed=0, scan_steps=4)
    expected = state(optimizer)
    for batch in take(3, BATCHES.stream(0)):
        expected, metrics = single(expected, batch)
    ((_, plan),) = groups(BATCHES.plan(0), iter([3]), 4)
    actual, history = scanned(state(optimizer), BATCHES.examples(), plan, np.int32(3))
    assert actual.step == 3
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_allclose(history["a"][2], metrics["a"], rtol=1e-5)
