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


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_householder_product_equals_successive_reflections():
    shapes = [(1, 3), (4, 4), (7, 3), (2, 1), (40, 30), (2, 3, 4, 5)]
    vectors = [normal(0, *shape) for shape in shapes]
    *products, of_batch = jax.jit(lambda vectors: list(map(householder_product, vectors)))(vectors)
    for product, each in zip(products, vectors[:-1], strict=True):
        np.testing.assert_allclose(product, successive_reflections(each), atol=1e-5)
    for place in np.ndindex(2, 3):
        expected = successive_reflections(vectors[-1][place])
        np.testing.assert_allclose(np.asarray(of_batch)[place], expected, atol=1e-5)


def test_zero_vectors_reflect_nothing():
    @jax.jit
    def run(vectors):
        return householder_product(vectors), jax.jacrev(householder_product)(vectors)

    vectors = normal(0, 3, 4)
    for size in (0.0, 1e-30, 1e-7):
        vectors[1] = size
        product, jacobian = jax.device_get(run(vectors))
        np.testing.assert_allclose(product, successive_reflections(vectors[::2]), atol=1e-5)
        assert np.isfinite(jacobian).all()
        assert np.abs(jacobian[..., 0, :]).max() > 0


def test_orthonormal_columns_agree_with_the_polar_factor():
    matrices = [7 * normal(1, *shape) for shape in [(3, 1), (5, 5), (40, 32)]]
    qs = jax.device_get(jax.jit(lambda each: list(map(orthonormal_columns, each)))(matrices))
    for q, matrix in zip(qs, matrices, strict=True):
        np.testing.assert_allclose(q.T @ q, np.eye(matrix.shape[1]), atol=1e-5)
        np.testing.assert_allclose(q, polar_factor(matrix), atol=1e-4)


def test_derivatives_of_orthonormal_columns_are_those_of_the_limit():
    @jax.jit
    def run(matrix, change):
        _, got = jax.jvp(orthonormal_columns, (matrix,), (change,))
        return got, jax.jacrev(orthonormal_columns)(matrix)

    matrix, change = normal(2, 4, 3), normal(3, 4, 3)
    wide, wide_change, step = np.float64(matrix), np.float64(change), 1e-5
    expected = polar_factor(wide + step * wide_change) - polar_factor(wide - step * wide_change)
    got, jacobian = jax.device_get(run(matrix, change))
    np.testing.assert_allclose(got, expected / (2 * step), atol=1e-4)
    np.testing.assert_allclose(np.tensordot(jacobian, change, 2), got, atol=1e-4)


def test_dependent_columns_make_only_their_example_nan():
    good, bad = normal(4, 4, 2), np.ones((4, 2), np.float32)
    matrices = np.stack([good, bad, np.zeros_like(bad), np.nan * bad])
    q = jax.device_get(jax.jit(orthonormal_columns)(matrices))
    np.testing.assert_allclose(q[0], polar_factor(good), atol=1e-5)
    assert np.isnan(q[1:]).all()


def test_lu_linear_is_the_product_of_its_factors():
    lower, upper = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
    log_magnitude, sign = np.float32([0.3, -1.0, 0.5]), np.float32([1.0, -1.0, 1.0])
    weight = (np.tril(lower, -1) + np.eye(3)) @ (
        np.triu(upper, 1) + np.diag(sign * np.exp(log_magnitude))
    )
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)

    @jax.jit
    def run(lower, upper, log_magnitude, sign, x):
        linear = bijectors.LULinear(lower, upper, log_magnitude, sign)
        return linear.forward_and_log_det(x)

    y, log_det = run(lower, upper, log_magnitude, sign, x)
    np.testing.assert_allclose(y, x @ weight, atol=1e-5)
    np.testing.assert_allclose(log_det, np.full(5, -0.2), rtol=1e-5)


def test_lu_linear_has_positive_signs_and_no_permutation_unless_given():
    @jax.jit
    def run(lower, upper, log_magnitude):
        return bijectors.LULinear(lower, upper, log_magnitude).forward(jnp.eye(2))

    y = run(np.full((2, 2), 2, np.float32), np.full((2, 2), 5, np.float32), np.zeros(2, np.float32))
    np.testing.assert_allclose(y, [[1, 5], [2, 11]], rtol=1e-6)


def test_lu_linear_takes_the_factors_of_any_matrix():
    weight = np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32)

    @jax.jit
    def run(factors, weight):
        linear = bijectors.LULinear(**factors)
        return linear.forward(jnp.eye(4)), linear.inverse(weight)

    product, identity = run(plu_factors(weight), weight)
    np.testing.assert_allclose(product, weight, atol=1e-5)
    np.testing.assert_allclose(identity, np.eye(4), atol=1e-4)


def test_qr_linear_is_the_product_of_its_factors():
    reflections, upper, x = normal(5, 2, 3), normal(6, 3, 3), normal(7, 5, 3)
    log_diagonal = np.float32([0.3, -1.0, 0.5])
    weight = successive_reflections(reflections) @ (
        np.triu(upper, 1) + np.diag(np.exp(log_diagonal))
    )

    @jax.jit
    def run(reflections, upper, log_diagonal, x):
        linear = bijectors.QRLinear(reflections, upper, log_diagonal)
        y, log_det = linear.forward_and_log_det(x)
        return y, log_det, linear.inverse(y)

    y, log_det, back = run(reflections, upper, log_diagonal, x)
    np.testing.assert_allclose(y, x @ weight, atol=1e-5)
    np.testing.assert_allclose(log_det, np.full(5, np.linalg.slogdet(weight)[1]), rtol=1e-5)
    np.testing.assert_allclose(back, x, atol=1e-5)


ERRORS = {
    "lower must be a matrix": lambda: bijectors.LULinear(
        np.ones((2, 3)), np.ones((2, 2)), np.ones(2)
    ),
    r"upper must fit.*\(2, 2\).*\(3, 3\)": lambda: bijectors.LULinear(
        np.ones((2, 2)), np.ones((3, 3)), np.ones(2)
    ),
    r"sign must fit.*\(2, 2\).*\(3,\)": lambda: bijectors.LULinear(
        np.ones((2, 2)), np.ones((2, 2)), np.ones(2), np.ones(3)
    ),
    r"reflections.*\(1, 2\)": lambda: bijectors.QRLinear(
        np.ones((1, 2)), np.ones((3, 3)), np.ones(3)
    ),
    r"as many columns as rows, got \(2, 3\)": lambda: orthonormal_columns(np.ones((2, 3))),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_shapes_raise(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
