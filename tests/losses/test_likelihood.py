"""Maximum likelihood: units, rows and conditions."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import flows, losses, models

KEY = jax.random.key(1)


def build(**options):
    flow = flows.Glow((4, 4, 1), num_levels=2, num_steps=2, hidden_features=8, **options)
    return models.FlowModel(flow, models.UniformDequantizer())


def random_images(count):
    images = np.random.RandomState(0).randint(0, 256, (count, 4, 4, 1))
    return images.astype(np.uint8)


IMAGES = random_images(6)
BATCH = {"image": IMAGES, "label": np.arange(6) % 3, "index": np.arange(6)}


def moved(variables):
    return jax.tree.map(lambda leaf: leaf + 0.05, variables)


@functools.cache
def figures():
    """Losses of a batch by one key, by keys of rows, and of its halves; and log densities."""
    model = build()

    @jax.jit
    def compute():
        variables = model.init(KEY, IMAGES)
        loss = functools.partial(losses.negative_log_likelihood, model, variables)
        keys = jax.random.split(KEY, 6)
        halves = jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), (BATCH, keys))
        return {
            "by key": loss(BATCH, KEY),
            "by keys": loss(BATCH, keys)[0],
            "halves": jax.vmap(lambda batch, keys: loss(batch, keys)[0])(*halves),
            "log_prob": model.apply(variables, IMAGES, KEY, method="log_prob"),
        }

    return jax.device_get(compute())


def test_units():
    loss, aux = figures()["by key"]
    nats = -figures()["log_prob"].mean()
    np.testing.assert_allclose(aux.metrics["negative_log_likelihood"], nats, rtol=1e-6)
    np.testing.assert_allclose(aux.metrics["bits_per_dim"], nats / 16 / math.log(2), rtol=1e-6)
    np.testing.assert_allclose(loss, nats / 16, rtol=1e-6)
    assert aux.state == {}


def test_untrained_flow_needs_eight_bits():
    # Uniform images of 256 levels under the best density cost 8 bits/dim; a fresh flow is near.
    model, images = build(), random_images(256)

    @jax.jit
    def compute(images):
        variables = model.init(KEY, images)
        return losses.negative_log_likelihood(model, variables, {"image": images}, KEY)

    assert 8 < compute(images)[1].metrics["bits_per_dim"] < 8.5


def test_mean_over_parts_with_row_keys_is_that_of_the_batch():
    whole = figures()["by keys"]
    np.testing.assert_allclose(figures()["halves"].mean(), whole, rtol=1e-6)
    np.testing.assert_array_equal(figures()["by key"][0], whole)


def test_data_name_the_entry_of_the_batch():
    model = models.FlowModel(flows.RealNVP((3,), num_steps=1, hidden_features=4))
    data = np.random.RandomState(1).normal(size=(5, 3)).astype(np.float32)
    batch = {"vector": data, "index": np.arange(5)}

    @jax.jit
    def compute(batch):
        variables = model.init(KEY, batch["vector"])
        log_prob = model.apply(variables, batch["vector"], method="log_prob")
        loss = losses.negative_log_likelihood
        return loss(model, variables, batch, KEY, data="vector"), log_prob

    (loss, aux), log_prob = jax.device_get(compute(batch))
    nats = -log_prob.mean()
    np.testing.assert_allclose(aux.metrics["negative_log_likelihood"], nats, rtol=1e-6)
    np.testing.assert_allclose(loss, nats / 3, rtol=1e-6)


def test_context_key_names_the_entry_of_the_batch():
    model = build(num_classes=3)
    labels = BATCH["label"]

    @jax.jit
    def compute():
        variables = moved(model.init(KEY, IMAGES, context=labels))

        def metrics(labels):
            loss = functools.partial(losses.negative_log_likelihood, context_key="label")
            return loss(model, variables, BATCH | {"label": labels}, KEY)[1].metrics

        found = jax.vmap(metrics)(np.stack([labels, (labels + 1) % 3]))
        return found, model.apply(variables, IMAGES, KEY, context=labels, method="log_prob")

    found, log_prob = jax.device_get(compute())
    np.testing.assert_allclose(found["negative_log_likelihood"][0], -log_prob.mean(), rtol=1e-5)
    assert found["bits_per_dim"][1] != found["bits_per_dim"][0]


@pytest.mark.slow
def test_log_dets_are_estimated_only_in_training():
    model = models.FlowModel(
        flows.ResidualFlow((3,), num_steps=2, hidden_sizes=(4, 4), num_probes=1)
    )
    data = np.random.RandomState(1).normal(size=(6, 3)).astype(np.float32)

    @jax.jit
    def compute():
        variables = jax.tree.map(lambda leaf: leaf + 0.5, model.init(KEY, data))

        def nats(rng, **options):
            loss = losses.negative_log_likelihood(model, variables, {"image": data}, rng, **options)
            return loss[1].metrics["negative_log_likelihood"]

        pair = jax.random.wrap_key_data(
            jnp.stack([jax.random.key_data(key) for key in (KEY, jax.random.key(2))])
        )
        of_rows = jax.vmap(lambda key: jax.random.split(key, 6))(pair)
        return {
            "exact": -model.apply(variables, data, method="log_prob").mean(),
            "evaluated": nats(KEY, train=False),
            "trained": jax.vmap(nats)(pair),
            "trained on purpose": nats(KEY, train=True),
            "of rows": jax.vmap(nats)(of_rows),
        }

    found = jax.device_get(compute())
    np.testing.assert_allclose(found["evaluated"], found["exact"], rtol=1e-6)
    assert found["trained"][0] != found["trained"][1]
    np.testing.assert_allclose(found["trained"][0], found["trained on purpose"], rtol=1e-5)
    assert found["of rows"][0] != found["of rows"][1]
    assert 1e-4 < abs(found["trained"][0] - found["exact"]) < 1
