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
    noise = np.random.RandomState(1).normal(size=(count, 2))
    return {"image": np.float32(0.5 + SCALE * noise)}


@pytest.fixture(scope="module")
def fitted():
    """Standard normal through the identity, with a base that can be moved; and its variables."""
    flow = flows.RealNVP((2,), num_steps=1, hidden_features=4, num_blocks=1)
    model = models.FlowModel(flow, base=bases.DiagonalGaussianBase((2,)))
    shapes = jax.eval_shape(model.init, KEY)
    return model, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def test_gaussian_against_gaussian(fitted):
    model, variables = fitted
    loss = jax.jit(functools.partial(losses.forward_kl, model, energy=energy))
    value, aux = loss(variables, samples(100_000), KEY)
    kl = 2 * (-np.log(SCALE) + (SCALE**2 + 0.5**2) / 2 - 0.5)
    assert float(value) == pytest.approx(kl + LOG_Z, abs=0.01)
    cross = np.log(2 * np.pi) + SCALE**2 + 0.5**2
    assert float(aux.metrics["negative_log_likelihood"]) == pytest.approx(cross, abs=0.01)
    assert float(aux.metrics["log_normalizer"]) == pytest.approx(LOG_Z, abs=0.01)
    assert aux.state == {}


def test_gradient_is_that_of_the_likelihood(fitted):
    model, variables = fitted
    batch = samples(64)

    @jax.jit
    def gradients(variables):
        return [
            jax.grad(lambda variables, loss=loss: loss(model, variables, batch, KEY)[0])(variables)
            for loss in (
                functools.partial(losses.forward_kl, energy=energy),
                losses.negative_log_likelihood,
            )
        ]

    ours, likelihood = jax.device_get(gradients(variables))
    assert np.abs(ours["params"]["base"]["mean"]).max() > 0.1
    # The likelihood is per dimension.
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(likelihood), strict=True):
        np.testing.assert_allclose(got, 2 * expected, rtol=1e-4, atol=1e-6)


def test_a_divided_batch_has_the_diagnostics_of_the_full_batch(fitted):
    model, variables = fitted
    batch = samples(8)

    @jax.jit
    def run(variables):
        def part(batch):
            loss, aux = losses.forward_kl(
                model, variables, batch, KEY, energy=energy, axis=Axis("data")
            )
            return loss, aux.metrics

        parts = {"image": batch["image"].reshape(4, 2, 2)}
        whole = losses.forward_kl(model, variables, batch, KEY, energy=energy)
        return whole, jax.vmap(part, axis_name="data")(parts)

    (whole, aux), (values, metrics) = jax.device_get(run(variables))
    np.testing.assert_allclose(np.mean(values), whole, rtol=1e-6)
    for name in ("log_normalizer", "effective_sample_size"):
        np.testing.assert_allclose(metrics[name], np.full(4, aux.metrics[name]), rtol=1e-5)


def test_context_key_names_the_context_of_each_row():
    flow = flows.RealNVP((2,), num_steps=1, hidden_features=4, num_blocks=1)
    model = models.FlowModel(flow, base=bases.LabelledGaussianBase((2,), num_classes=3))
    labels = np.array([0, 1, 2, 0])
    batch = {**samples(4), "label": labels}

    @jax.jit
    def run():
        variables = model.init(KEY, context=labels)
        loss = losses.forward_kl(model, variables, batch, KEY, energy=energy, context_key="label")
        log_q = model.apply(variables, batch["image"], None, context=labels, method="log_prob")
        return loss, log_q, energy(batch["image"])

    (value, aux), log_q, energies = jax.device_get(run())
    np.testing.assert_allclose(value, np.mean(-energies - log_q), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["negative_log_likelihood"], -np.mean(log_q), rtol=1e-5)
