"""Cross-entropy: units, accuracy, rows, gradients."""

from __future__ import annotations

import flax.linen as nn
import jax
import numpy as np
import pytest

from vaeflow import losses

KEY = jax.random.key(0)
LOSS = jax.jit(losses.cross_entropy, static_argnums=0)


class Table(nn.Module):
    """Logits that are parameters, chosen by the only pixel of an image."""

    @nn.compact
    def logits(self, images):
        table = self.param("table", nn.initializers.zeros, (3, 4))
        return table[images[:, 0, 0, 0]]


def variables(table):
    return {"params": {"table": np.asarray(table, np.float32)}}


def batch(rows, labels):
    images = np.asarray(rows, np.uint8).reshape(-1, 1, 1, 1)
    return {"image": images, "label": np.asarray(labels, np.int32)}


PROBABILITIES = np.array(
    [[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4], [0.97, 0.01, 0.01, 0.01]]
)
# A constant in each row makes no difference.
VARIABLES = variables(np.log(PROBABILITIES) + np.array([[3], [-5], [100]]))
BATCH = batch([0, 0, 1, 2, 1], [0, 2, 3, 1, 0])


def test_worked_example():
    loss, aux = LOSS(Table(), VARIABLES, BATCH, KEY)
    expected = -np.mean(np.log([0.5, 0.125, 0.4, 0.01, 0.1]))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(aux.metrics["cross_entropy"], loss)
    np.testing.assert_allclose(aux.metrics["accuracy"], 2 / 5, rtol=1e-6)
    assert aux.state == {}


def test_uniform_logits_cost_the_logarithm_of_the_classes():
    loss, _ = LOSS(Table(), variables(np.zeros((3, 4))), BATCH, KEY)
    np.testing.assert_allclose(loss, np.log(4), rtol=1e-6)


def test_gradients_are_the_excess_of_probability():
    def loss(variables):
        return losses.cross_entropy(Table(), variables, batch([1, 1], [0, 3]), KEY)[0]

    found = np.asarray(jax.jit(jax.grad(loss))(VARIABLES)["params"]["table"])
    np.testing.assert_allclose(found[1], PROBABILITIES[1] - [0.5, 0, 0, 0.5], atol=1e-6)
    np.testing.assert_array_equal(found[::2], 0)


def test_large_logits_do_not_overflow():
    loss, _ = LOSS(Table(), variables([[1e4, 0, 0, 0]] * 3), BATCH, KEY)
    np.testing.assert_allclose(loss, 3 / 5 * 1e4, rtol=1e-6)


def test_mean_over_parts_is_that_of_the_batch():
    whole, _ = LOSS(Table(), VARIABLES, BATCH, KEY)
    parts = [jax.tree.map(lambda leaf, n=n: leaf[[n]], BATCH) for n in range(5)]
    found = [LOSS(Table(), VARIABLES, part, KEY)[0] for part in parts]
    np.testing.assert_allclose(np.mean(found), whole, rtol=1e-6)


def test_batches_without_labels_raise():
    with pytest.raises(ValueError, match=r"batch must hold 'label', got \['image'\]"):
        losses.cross_entropy(Table(), VARIABLES, {"image": BATCH["image"]}, KEY)
