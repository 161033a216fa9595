"""Contexts of flows: absent, present, of another width or type, and labels of no class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.registry import FLOWS, Entry, parameters
from tests.variables import drawn_variables
from vaeflow import flows

KEY = jax.random.key(0)
ROWS = 4


def contexts(module, features):
    """One context for each row."""
    positions = () if module.context_ndims == 1 else module.event_shape[:2]
    return np.zeros((ROWS, *positions, features), np.float32)


def message(function, *arguments) -> str:
    """The text of the ValueError that a function raises while it is traced."""
    with pytest.raises(ValueError, match="context") as caught:
        jax.eval_shape(function, *arguments)
    assert type(caught.value) is ValueError  # none of Flax's
    return str(caught.value).split("\n")[0]


@pytest.mark.parametrize(
    "entry", parameters([entry for entry in FLOWS if entry.module is not None])
)
def test_contexts_unlike_those_of_init_raise(entry: Entry) -> None:
    """A flow says so, with both shapes, whatever was given to `init`."""
    module, data = entry.module, np.zeros((ROWS, *entry.module.event_shape), np.float32)
    given = contexts(module, 2)

    def init(context, data=data):
        return module.init(KEY, context=context, data=data)

    def apply(variables, context):
        return module.apply(variables, context=context)

    without, with_context = jax.eval_shape(init, None), jax.eval_shape(lambda: init(given))
    jax.eval_shape(lambda v: (apply(v, given), apply(v, given[0])), with_context)
    found = message(lambda v: apply(v, given), without)
    assert "None" in found
    assert str(given.shape) in found
    found = message(lambda v: apply(v, None), with_context)
    assert "2)" in found
    assert "got None" in found
    wider = contexts(module, 3)
    found = message(lambda v: apply(v, wider), with_context)
    assert "2)" in found
    assert str(wider.shape) in found
    for variables in (with_context, None):
        for wrong in (given.astype(np.int32), np.float32(1), given == 0, "label"):
            if variables is None:
                message(lambda wrong=wrong: init(wrong))
            else:
                message(lambda v, wrong=wrong: apply(v, wrong), variables)
    message(lambda: init(given[:3]))


LABELLED = {
    "planar": flows.PlanarFlow((3,), num_steps=1, num_classes=3),
    "autoregressive": flows.NeuralSplineFlow(
        (3,), num_steps=1, num_bins=2, hidden_sizes=(4,), autoregressive=True, num_classes=3
    ),
    "continuous": flows.ContinuousFlow((2,), hidden_sizes=(4,), num_classes=3),
    "residual": flows.ResidualFlow((2,), num_steps=1, hidden_sizes=(4,), num_classes=3),
    "bounded": flows.BoundedFlow(flows.NICE((3,), num_steps=1, num_classes=3), -8, 8),
    "standardized": flows.StandardizedFlow(flows.NICE((3,), num_steps=1, num_classes=3)),
    "image": flows.Glow((2, 2, 1), num_levels=1, num_steps=1, hidden_features=2, num_classes=3),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("planar", "image") else [pytest.mark.slow])
        for name in LABELLED
    ],
)
def test_labels_of_no_class_raise_or_are_nan_in_their_rows(name):
    module = LABELLED[name]
    labels = np.array([0, -1, 2, 3, 99])

    @jax.jit
    def run(labels):
        variables = drawn_variables(module.init, context=np.arange(3))
        bijector = module.apply(variables, context=labels)
        forward = bijector.forward_and_log_det(jnp.full((5, *module.noise_shape), 0.1))
        # Far out, where splines are the identity.
        far = jnp.full((5, *module.event_shape), 7.0)
        return forward, bijector.inverse_and_log_det(far)

    for values, log_det in jax.device_get(run(labels)):
        expected = [False, True, False, True, True]
        np.testing.assert_array_equal(np.isnan(values).reshape(5, -1).any(axis=1), expected)
        np.testing.assert_array_equal(np.isnan(log_det), expected)
    variables = jax.eval_shape(lambda: module.init(KEY, context=np.arange(3)))
    for wrong in (labels, labels[3:4], np.array([-1])):
        found = message(lambda v, wrong=wrong: module.apply(v, context=wrong), variables)
        assert "0, ..., 2" in found
        message(lambda wrong=wrong: module.init(KEY, context=wrong))
    found = message(lambda v: module.apply(v), variables)
    assert "labels of 3 classes" in found
    found = message(lambda v: module.apply(v, context=np.zeros((4, 3), np.float32)), variables)
    assert "float32 of shape (4, 3)" in found
