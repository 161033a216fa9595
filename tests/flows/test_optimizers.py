"""An optimiser over everything that `init` returned leaves a density a density."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.registry import FLOWS, parameters
from vaeflow import flows, models

MODULES = {
    "glow": flows.Glow((4, 4, 1), num_levels=1, num_steps=2, hidden_features=4, plu=True),
    "neural-spline": flows.NeuralSplineFlow((3,), num_steps=2, hidden_sizes=(4,)),
    "neural-spline-autoregressive": flows.NeuralSplineFlow(
        (3,), num_steps=2, hidden_sizes=(4,), autoregressive=True
    ),
}
SLOW = ("glow", "neural-spline-autoregressive")


@pytest.mark.parametrize(
    "name", ["neural-spline", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_decay_of_every_float_moves_no_permutation(name):
    flow = MODULES[name]
    model = models.FlowModel(flow)
    data = jnp.asarray(np.random.default_rng(0).normal(size=(8, *flow.event_shape)), jnp.float32)
    optimizer = optax.adamw(1e-2, weight_decay=1.0)

    @jax.jit
    def trained(data):
        variables = model.init(jax.random.key(0), data)
        leaves, structure = jax.tree.flatten(variables)
        moved = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

        def step(state, _):
            floats, memory = state

            def loss(floats):
                return -jnp.mean(model.apply(rebuilt(floats), data, method="log_prob"))

            updates, memory = optimizer.update(jax.grad(loss)(floats), memory, floats)
            return (optax.apply_updates(floats, updates), memory), None

        def rebuilt(floats):
            merged = iter(floats)
            pairs = zip(leaves, moved, strict=True)
            return jax.tree.unflatten(structure, [next(merged) if m else leaf for leaf, m in pairs])

        floats = [leaf for leaf, one in zip(leaves, moved, strict=True) if one]
        (floats, _), _ = jax.lax.scan(step, (floats, optimizer.init(floats)), length=100)
        distribution = model.apply(rebuilt(floats))
        samples, log_prob = distribution.sample_and_log_prob(
            seed=jax.random.key(1), sample_shape=64
        )
        return log_prob, distribution.log_prob(samples)

    sampled, evaluated = trained(data)
    np.testing.assert_allclose(sampled, evaluated, atol=2e-3)


@pytest.mark.parametrize(
    "entry", parameters([entry for entry in FLOWS if entry.module is not None])
)
def test_nothing_unlearned_is_a_float(entry):
    flow = entry.module
    if isinstance(flow, flows.StandardizedFlow):
        return  # Its constants are statistics of data; others leave the density a density.
    context = None
    if entry.context_shape is not None:
        labels = flow.num_classes is not None
        context = jnp.zeros(4, jnp.int32) if labels else jnp.zeros((4, *entry.context_shape))
    data = jnp.zeros((4, *flow.event_shape))
    keys = {"params": jax.random.key(0), "probe": jax.random.key(1)}
    variables = jax.eval_shape(lambda keys: flow.init(keys, data=data, context=context), keys)
    fixed = [
        leaf
        for name, tree in variables.items()
        if name != "params"
        for leaf in jax.tree.leaves(tree)
    ]
    assert not any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in fixed)
