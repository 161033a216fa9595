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

# The others differ from these in an activation or a basis.
REPRESENTATIVES = [
    name
    if name in ("planar", "radial", "orthogonal")
    else pytest.param(name, marks=pytest.mark.slow)
    for name in FLOWS
]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def far_from_identity(flow, seed):
    """The flow with noise on every parameter; in `jax.jit`, where the noise is constant."""
    random = np.random.default_rng(seed)
    variables = flow.init(jax.random.key(seed))
    return flow.apply(
        jax.tree.map(
            lambda leaf: leaf + 0.5 * np.float32(random.normal(size=leaf.shape)), variables
        )
    )


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_starts_near_the_identity(name):
    flow = FLOWS[name]((5,), num_steps=4)
    x = normal(0, 16, 5)

    @jax.jit
    def run():
        return flow.apply(flow.init(jax.random.key(1))).forward_and_log_det(x)

    y, log_det = jax.device_get(run())
    assert 1e-4 < np.abs(y - x).max() < 0.5
    assert 1e-4 < np.abs(log_det).max() < 0.5


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_every_parameter_depends_on_the_context(name):
    flow = FLOWS[name]((3,), num_steps=2)
    contexts, x = normal(0, 4, 2), normal(2, 4, 3)

    @jax.jit
    def run(contexts):
        variables = flow.init(jax.random.key(1), context=contexts)

        def loss(variables, contexts):
            y, log_det = flow.apply(variables, context=contexts).forward_and_log_det(x)
            return jnp.sum(y**3) + jnp.sum(log_det)

        return variables, jax.grad(loss, (0, 1))(variables, contexts)

    variables, (gradients, to_contexts) = jax.device_get(run(contexts))
    parameters = variables["params"]["steps"]["steps"]
    assert jax.tree.structure(parameters["kernel"]) == jax.tree.structure(parameters["base"])
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    assert (np.abs(to_contexts).max(axis=-1) > 0).all()


def test_labels_are_one_hot_contexts():
    flow = flows.PlanarFlow((3,), num_steps=2, num_classes=4)

    @jax.jit
    def run(labels):
        variables = flow.init(jax.random.key(0), context=labels)
        return flow.apply(variables, context=labels).forward(jnp.ones((3, 3)))

    y = jax.device_get(run(np.array([0, 3, 3])))
    np.testing.assert_array_equal(y[1], y[2])
    assert np.abs(y[0] - y[1]).max() > 0


def test_another_context_than_in_init_raises():
    flow = flows.RadialFlow((3,), num_steps=2)
    context = np.ones((4, 2), np.float32)

    def run(at_init, later):
        variables = flow.init(jax.random.key(0), context=at_init)
        return flow.apply(variables, context=later).forward(jnp.ones((4, 3)))

    with pytest.raises(
        ValueError, match=r"must be None, as in init, .* got float32 of shape \(4, 2\)"
    ):
        jax.eval_shape(run, None, context)
    with pytest.raises(ValueError, match=r"shape \(\*batch, 2\), as in init, got None"):
        jax.eval_shape(run, context, None)


# In one dimension the bijectors themselves are integrated elsewhere.
@pytest.mark.parametrize("dimension", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_density_integrates_to_one(name, dimension):
    flow = FLOWS[name]((dimension,), num_steps=3)
    points = {1: 4001, 2: 401}[dimension]
    line = np.linspace(-10, 10, points, dtype=np.float32)
    grid = np.stack(np.meshgrid(*[line] * dimension), axis=-1).reshape(-1, dimension)

    @jax.jit
    def run(grid):
        return far_from_identity(flow, 4).inverse_and_log_det(grid)

    noise, log_det = jax.device_get(run(grid))
    log_density = np.sum(-(noise**2) / 2 - np.log(2 * np.pi) / 2, axis=-1) + log_det
    integral = np.sum(np.exp(log_density)) * (20 / (points - 1)) ** dimension
    np.testing.assert_allclose(integral, 1, atol=1e-3)
    assert np.abs(noise - grid).max() > 0.1


@pytest.mark.slow
def test_64_planar_steps_stay_finite():
    flow = flows.PlanarFlow((8,), num_steps=64)
    x = np.concatenate([normal(1, 16, 8), np.full((1, 8), 1e6, np.float32)])

    @jax.jit
    def run(x):
        bijector = far_from_identity(flow, 0)

        def loss(x):
            y, log_det = bijector.forward_and_log_det(x)
            return jnp.sum(log_det) + jnp.mean(y), (y, log_det)

        gradient, (y, log_det) = jax.grad(loss, has_aux=True)(x)
        return (gradient, y, log_det), bijector.inverse(y)

    values, back = jax.device_get(run(x))
    assert all(np.isfinite(value).all() for value in values)
    np.testing.assert_allclose(back, x, rtol=1e-3, atol=1e-2)


def test_nice_preserves_volume_up_to_its_scale():
    flow = flows.NICE((3,), num_steps=4, hidden_sizes=(8, 8))
    data = normal(0, 64, 3) * np.float32([1, 2, 5])

    @jax.jit
    def run(data):
        variables = flow.init(jax.random.key(1), data=data)
        noise, log_det = flow.apply(variables).inverse_and_log_det(data)
        log_dets = far_from_identity(flow, 2).forward_log_det_jacobian(data)
        return variables["params"]["log_scale"], noise, log_det, log_dets

    log_scale, noise, log_det, log_dets = jax.device_get(run(data))
    np.testing.assert_allclose(np.std(noise, axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(log_det, np.full(64, -log_scale.sum()), rtol=1e-5)
    np.testing.assert_allclose(log_dets, np.full(64, log_dets[0]), rtol=1e-6)


def test_orthogonal_basis_has_at_most_as_many_columns_as_channels():
    bases = {columns: flows.OrthogonalBasis(columns) for columns in (1, 2, 9)}

    @jax.jit
    def run(key):
        return {columns: basis(basis.init(key, 3)) for columns, basis in bases.items()}

    for columns, q in jax.device_get(run(jax.random.key(0))).items():
        assert q.shape == (3, min(columns, 3)) == (3, bases[columns].columns(3))
        np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-5)
