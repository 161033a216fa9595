"""Factored linear maps, and their orthogonal matrices, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import bijectors
from vaeflow.bijectors.linear import plu_factors
from vaeflow.bijectors.orthogonal import householder_product, orthonormal_columns


def successive_reflections(vectors):
    product = np.eye(vectors.shape[-1])
    for vector in np.asarray(vectors, np.float64):
        product = product @ (
            np.eye(len(vector)) - 2 * np.outer(vector, vector) / max(vector @ vector, 1e-300)
        )
    return product


def polar_factor(matrix):
    left, _, right = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    return left @ right


@pytest.mark.parametrize(("count", "dimension"), [(1, 3), (4, 4), (7, 3), (2, 1), (40, 30)])
def test_householder_product_equals_successive_reflections(count, dimension):
    vectors = jax.random.normal(jax.random.key(0), (count, dimension))
    product = householder_product(vectors)
    np.testing.assert_allclose(product, successive_reflections(vectors), atol=1e-5)


def test_householder_product_of_a_batch_is_that_of_each():
    vectors = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    products = householder_product(vectors)
    np.testing.assert_allclose(products[1, 2], successive_reflections(vectors[1, 2]), atol=1e-5)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-7])
def test_zero_vectors_reflect_nothing(size):
    vectors = jax.random.normal(jax.random.key(0), (3, 4)).at[1].set(size)
    product = householder_product(vectors)
    np.testing.assert_allclose(product, successive_reflections(vectors[::2]), atol=1e-5)
    jacobian = jax.jacrev(householder_product)(vectors)
    assert jnp.isfinite(jacobian).all()
    assert jnp.abs(jacobian[..., 0, :]).max() > 0


@pytest.mark.parametrize(("rows", "columns"), [(3, 1), (5, 5), (40, 32)])
def test_orthonormal_columns_agree_with_the_polar_factor(rows, columns):
    matrix = 7 * jax.random.normal(jax.random.key(1), (rows, columns))
    q = orthonormal_columns(matrix)
    np.testing.assert_allclose(q.T @ q, np.eye(columns), atol=1e-5)
    np.testing.assert_allclose(q, polar_factor(matrix), atol=1e-4)


def test_derivatives_of_orthonormal_columns_are_those_of_the_limit():
    matrix = jax.random.normal(jax.random.key(2), (4, 3))
    change = np.asarray(jax.random.normal(jax.random.key(3), (4, 3)), np.float64)
    wide, step = np.asarray(matrix, np.float64), 1e-5
    expected = polar_factor(wide + step * change) - polar_factor(wide - step * change)
    _, got = jax.jvp(orthonormal_columns, (matrix,), (jnp.float32(change),))
    np.testing.assert_allclose(got, expected / (2 * step), atol=1e-4)
    jacobian = jax.jacrev(orthonormal_columns)(matrix)
    np.testing.assert_allclose(jnp.tensordot(jacobian, change, 2), got, atol=1e-4)


def test_dependent_columns_make_only_their_example_nan():
    good = jax.random.normal(jax.random.key(4), (4, 2))
    bad = jnp.ones((4, 2))
    q = orthonormal_columns(jnp.stack([good, bad, jnp.zeros((4, 2)), jnp.nan * bad]))
    np.testing.assert_allclose(q[0], polar_factor(good), atol=1e-5)
    assert jnp.isnan(q[1:]).all()


def test_lu_linear_is_the_product_of_its_factors():
    lower, upper = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
    log_magnitude, sign = jnp.array([0.3, -1.0, 0.5]), jnp.array([1.0, -1.0, 1.0])
    weight = (np.tril(lower, -1) + np.eye(3)) @ (
        np.triu(upper, 1) + np.diag(sign * np.exp(log_magnitude))
    )
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    y, log_det = bijectors.LULinear(lower, upper, log_magnitude, sign).forward_and_log_det(x)
    np.testing.assert_allclose(y, x @ weight, atol=1e-5)
    np.testing.assert_allclose(log_det, np.full(5, -0.2), rtol=1e-5)


def test_lu_linear_has_positive_signs_and_no_permutation_unless_given():
    linear = bijectors.LULinear(jnp.full((2, 2), 2.0), jnp.full((2, 2), 5.0), jnp.log(jnp.ones(2)))
    np.testing.assert_allclose(linear.forward(jnp.eye(2)), [[1, 5], [2, 11]], rtol=1e-6)


def test_lu_linear_takes_the_factors_of_any_matrix():
    weight = np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32)
    linear = bijectors.LULinear(**plu_factors(weight))
    np.testing.assert_allclose(linear.forward(jnp.eye(4)), weight, atol=1e-5)
    np.testing.assert_allclose(linear.inverse(jnp.asarray(weight)), np.eye(4), atol=1e-4)


def test_qr_linear_is_the_product_of_its_factors():
    keys = jax.random.split(jax.random.key(5), 3)
    reflections = jax.random.normal(keys[0], (2, 3))
    upper = jax.random.normal(keys[1], (3, 3))
    log_diagonal = jnp.array([0.3, -1.0, 0.5])
    weight = successive_reflections(reflections) @ (
        np.triu(upper, 1) + np.diag(np.exp(log_diagonal))
    )
    linear = bijectors.QRLinear(reflections, upper, log_diagonal)
    x = jax.random.normal(keys[2], (5, 3))
    y, log_det = linear.forward_and_log_det(x)
    np.testing.assert_allclose(y, x @ weight, atol=1e-5)
    np.testing.assert_allclose(log_det, np.full(5, np.linalg.slogdet(weight)[1]), rtol=1e-5)
    np.testing.assert_allclose(linear.inverse(y), x, atol=1e-5)


ERRORS = {
    "lower must be a matrix": lambda: bijectors.LULinear(
        jnp.ones((2, 3)), jnp.ones((2, 2)), jnp.ones(2)
    ),
    r"upper must fit.*\(2, 2\).*\(3, 3\)": lambda: bijectors.LULinear(
        jnp.ones((2, 2)), jnp.ones((3, 3)), jnp.ones(2)
    ),
    r"sign must fit.*\(2, 2\).*\(3,\)": lambda: bijectors.LULinear(
        jnp.ones((2, 2)), jnp.ones((2, 2)), jnp.ones(2), jnp.ones(3)
    ),
    r"reflections.*\(1, 2\)": lambda: bijectors.QRLinear(
        jnp.ones((1, 2)), jnp.ones((3, 3)), jnp.ones(3)
    ),
    r"as many columns as rows, got \(2, 3\)": lambda: orthonormal_columns(jnp.ones((2, 3))),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_shapes_raise(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
