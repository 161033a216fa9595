"""Sylvester maps: the paper's formula, the bound, deep triangles, NaN inputs."""

import functools

import jax
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


@functools.partial(jax.jit, static_argnums=0)
def in_both_directions(name, x):
    """A map of this kind, and what it makes of three events forward and inversely."""
    sylvester = MAKERS[name](jax.random.key(0))
    return sylvester, sylvester.forward_and_log_det(x), sylvester.inverse_and_log_det(x)


def events(name):
    dimension = 4 if name == "columns" else 3
    return np.random.default_rng(0).normal(size=(3, dimension)).astype(np.float32)


@pytest.mark.parametrize("name", MAKERS)
def test_forward_is_the_formula_of_the_paper(name):
    x = events(name)
    sylvester, (y, log_det), _ = jax.device_get(in_both_directions(name, x))
    outer, inner = triangle(sylvester.outer), triangle(sylvester.inner)
    basis = np.eye(len(outer)) if sylvester.basis is None else sylvester.basis
    a, b = basis @ outer, inner @ basis.T
    for event, got, got_log_det in zip(x, y, log_det, strict=True):
        bent = np.tanh(b @ event + sylvester.bias)
        slopes = np.diag(1 - bent**2)
        np.testing.assert_allclose(got, event + a @ bent, atol=1e-5)
        full = np.linalg.slogdet(np.eye(len(basis)) + a @ slopes @ b)[1]
        np.testing.assert_allclose(got_log_det, full, atol=1e-5)
        small = np.log1p(np.diag(slopes @ inner @ outer)).sum()
        np.testing.assert_allclose(got_log_det, small, atol=1e-5)


def test_one_column_is_a_planar_map():
    # u = r e and w = r~ e for a unit vector e, so w . u_hat = r r~ where it needs no constraint.
    direction = np.array([[0.6], [0.8]])
    diagonals = 0.999 * np.tanh(np.array([0.7, 0.4]))
    product = diagonals[0] * diagonals[1]
    scale = np.log(np.expm1(1 + product)) / diagonals[1]  # what the constraint takes to r

    @jax.jit
    def both(x):
        sylvester = bijectors.Sylvester(
            direction, np.array([[0.7]]), np.array([[0.4]]), np.array([0.2])
        )
        planar = bijectors.Planar(
            diagonals[1] * direction[:, 0], scale * direction[:, 0], np.array(0.2)
        )
        return sylvester.forward_and_log_det(x), planar.forward_and_log_det(x)

    x = np.random.default_rng(0).normal(size=(4, 2))
    for got, expected in zip(*both(x), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@jax.jit
def forward_and_back(sylvester, x):
    y, log_det = sylvester.forward_and_log_det(x)
    return log_det, *sylvester.inverse_and_log_det(y)


@pytest.mark.parametrize("size", [3.0, 50.0, 1e6])
def test_stays_invertible_for_every_diagonal(size):
    diagonal = np.float32(size * np.eye(2))
    sylvester = bijectors.Sylvester(None, diagonal, -diagonal, np.zeros(2, np.float32))
    x = np.float32([[0.0, 0.0], [0.3, -2.0], [1e3, 5.0]])
    log_det, returned, _ = jax.device_get(forward_and_back(sylvester, x))
    assert (log_det > 2 * np.log(0.0019)).all()
    np.testing.assert_allclose(returned, x, rtol=1e-3, atol=1e-3)


def test_inverts_deep_triangles():
    random = np.random.default_rng(1)
    directions, outer, inner, x = (
        np.float32(random.normal(size=(rows, 16))) for rows in (8, 16, 16, 5)
    )
    basis = jax.jit(householder_product)(directions)
    sylvester = bijectors.Sylvester(basis, outer / 4, inner / 4, np.ones(16, np.float32))
    log_det, returned, inverse_log_det = jax.device_get(forward_and_back(sylvester, x))
    np.testing.assert_allclose(returned, x, atol=1e-4)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-4)


@pytest.mark.parametrize("name", MAKERS)
def test_nan_row_is_isolated(name):
    x = events(name)
    _, *expected = jax.device_get(in_both_directions(name, x))
    x[1, 0] = np.nan
    _, *found = jax.device_get(in_both_directions(name, x))
    for (value, log_det), (clean, clean_log_det) in zip(found, expected, strict=True):
        assert np.isnan(value[1]).any()
        assert np.isnan(log_det[1])
        np.testing.assert_allclose(value[::2], clean[::2], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(log_det[::2], clean_log_det[::2], rtol=1e-5, atol=1e-6)


SQUARE = np.ones((2, 2))
ERRORS = {
    r"outer, inner and bias.*\(2, 2\).*\(3,\)": lambda: bijectors.Sylvester(
        None, SQUARE, SQUARE, np.ones(3)
    ),
    r"basis.*2 columns.*got \(1, 2\)": lambda: bijectors.Sylvester(
        np.ones((1, 2)), SQUARE, SQUARE, np.ones(2)
    ),
    r"basis.*got \(5, 3, 2\)": lambda: bijectors.Sylvester(
        np.ones((5, 3, 2)), SQUARE, SQUARE, np.ones(2)
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_arguments_raise(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
