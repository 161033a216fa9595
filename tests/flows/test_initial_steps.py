"""Initial parameters of single steps, which follow the first batch."""

from __future__ import annotations

import jax
import numpy as np

from vaeflow import flows

KEY = jax.random.key(0)


def test_a_plane_goes_through_one_of_the_data():
    data = np.float32(50 + np.random.default_rng(0).normal(size=(20, 3)))
    step = flows.PlanarFlow((3,)).init_step
    plane = jax.device_get(jax.jit(lambda data: step(KEY, data, None))(data))["params"]["base"]
    distances = data @ plane["weight"] + plane["bias"]
    assert np.abs(distances).min() < 1e-4
    assert np.abs(distances).max() > 0.1


def test_a_bounded_flow_starts_from_unbounded_data():
    data = np.float32(np.random.default_rng(0).uniform(5, 250, size=(200, 2)))
    flow = flows.BoundedFlow(
        flows.RealNVP((2,), num_steps=2, hidden_features=4, num_blocks=1), 0, 255
    )

    @jax.jit
    def noise(data):
        return flow.apply(flow.init(KEY, data=data)).inverse(data)

    values = np.asarray(noise(data))
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(values.std(0), 1, atol=1e-3)


def test_a_step_of_glow_starts_from_rotated_data():
    random = np.random.default_rng(0)
    # Channels that are nearly equal: rotated, their deviations differ.
    data = np.float32(random.normal(size=(50, 1, 1, 1)) + 0.1 * random.normal(size=(50, 2, 2, 1)))
    flow = flows.Glow((2, 2, 1), num_levels=1, num_steps=2, hidden_features=4)
    variables = jax.device_get(jax.jit(lambda data: flow.init(KEY, data=data))(data))
    steps = variables["params"]["level_0"]["steps"]
    actnorm, weight = steps["actnorm"], steps["convolution"]["weight"]
    pixels = data.reshape(50, 4)  # the order of pixels within a block doesn't matter here
    np.testing.assert_allclose(np.exp(actnorm["log_scale"][0]), 1 / pixels.std(0), rtol=1e-3)
    rotated = (pixels + actnorm["shift"][0]) * np.exp(actnorm["log_scale"][0]) @ weight[0]
    # The coupling leaves the first half as it is, and its network starts from it.
    scale = np.exp(actnorm["log_scale"][1])
    np.testing.assert_allclose(scale[:2], 1 / rotated.std(0)[:2], rtol=1e-3)
    first = jax.tree.map(lambda leaf: leaf[0], steps["coupling"]["NormalizedConv_0"])
    convolved = rotated[:, :2] @ first["kernel"][1, 1]  # a map of one position
    np.testing.assert_allclose(np.exp(first["log_scale"]), 1 / convolved.std(0), rtol=1e-3)
