"""Maps whose range isn't everything: exact values, and densities at and beyond the ends."""

from __future__ import annotations

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import makers
from vaeflow import bijectors, flows, models
from vaeflow.distributions import Transformed

MAPS = {"exp": bijectors.Exp(), "softplus": bijectors.Softplus()}

FALLING = bijectors.ElementwiseAffine(jnp.float32(1.0), jnp.log(2.0))

SHIFTED = bijectors.ElementwiseAffine(jnp.float32(-2.0), jnp.log(3.0))

# Each with points outside its range, and points inside and at its ends.
RANGES = {
    "exp": (bijectors.Exp(), (-1e-30, -1.0, -1e9), (0.0, 1e-20, 0.3, 1e9)),
    "softplus": (bijectors.Softplus(), (-1e-30, -1.0, -1e9), (0.0, 1e-20, 0.3, 1e9)),
    "sigmoid": (bijectors.Sigmoid(), (-1e-30, 1.0000001, 1.5, 1e9), (0.0, 1e-30, 0.5, 1.0)),
    "interval": (bijectors.Sigmoid(-3, 2), (-3.000001, 2.000001, -1e9), (-3.0, -2.9, 1.9, 2.0)),
    "inverse-of-logit": (bijectors.Inverse(bijectors.Logit(-3, 2)), (-3.1, 2.1), (-3.0, 0.0)),
    "affine-of-exp": (bijectors.Chain([SHIFTED, bijectors.Exp()]), (-2.1, -1e6), (-1.9, 7.0)),
    "exp-of-affine": (bijectors.Chain([bijectors.Exp(), FALLING]), (-0.1, -1e6), (0.1, 1e6)),
    "exp-of-sigmoid": (
        bijectors.Chain([bijectors.Exp(), bijectors.Sigmoid(-1, 1)]),
        (-1.0, 0.36, 2.72, 1e9),
        (0.37, 1.0, 2.7),
    ),
    "inverse-of-chain": (
        bijectors.Inverse(bijectors.Chain([FALLING, bijectors.Inverse(bijectors.Exp())])),
        (-0.1, -1e6),
        (0.1, 10.0),
    ),
}


@functools.cache
def _bounded(context: bool):
    flow = flows.BoundedFlow(flows.NeuralSplineFlow((2,), num_steps=1, hidden_sizes=(4,)), 0.0, 1.0)
    model = models.FlowModel(flow)
    given = jnp.ones((5, 3)) if context else None
    data = jnp.linspace(0.0, 1.0, 10).reshape(5, 2)
    variables = jax.jit(model.init)(jax.random.key(0), data, context=given)
    one = jnp.ones(3) if context else None
    return model.apply(variables, context=one)


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("name", RANGES)
def test_density_is_zero_outside_the_range_alone(name, scale):
    bijector, outside, inside = RANGES[name]
    base = distrax.Independent(distrax.Normal(jnp.zeros(2), scale), 1)
    distribution = Transformed(base, bijector)
    # The other element of each event is inside.
    rows = jnp.array([[value, inside[-2]] for value in (*outside, *inside)])
    gradient, log_prob = jax.vmap(
        jax.grad(lambda y: (distribution.log_prob(y),) * 2, has_aux=True)
    )(rows)
    assert (log_prob[: len(outside)] == -jnp.inf).all()
    assert jnp.isfinite(log_prob[len(outside) :]).all()
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("context", [False, True], ids=["alone", "given-context"])
def test_bounded_flow_has_no_density_outside_its_interval(context):
    distribution = _bounded(context)
    outside = jnp.array([[-5.0, 0.5], [0.5, 1e6], [1.0000001, 0.0], [-1e-6, 1.0]])
    inside = jnp.array([[0.0, 0.5], [1.0, 0.0], [1e-7, 0.3]])
    log_prob = jax.jit(distribution.log_prob)(jnp.concatenate([outside, inside]))
    assert (log_prob[:4] == -jnp.inf).all()
    assert jnp.isfinite(log_prob[4:]).all()


def test_coupling_keeps_the_range_of_what_follows():
    bijector = bijectors.Chain(
        [bijectors.Sigmoid(-1, 1), makers.affine_coupling(4, 2)(jax.random.key(0))]
    )
    y = jnp.array([[0.1, -0.2, 0.3, 1.1], [0.1, -0.2, 0.3, 0.9]])
    _, log_det = bijector.inverse_and_log_det(y)
    assert log_det[0] == -jnp.inf
    assert jnp.isfinite(log_det[1])


@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0])
@pytest.mark.parametrize("name", ["exp", "softplus", "sigmoid", "interval"])
def test_sampling_and_evaluating_agree(name, scale):
    bijector, _, _ = RANGES[name]
    distribution = Transformed(
        distrax.Independent(distrax.Normal(jnp.zeros(1), scale), 1), bijector
    )
    y, log_prob = distribution.sample_and_log_prob(seed=jax.random.key(0), sample_shape=2000)
    if isinstance(bijector, bijectors.Sigmoid):
        # Nearer the ends than this, neighbouring numbers of float32 differ in x.
        distance = jnp.minimum(y - bijector.lower, bijector.upper - y)[:, 0]
    else:
        distance = y[:, 0]
        # float32 holds no exponentials beyond these.
        distance = jnp.where(distance < 1e37, distance, 0.0)
    resolved = distance > (1e-3 if isinstance(bijector, bijectors.Sigmoid) else 1e-37)
    assert resolved.mean() > 0.15
    difference = jnp.where(resolved, log_prob - distribution.log_prob(y), 0.0)
    np.testing.assert_allclose(difference, 0.0, atol=3e-3)
    assert jnp.isfinite(distribution.log_prob(y)).all()


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("name", MAPS)
def test_density_of_positive_numbers_integrates_to_one(name, scale):
    distribution = Transformed(distrax.Normal(0.0, scale), type(MAPS[name])(0))
    # Over log y: dy = y d(log y).
    grid = jnp.linspace(-85.0, 85.0, 40001)
    density = jnp.exp(distribution.log_prob(jnp.exp(grid)) + grid)
    np.testing.assert_allclose(jnp.sum(density) * (grid[1] - grid[0]), 1.0, rtol=1e-3)


@pytest.mark.parametrize("value", [1e-20, 1e-6, 0.3, 5.0, 80.0])
def test_softplus_inverse_agrees_with_float64(value):
    x, log_det = bijectors.Softplus().inverse_and_log_det(jnp.array([value], jnp.float32))
    wide = np.float64(np.float32(value))
    expected = wide + np.log(-np.expm1(-wide))
    np.testing.assert_allclose(x, [expected], rtol=1e-6)
    np.testing.assert_allclose(log_det, np.log1p(np.exp(-expected)), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("value", [1e-30, 1e-9, 0.25, 0.5, 0.999, 1 - 2**-24])
def test_sigmoid_inverse_agrees_with_float64(value):
    x, log_det = bijectors.Sigmoid().inverse_and_log_det(jnp.array([value], jnp.float32))
    wide = np.float64(np.float32(value))
    expected = np.log(wide) - np.log1p(-wide)
    np.testing.assert_allclose(x, [expected], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(log_det, -np.log(wide) - np.log1p(-wide), rtol=1e-6)


def test_ends_of_a_range_are_evaluated_beside_them():
    for bijector in MAPS.values():
        np.testing.assert_allclose(bijector.inverse(jnp.zeros(1)), np.log(1e-30), rtol=1e-6)
    ends = bijectors.Sigmoid(-1, 3).inverse(jnp.array([-1.0, 3.0]))
    np.testing.assert_allclose(ends, [-np.log(1e6), np.log(1e6)], rtol=1e-5)


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
@pytest.mark.parametrize("name", MAPS)
def test_clipped_rows_leave_gradients_of_others_unchanged(name, direction):
    function = getattr(MAPS[name], direction)

    def gradient(values):
        return jax.grad(lambda v: sum(jnp.sum(out) for out in function(v)))(values)

    edges = jnp.array([0.0, -3.0, 1e-30, 1e6, -1e6])
    both = gradient(jnp.stack([edges, jnp.full(5, 0.7)]))
    assert jnp.isfinite(both).all()
    np.testing.assert_allclose(both[1], gradient(jnp.full((1, 5), 0.7))[0], rtol=1e-6)


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
@pytest.mark.parametrize("name", [*MAPS, "sigmoid"])
def test_nan_row_is_isolated(name, direction):
    bijector = RANGES[name][0]
    value, log_det = getattr(bijector, direction)(jnp.array([[0.9], [jnp.nan]]))
    assert jnp.isfinite(value[0]).all()
    assert jnp.isfinite(log_det[0])
    assert jnp.isnan(value[1]).all()
    assert jnp.isnan(log_det[1])


def test_logit_is_the_inverse_of_sigmoid():
    logit = bijectors.Logit(-1, 3)
    y, log_det = logit.forward_and_log_det(jnp.array([2.0]))
    np.testing.assert_allclose(y, [np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(log_det, -np.log(4 * 0.75 * 0.25), rtol=1e-5)
    np.testing.assert_allclose(logit.inverse(y), [2.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("lower", "upper"), [(1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (1e8, 1e8 + 1)]
)
def test_interval_without_numbers_is_refused(lower, upper):
    with pytest.raises(ValueError, match="upper"):
        bijectors.Logit(lower, upper)
