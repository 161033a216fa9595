"""Forward KL, where everything is known in closed form; rows, devices, conditions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import bases, flows, losses, models
from vaeflow._util.arrays import Axis

KEY = jax.random.key(1)
SCALE = 0.8
"""Deviation of the Gaussian target, centred at 1/2, in two dimensions."""
LOG_Z = np.log(2 * np.pi * SCALE**2)


def energy(x):
    return jnp.sum(((x - 0.5) / SCALE) ** 2, axis=-1) / 2


def samples(count):
    return {"image": 0.5 + SCALE * jax.random.normal(KEY, (count, 2))}


@pytest.fixture(scope="module")
def fitted():
    """Standard normal through the identity, with a base that can be moved; and its variables."""
    flow = flows.RealNVP((2,), num_steps=1, hidden_features=4, num_blocks=1)
    model = models.FlowModel(flow, base=bases.DiagonalGaussianBase((2,)))
    return model, jax.tree.map(jnp.zeros_like, jax.jit(model.init)(KEY))


def test_gaussian_against_gaussian(fitted):
    value, aux = losses.forward_kl(*fitted, samples(100_000), KEY, energy=energy)
    kl = 2 * (-np.log(SCALE) + (SCALE**2 + 0.5**2) / 2 - 0.5)
    assert float(value) == pytest.approx(kl + LOG_Z, abs=0.01)
    cross = np.log(2 * np.pi) + SCALE**2 + 0.5**2
    assert float(aux.metrics["negative_log_likelihood"]) == pytest.approx(cross, abs=0.01)
    assert float(aux.metrics["log_normalizer"]) == pytest.approx(LOG_Z, abs=0.01)
    assert aux.state == {}


def test_gradient_is_that_of_the_likelihood(fitted):
    model, variables = fitted
    batch = samples(64)
    ours, likelihood = (
        jax.grad(lambda variables, loss=loss: loss(model, variables, batch, KEY)[0])(variables)
        for loss in (
            functools.partial(losses.forward_kl, energy=energy),
            losses.negative_log_likelihood,
        )
    )
    assert float(jnp.abs(ours["params"]["base"]["mean"]).max()) > 0.1
    # The likelihood is per dimension.
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(likelihood), strict=True):
        np.testing.assert_allclose(got, 2 * expected, rtol=1e-4, atol=1e-6)


def test_a_divided_batch_has_the_diagnostics_of_the_full_batch(fitted):
    batch = samples(8)
    whole, aux = losses.forward_kl(*fitted, batch, KEY, energy=energy)

    def part(batch):
        loss, aux = losses.forward_kl(*fitted, batch, KEY, energy=energy, axis=Axis("data"))
        return loss, aux.metrics

    values, metrics = jax.vmap(part, axis_name="data")({"image": batch["image"].reshape(4, 2, 2)})
    np.testing.assert_allclose(jnp.mean(values), whole, rtol=1e-6)
    for name in ("log_normalizer", "effective_sample_size"):
        np.testing.assert_allclose(metrics[name], aux.metrics[name], rtol=1e-5)


def test_context_key_names_the_context_of_each_row():
    flow = flows.RealNVP((2,), num_steps=1, hidden_features=4, num_blocks=1)
    model = models.FlowModel(flow, base=bases.LabelledGaussianBase((2,), num_classes=3))
    labels = jnp.array([0, 1, 2, 0])
    variables = model.init(KEY, context=labels)
    batch = {**samples(4), "label": labels}
    value, aux = losses.forward_kl(model, variables, batch, KEY, energy=energy, context_key="label")
    log_q = model.apply(variables, batch["image"], None, labels, method="log_prob")
    np.testing.assert_allclose(value, jnp.mean(-energy(batch["image"]) - log_q), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["negative_log_likelihood"], -jnp.mean(log_q), rtol=1e-5)
