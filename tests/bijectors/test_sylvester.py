"""Sylvester maps: the paper's formula, the bound, deep triangles, NaN inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import makers_linear
from vaeflow import bijectors
from vaeflow.bijectors.orthogonal import householder_product, orthonormal_columns

MAKERS = {
    "columns": makers_linear.sylvester(4, 2, orthonormal_columns),
    "square": makers_linear.sylvester(3, 3, makers_linear.householder),
    "identity": makers_linear.sylvester(3, 3, None),
}


def triangle(matrix):
    diagonal = np.diag(0.999 * np.tanh(np.diag(matrix)))
    return np.triu(np.asarray(matrix, np.float64), 1) + diagonal


@pytest.mark.parametrize("name", MAKERS)
def test_forward_is_the_formula_of_the_paper(name):
    sylvester = MAKERS[name](jax.random.key(0))
    outer, inner = triangle(sylvester.outer), triangle(sylvester.inner)
    basis = np.eye(len(outer)) if sylvester.basis is None else np.asarray(sylvester.basis)
    x = np.random.default_rng(0).normal(size=len(basis))
    a, b = basis @ outer, inner @ basis.T
    bent = np.tanh(b @ x + sylvester.bias)
    slopes = np.diag(1 - bent**2)
    y, log_det = sylvester.forward_and_log_det(jnp.float32(x))
    np.testing.assert_allclose(y, x + a @ bent, atol=1e-5)
    full = np.linalg.slogdet(np.eye(len(basis)) + a @ slopes @ b)[1]
    np.testing.assert_allclose(log_det, full, atol=1e-5)
    np.testing.assert_allclose(log_det, np.log1p(np.diag(slopes @ inner @ outer)).sum(), atol=1e-5)


def test_one_column_is_a_planar_map():
    # u = r e and w = r~ e for a unit vector e, so w . u_hat = r r~ where it needs no constraint.
    direction = jnp.array([[0.6], [0.8]])
    diagonals = 0.999 * jnp.tanh(jnp.array([0.7, 0.4]))
    sylvester = bijectors.Sylvester(
        direction, jnp.array([[0.7]]), jnp.array([[0.4]]), jnp.array([0.2])
    )
    product = diagonals[0] * diagonals[1]
    scale = jnp.log(jnp.expm1(1 + product)) / diagonals[1]  # what the constraint takes to r
    planar = bijectors.Planar(
        diagonals[1] * direction[:, 0], scale * direction[:, 0], jnp.array(0.2)
    )
    x = jax.random.normal(jax.random.key(0), (4, 2))
    for got, expected in zip(
        sylvester.forward_and_log_det(x), planar.forward_and_log_det(x), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("size", [3.0, 50.0, 1e6])
def test_stays_invertible_for_every_diagonal(size):
    sylvester = bijectors.Sylvester(None, size * jnp.eye(2), -size * jnp.eye(2), jnp.zeros(2))
    x = jnp.array([[0.0, 0.0], [0.3, -2.0], [1e3, 5.0]])
    y, log_det = sylvester.forward_and_log_det(x)
    assert (log_det > 2 * np.log(0.0019)).all()
    np.testing.assert_allclose(sylvester.inverse(y), x, rtol=1e-3, atol=1e-3)


def test_inverts_deep_triangles():
    keys = jax.random.split(jax.random.key(1), 4)
    sylvester = bijectors.Sylvester(
        householder_product(jax.random.normal(keys[0], (8, 16))),
        jax.random.normal(keys[1], (16, 16)) / 4,
        jax.random.normal(keys[2], (16, 16)) / 4,
        jnp.ones(16),
    )
    x = jax.random.normal(keys[3], (5, 16))
    y, log_det = sylvester.forward_and_log_det(x)
    returned, inverse_log_det = jax.jit(sylvester.inverse_and_log_det)(y)
    np.testing.assert_allclose(returned, x, atol=1e-4)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-4)


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
@pytest.mark.parametrize("name", MAKERS)
def test_nan_row_is_isolated(name, direction):
    sylvester = MAKERS[name](jax.random.key(0))
    function = getattr(sylvester, direction)
    dimension = len(sylvester.bias) if sylvester.basis is None else len(sylvester.basis)
    x = jax.random.normal(jax.random.key(1), (3, dimension)).at[1, 0].set(jnp.nan)
    value, log_det = function(x)
    expected, expected_log_det = function(x[::2])
    assert jnp.isnan(value[1]).any()
    assert jnp.isnan(log_det[1])
    np.testing.assert_allclose(value[::2], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_det[::2], expected_log_det, rtol=1e-5, atol=1e-6)


SQUARE = jnp.ones((2, 2))
ERRORS = {
    r"outer, inner and bias.*\(2, 2\).*\(3,\)": lambda: bijectors.Sylvester(
        None, SQUARE, SQUARE, jnp.ones(3)
    ),
    r"basis.*2 columns.*got \(1, 2\)": lambda: bijectors.Sylvester(
        jnp.ones((1, 2)), SQUARE, SQUARE, jnp.ones(2)
    ),
    r"basis.*got \(5, 3, 2\)": lambda: bijectors.Sylvester(
        jnp.ones((5, 3, 2)), SQUARE, SQUARE, jnp.ones(2)
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_arguments_raise(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
