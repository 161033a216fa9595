"""Maximum likelihood: units, rows and conditions."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import flows, losses, models

IMAGES = jax.random.randint(jax.random.key(0), (6, 4, 4, 1), 0, 256).astype(jnp.uint8)
BATCH = {"image": IMAGES, "label": jnp.arange(6) % 3, "index": jnp.arange(6)}
KEY = jax.random.key(1)


def build(**options):
    flow = flows.Glow((4, 4, 1), num_levels=2, num_steps=2, hidden_features=8, **options)
    return models.FlowModel(flow, models.UniformDequantizer())


def test_units():
    model = build()
    variables = model.init(KEY, IMAGES)
    loss, aux = losses.negative_log_likelihood(model, variables, BATCH, KEY)
    nats = -model.apply(variables, IMAGES, KEY, method="log_prob").mean()
    np.testing.assert_allclose(aux.metrics["negative_log_likelihood"], nats, rtol=1e-6)
    np.testing.assert_allclose(aux.metrics["bits_per_dim"], nats / 16 / math.log(2), rtol=1e-6)
    np.testing.assert_allclose(loss, nats / 16, rtol=1e-6)
    assert aux.state == {}


def test_untrained_flow_needs_eight_bits():
    # Uniform images of 256 levels under the best density cost 8 bits/dim; a fresh flow is near.
    model = build()
    images = jax.random.randint(KEY, (256, 4, 4, 1), 0, 256).astype(jnp.uint8)
    variables = model.init(KEY, images)
    _, aux = losses.negative_log_likelihood(model, variables, {"image": images}, KEY)
    assert 8 < aux.metrics["bits_per_dim"] < 8.5


def test_mean_over_parts_with_row_keys_is_that_of_the_batch():
    model = build()
    variables = model.init(KEY, IMAGES)
    keys = jax.random.split(KEY, 6)
    whole, _ = losses.negative_log_likelihood(model, variables, BATCH, keys)
    parts = [
        losses.negative_log_likelihood(
            model, variables, jax.tree.map(lambda leaf, rows=rows: leaf[rows], BATCH), keys[rows]
        )[0]
        for rows in (slice(0, 3), slice(3, 6))
    ]
    np.testing.assert_allclose(sum(parts) / 2, whole, rtol=1e-6)
    same, _ = losses.negative_log_likelihood(model, variables, BATCH, KEY)
    np.testing.assert_array_equal(same, whole)


def test_data_name_the_entry_of_the_batch():
    model = models.FlowModel(flows.RealNVP((3,), num_steps=1, hidden_features=4))
    batch = {"vector": jax.random.normal(KEY, (5, 3)), "index": jnp.arange(5)}
    variables = model.init(KEY, batch["vector"])
    loss, aux = losses.negative_log_likelihood(model, variables, batch, KEY, data="vector")
    nats = -jnp.mean(model.apply(variables, batch["vector"], method="log_prob"))
    np.testing.assert_allclose(aux.metrics["negative_log_likelihood"], nats, rtol=1e-6)
    np.testing.assert_allclose(loss, nats / 3, rtol=1e-6)


def test_context_key_names_the_entry_of_the_batch():
    model = build(num_classes=3)
    variables = model.init(KEY, IMAGES, BATCH["label"])
    variables = jax.tree.map(lambda leaf: leaf + 0.05, variables)
    loss = functools.partial(losses.negative_log_likelihood, context_key="label")
    _, aux = loss(model, variables, BATCH, KEY)
    expected = -model.apply(variables, IMAGES, KEY, BATCH["label"], method="log_prob").mean()
    np.testing.assert_allclose(aux.metrics["negative_log_likelihood"], expected, rtol=1e-5)
    _, other = loss(model, variables, BATCH | {"label": (BATCH["label"] + 1) % 3}, KEY)
    assert other.metrics["bits_per_dim"] != aux.metrics["bits_per_dim"]


def test_log_dets_are_estimated_only_in_training():
    model = models.FlowModel(
        flows.ResidualFlow((3,), num_steps=2, hidden_sizes=(4, 4), num_probes=1)
    )
    data = jax.random.normal(KEY, (6, 3))
    variables = jax.tree.map(lambda leaf: leaf + 0.5, model.init(KEY, data))

    def nats(rng, **options):
        loss = losses.negative_log_likelihood
        return loss(model, variables, {"image": data}, rng, **options)[1].metrics[
            "negative_log_likelihood"
        ]

    exact = -model.apply(variables, data, method="log_prob").mean()
    np.testing.assert_array_equal(nats(KEY, train=False), exact)
    other = jax.random.key(2)
    assert nats(KEY) != nats(other)
    assert nats(KEY) == nats(KEY, train=True)
    assert nats(jax.random.split(KEY, 6)) != nats(jax.random.split(other, 6))
    assert abs(nats(KEY) - exact) < 1
