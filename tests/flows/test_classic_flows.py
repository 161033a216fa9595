"""Planar, radial, Sylvester and NICE flows: starts, contexts, densities, depth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import flows

FLOWS = {
    "planar": flows.PlanarFlow,
    "leaky": functools.partial(flows.PlanarFlow, negative_slope=0.1),
    "radial": flows.RadialFlow,
    "orthogonal": functools.partial(flows.SylvesterFlow, basis=flows.OrthogonalBasis(2)),
    "householder": functools.partial(flows.SylvesterFlow, basis=flows.HouseholderBasis(3)),
    "triangular": functools.partial(flows.SylvesterFlow, basis=flows.IdentityBasis()),
}


def far_from_identity(flow, key):
    leaves, structure = jax.tree.flatten(flow.init(key))
    keys = jax.random.split(key, len(leaves))
    leaves = [
        leaf + 0.5 * jax.random.normal(part, leaf.shape)
        for leaf, part in zip(leaves, keys, strict=True)
    ]
    return flow.apply(jax.tree.unflatten(structure, leaves))


@pytest.mark.parametrize("name", FLOWS)
def test_starts_near_the_identity(name):
    flow = FLOWS[name]((5,), num_steps=4)
    x = jax.random.normal(jax.random.key(0), (16, 5))
    y, log_det = flow.apply(flow.init(jax.random.key(1))).forward_and_log_det(x)
    assert 1e-4 < jnp.abs(y - x).max() < 0.5
    assert 1e-4 < jnp.abs(log_det).max() < 0.5


@pytest.mark.parametrize("name", FLOWS)
def test_every_parameter_depends_on_the_context(name):
    flow = FLOWS[name]((3,), num_steps=2)
    contexts = jax.random.normal(jax.random.key(0), (4, 2))
    variables = flow.init(jax.random.key(1), contexts)
    parameters = variables["params"]["steps"]["steps"]
    assert jax.tree.structure(parameters["kernel"]) == jax.tree.structure(parameters["base"])
    x = jax.random.normal(jax.random.key(2), (4, 3))

    def loss(variables, contexts):
        y, log_det = flow.apply(variables, contexts).forward_and_log_det(x)
        return jnp.sum(y**3) + jnp.sum(log_det)

    gradients, to_contexts = jax.grad(loss, (0, 1))(variables, contexts)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    assert (jnp.abs(to_contexts).max(axis=-1) > 0).all()


def test_labels_are_one_hot_contexts():
    flow = flows.PlanarFlow((3,), num_steps=2, num_classes=4)
    labels = jnp.array([0, 3, 3])
    variables = flow.init(jax.random.key(0), labels)
    y = flow.apply(variables, labels).forward(jnp.ones((3, 3)))
    np.testing.assert_array_equal(y[1], y[2])
    assert jnp.abs(y[0] - y[1]).max() > 0


def test_another_context_than_in_init_raises():
    flow = flows.RadialFlow((3,), num_steps=2)
    without = flow.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"None, got 2 in shape \(4, 2\)"):
        flow.apply(without, jnp.ones((4, 2))).forward(jnp.ones((4, 3)))
    given = flow.init(jax.random.key(0), jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="2, got None"):
        flow.apply(given).forward(jnp.ones((4, 3)))


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("name", FLOWS)
def test_density_integrates_to_one(name, dimension):
    flow = FLOWS[name]((dimension,), num_steps=3)
    bijector = far_from_identity(flow, jax.random.key(3))
    points = {1: 4001, 2: 401}[dimension]
    line = jnp.linspace(-10, 10, points)
    grid = jnp.stack(jnp.meshgrid(*[line] * dimension), axis=-1).reshape(-1, dimension)
    noise, log_det = jax.jit(bijector.inverse_and_log_det)(grid)
    log_density = jnp.sum(-(noise**2) / 2 - np.log(2 * np.pi) / 2, axis=-1) + log_det
    integral = jnp.sum(jnp.exp(log_density)) * (20 / (points - 1)) ** dimension
    np.testing.assert_allclose(integral, 1, atol=1e-3)
    assert jnp.abs(noise - grid).max() > 0.1


def test_64_planar_steps_stay_finite():
    flow = flows.PlanarFlow((8,), num_steps=64)
    bijector = far_from_identity(flow, jax.random.key(0))
    x = jnp.concatenate([jax.random.normal(jax.random.key(1), (16, 8)), jnp.full((1, 8), 1e6)])

    def loss(x):
        y, log_det = bijector.forward_and_log_det(x)
        return jnp.sum(log_det) + jnp.mean(y), (y, log_det)

    gradient, (y, log_det) = jax.grad(loss, has_aux=True)(x)
    assert all(jnp.isfinite(value).all() for value in (gradient, y, log_det))
    np.testing.assert_allclose(bijector.inverse(y), x, rtol=1e-3, atol=1e-2)


def test_nice_preserves_volume_up_to_its_scale():
    flow = flows.NICE((3,), num_steps=4, hidden_sizes=(8, 8))
    data = jax.random.normal(jax.random.key(0), (64, 3)) * jnp.array([1.0, 2.0, 5.0])
    variables = flow.init(jax.random.key(1), data=data)
    noise, log_det = flow.apply(variables).inverse_and_log_det(data)
    np.testing.assert_allclose(jnp.std(noise, axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(
        log_det, np.full(64, -variables["params"]["log_scale"].sum()), rtol=1e-5
    )
    bijector = far_from_identity(flow, jax.random.key(2))
    log_dets = bijector.forward_log_det_jacobian(data)
    np.testing.assert_allclose(log_dets, log_dets[0], rtol=1e-6)


@pytest.mark.parametrize("columns", [1, 2, 9])
def test_orthogonal_basis_has_at_most_as_many_columns_as_channels(columns):
    basis = flows.OrthogonalBasis(columns)
    q = basis(basis.init(jax.random.key(0), 3))
    assert q.shape == (3, min(columns, 3)) == (3, basis.columns(3))
    np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-5)
