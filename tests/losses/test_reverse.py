"""Reverse KL, where everything is known in closed form; rows, devices, conditions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import bases, flows, losses, models
from vaeflow._util.arrays import Axis
from vaeflow.losses.flow import reverse_kl_terms

ROWS = 8
BATCH = {"index": np.arange(ROWS)}
KEY = jax.random.key(1)
SCALE = 1.5
"""Deviation of the Gaussian target, centred at 1, in two dimensions."""


def energy(x):
    return jnp.sum(((x - 1) / SCALE) ** 2, axis=-1) / 2


def model():
    """Standard normal through the identity, but for a base that can be moved."""
    flow = flows.RealNVP((2,), num_steps=1, hidden_features=4, num_blocks=1)
    return models.FlowModel(flow, base=bases.DiagonalGaussianBase((2,)))


@pytest.fixture(scope="module")
def variables():
    # Without data the flow would be initialised on a draw of noise, which it standardises.
    shapes = jax.eval_shape(model().init, KEY)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


@functools.cache
def large_loss():
    """Of many rows, by any weight of the energy."""
    loss = functools.partial(losses.reverse_kl, model(), energy=energy)
    batch = {"index": np.arange(100_000)}
    return jax.jit(lambda variables, beta: loss(variables, batch, KEY, beta=beta))


def many(variables, beta=1.0):
    return large_loss()(variables, beta)


def test_gaussian_against_gaussian(variables):
    value, aux = many(variables)
    log_z = np.log(2 * np.pi * SCALE**2)
    kl = 2 * (np.log(SCALE) + (1 + 1) / (2 * SCALE**2) - 0.5)
    assert float(value) == pytest.approx(kl - log_z, abs=0.01)
    assert float(aux.metrics["free_energy"]) == pytest.approx(kl - log_z, abs=0.01)
    assert float(aux.metrics["entropy"]) == pytest.approx(np.log(2 * np.pi) + 1, abs=0.01)
    assert aux.state == {}
    annealed, aux_too = many(variables, beta=0.25)
    mean_energy = (1 + 1) / SCALE**2
    assert float(annealed) == pytest.approx(0.25 * mean_energy - np.log(2 * np.pi) - 1, abs=0.01)
    for name, expected in aux.metrics.items():
        np.testing.assert_allclose(aux_too.metrics[name], expected, rtol=1e-5)


def test_weights_of_a_narrower_target(variables):
    # With deviations s < 1 the second moment of the weights exists: for p = N(0, s^2) in d = 2,
    # 1 / ESS = E_q (p/q)^2 = (s^2 sqrt(2/s^2 - 1))^-2.
    width = 0.8
    narrow = lambda x: jnp.sum((x / width) ** 2, axis=-1) / 2  # noqa: E731
    loss = jax.jit(functools.partial(losses.reverse_kl, model(), energy=narrow))
    _, aux = loss(variables, {"index": np.arange(100_000)}, KEY)
    share = (width**2 * np.sqrt(2 / width**2 - 1)) ** 2
    assert float(aux.metrics["effective_sample_size"]) == pytest.approx(share, abs=0.01)
    assert float(aux.metrics["log_normalizer"]) == pytest.approx(
        np.log(2 * np.pi * width**2), abs=0.01
    )


def test_a_perfect_fit_has_equal_weights(variables):
    target = lambda x: jnp.sum(x**2, axis=-1) / 2 + 3  # noqa: E731
    loss = jax.jit(functools.partial(losses.reverse_kl, model(), energy=target))
    value, aux = loss(variables, BATCH, KEY)
    log_z = np.log(2 * np.pi) - 3
    np.testing.assert_allclose(value, -log_z, rtol=1e-5)  # for any noise
    np.testing.assert_allclose(aux.metrics["log_normalizer"], log_z, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["effective_sample_size"], 1, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["largest_weight"], 1 / ROWS, rtol=1e-5)


def test_gradients_pull_the_base_to_the_target(variables):
    def loss(base):
        merged = {"params": variables["params"] | {"base": base}}
        batch = {"index": np.arange(50_000)}
        return losses.reverse_kl(model(), merged, batch, KEY, energy=energy)[0]

    gradient = jax.jit(jax.grad(loss))(variables["params"]["base"])
    # d KL / d mean = (mean - 1) / SCALE^2; d KL / d log_scale = scale^2 / SCALE^2 - 1.
    np.testing.assert_allclose(gradient["mean"], -1 / SCALE**2, atol=0.02)
    np.testing.assert_allclose(gradient["log_scale"], 1 / SCALE**2 - 1, atol=0.02)


def test_one_key_is_split_over_the_rows(variables):
    @jax.jit
    def run(variables):
        loss = functools.partial(losses.reverse_kl, model(), variables, BATCH, energy=energy)
        by_key, by_keys = loss(KEY)[0], loss(jax.random.split(KEY, ROWS))[0]
        return by_key, by_keys, reverse_kl_terms(model(), variables, BATCH, KEY, energy=energy)

    by_key, by_keys, (log_q, energies) = jax.device_get(run(variables))
    np.testing.assert_array_equal(by_key, by_keys)
    assert log_q.shape == energies.shape == (ROWS,)
    np.testing.assert_allclose(by_key, np.mean(log_q + energies), rtol=1e-6)


def test_a_divided_batch_has_the_metrics_of_the_full_batch(variables):
    @jax.jit
    def run(variables):
        keys = jax.random.split(KEY, ROWS)
        loss = functools.partial(losses.reverse_kl, model(), variables, energy=energy)
        parts = {"index": BATCH["index"].reshape(4, 2)}
        divided = jax.vmap(
            lambda batch, keys: loss(batch, keys, axis=Axis("data")), axis_name="data"
        )
        return loss(BATCH, keys), divided(parts, keys.reshape(4, 2))

    (whole, aux), (values, of_parts) = jax.device_get(run(variables))
    np.testing.assert_allclose(np.mean(values), whole, rtol=1e-6)
    for name, expected in aux.metrics.items():
        np.testing.assert_allclose(np.mean(of_parts.metrics[name]), expected, rtol=1e-5)
        if name not in ("free_energy", "entropy"):  # which training averages
            np.testing.assert_allclose(of_parts.metrics[name], np.full(4, expected), rtol=1e-5)


def test_context_key_names_the_context_of_each_row():
    conditional = models.FlowModel(
        flows.RealNVP((2,), num_steps=1, hidden_features=4, num_blocks=1),
        base=bases.LabelledGaussianBase((2,), num_classes=3),
    )
    labels = np.array([0, 1, 2, 0])

    @jax.jit
    def run():
        made = conditional.init(KEY, context=labels)
        keys = jax.random.split(KEY, 4)
        found = reverse_kl_terms(
            conditional, made, {"label": labels}, keys, energy=energy, context_key="label"
        )

        def of_row(label, key):
            x, log_prob = conditional.apply(made, context=label).sample_and_log_prob(seed=key)
            return log_prob, energy(x)

        return found, jax.vmap(of_row)(labels, keys)

    (log_q, energies), (log_prob, expected) = jax.device_get(run())
    np.testing.assert_allclose(log_q, log_prob, rtol=1e-5)
    np.testing.assert_allclose(energies, expected, rtol=1e-4)


@pytest.mark.parametrize("wrong", [lambda x: x**2, lambda x: jnp.sum(x**2)])
def test_energies_are_one_number_a_sample(wrong, variables):
    with pytest.raises(ValueError, match=r"of shape \(8,\) .* \(8, 2\), got shape"):
        losses.reverse_kl(model(), variables, BATCH, KEY, energy=wrong)
    samples = {"image": np.zeros((ROWS, 2), np.float32)}
    with pytest.raises(ValueError, match=r"of shape \(8,\) .* \(8, 2\), got shape"):
        losses.forward_kl(model(), variables, samples, KEY, energy=wrong)
