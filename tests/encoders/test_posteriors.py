"""Contexts reach networks; features and temperatures reach posteriors, where they should."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.variables import drawn_variables
from vaeflow import encoders, flows

IMAGES = np.random.default_rng(0).normal(size=(2, 6, 5, 1)).astype(np.float32)
NETWORKS = {
    "dense": encoders.DenseEncoder((4,)),
    "convolutional": encoders.ConvolutionalEncoder((4,), 4),
    "residual": encoders.ResidualEncoder((4,), num_blocks=1, features=4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_features_depend_on_the_context(name):
    network = NETWORKS[name]
    contexts = np.float32([[1, 0, 0], [0, 1, 0]])
    variables = drawn_variables(network.init, IMAGES, context=contexts)
    apply = jax.jit(network.apply)
    features, others = (
        apply(variables, IMAGES, context=given) for given in (contexts, contexts[::-1])
    )
    assert np.abs(features - others).max() > 1e-3


def test_a_flow_that_is_not_amortised_has_no_features():
    base, flow = (
        encoders.DiagonalGaussianPosterior(3),
        flows.NICE((3,), num_steps=2, hidden_sizes=(4,)),
    )

    def shapes(amortised, size):
        head = encoders.FlowPosterior(base, flow, amortised=amortised)
        parameters = jax.eval_shape(head.init, jax.random.key(0), np.ones((2, size)))["params"]
        return jax.tree.map(lambda leaf: leaf.shape, parameters["flow"])

    assert shapes(False, 5) == shapes(False, 7)
    assert shapes(True, 5) != shapes(True, 7)


def test_the_temperature_reaches_every_group():
    groups = {name: encoders.DiagonalGaussianPosterior(1) for name in ("style", "content")}
    head = encoders.GroupedPosterior(groups)
    assert hash(head) == hash(encoders.GroupedPosterior(dict(groups)))  # a static argument of jit
    prior = head.standard(0.25)
    samples = jax.jit(lambda: prior.sample(seed=jax.random.key(0), sample_shape=4000))()
    np.testing.assert_allclose(np.std(samples, axis=0), 0.25, rtol=0.05)
