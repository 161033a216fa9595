"""Flows that end with a bijector of one's own, whose parameters are learned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaeflow as vf
from vaeflow import bijectors, flows, models

INNER = flows.RealNVP((2,), num_steps=1, hidden_features=4, num_blocks=1)


class Power(bijectors.Bijector):
    """y = x |x|^a exp(b), each dimension with its own a and all with one b."""

    def __init__(self, exponent, log_scale):
        super().__init__(event_ndims_in=1)
        self.exponent, self.log_scale = exponent, log_scale

    def _forward(self, x):
        log_size = jnp.log(jnp.abs(x))
        slope = jnp.log1p(self.exponent) + self.exponent * log_size + self.log_scale
        size = jnp.exp((1 + self.exponent) * log_size + self.log_scale)
        return jnp.sign(x) * size, slope.sum(-1)

    def _inverse(self, y):
        log_size = (jnp.log(jnp.abs(y)) - self.log_scale) / (1 + self.exponent)
        x = jnp.sign(y) * jnp.exp(log_size)
        return x, -self._forward(x)[1]


FLOW = flows.TransformedFlow(INNER, Power, {"exponent": np.array([0.5, 1.0]), "log_scale": 0.3})


def test_the_map_follows_the_flow_inside():
    inside = flows.StandardizedFlow(INNER)
    flow = FLOW.clone(flow=inside)
    data = jax.random.normal(jax.random.key(1), (64, 2))

    @jax.jit
    def compute(key):
        variables = flow.init(key, data=data)
        outer = Power(jnp.array([0.5, 1.0]), jnp.float32(0.3))
        noise = jax.random.normal(key, (5, 2))
        own = inside.apply({"params": variables["params"]["flow"]})
        between, first = own.forward_and_log_det(noise)
        expected, second = outer.forward_and_log_det(between)
        found = flow.apply(variables).forward_and_log_det(noise)
        back = flow.apply(variables).inverse(found[0])
        left = outer.inverse(data).mean(0)
        return variables["params"], left, (expected, first + second), found, back, noise

    params, left, expected, found, back, noise = compute(jax.random.key(0))
    assert params["bijector"].keys() == {"exponent", "log_scale"}
    assert params["bijector"]["log_scale"].shape == ()
    # The flow inside is initialised on what the map leaves of the data.
    np.testing.assert_allclose(params["flow"]["shift"], left, atol=1e-6)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
    np.testing.assert_allclose(back, noise, atol=1e-4)


@pytest.mark.slow
def test_parameters_are_learned_and_saved(tmp_path):
    rows = np.random.default_rng(0).normal(size=(600, 2))
    rows = rows * np.abs(rows)  # exponent 1 from normal rows
    flow = flows.TransformedFlow(INNER, Power, {"exponent": (0.0, 0.0), "log_scale": 0.0})
    fitted = vf.fit(flow, rows, steps=400, patience=0, learning_rate=1e-2)
    learned = fitted.variables["params"]["flow"]["bijector"]
    np.testing.assert_allclose(learned["exponent"], 1.0, atol=0.35)
    assert fitted.summary["standardized"] == ""
    path = tmp_path / "flow.safetensors"
    fitted.save(path, classes=[Power])
    again = vf.load_fitted(path, classes=[Power])
    assert again.model == fitted.model
    np.testing.assert_array_equal(again.log_prob(rows), fitted.log_prob(rows))


def test_flows_are_compared_by_value():
    same = flows.TransformedFlow(INNER, Power, {"exponent": [0.5, 1], "log_scale": 0.3})
    other = flows.TransformedFlow(INNER, Power, {"exponent": [0.5, 2], "log_scale": 0.3})
    assert hash(models.FlowModel(FLOW)) == hash(models.FlowModel(same))
    assert same == FLOW != other


@pytest.mark.parametrize("value", [np.nan, "wide", (1.0, (2.0,)), None, (0.0, np.inf)], ids=str)
def test_initial_values_that_are_no_numbers_raise(value):
    with pytest.raises(ValueError, match=r"initial\['scale'\] must hold finite numbers, got"):
        flows.TransformedFlow(INNER, Power, {"scale": value})


def test_what_is_made_must_be_a_bijector_of_the_events():
    for make, got in (
        (lambda: None, "NoneType"),
        (lambda: bijectors.Exp(event_ndims=2), "Exp of 2"),
    ):
        flow = flows.TransformedFlow(INNER, make, {})
        with pytest.raises(ValueError, match=f"Bijector of events of 1 axes, got {got}"):
            jax.eval_shape(flow.init, jax.random.key(0))
