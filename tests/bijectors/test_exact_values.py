"""Bijectors against values computed by hand, and their errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import bijectors
from vaeflow.bijectors.linear import plu_factors
from vaeflow.nn.normalization import actnorm_parameters


def test_squeeze_puts_the_upper_row_of_a_block_first():
    image = jnp.arange(8).reshape(2, 4, 1)  # 0 1 2 3 / 4 5 6 7
    np.testing.assert_array_equal(
        bijectors.Squeeze().forward(image), [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    )


def test_checkerboard_puts_the_diagonal_of_a_block_first():
    image = jnp.arange(8).reshape(2, 4, 1)
    squeezed = bijectors.Squeeze(checkerboard=True).forward(image)
    np.testing.assert_array_equal(squeezed, [[[0, 5, 1, 4], [2, 7, 3, 6]]])


def test_chain_applies_its_last_part_first():
    double = bijectors.ElementwiseAffine(jnp.zeros(1), jnp.log(jnp.full(1, 2.0)))
    add = bijectors.ElementwiseAffine(jnp.ones(1), jnp.zeros(1))
    assert bijectors.Chain([double, add]).forward(jnp.array([3.0])) == pytest.approx(8.0)
    assert bijectors.Chain([add, double]).forward(jnp.array([3.0])) == pytest.approx(7.0)


def test_factor_out_passes_the_last_channels_through():
    flatten = bijectors.Reshape((2, 1, 1), (2,))
    image = jnp.array([[[1.0, 10.0, 20.0]], [[2.0, 30.0, 40.0]]])
    out = bijectors.FactorOut(flatten, (2, 1, 3), 1).forward(image)
    np.testing.assert_array_equal(out, [1, 2, 10, 20, 30, 40])


def test_actnorm_parameters_standardise():
    data = jnp.array([[0.0, 5.0], [2.0, 5.0]])
    shift, log_scale = actnorm_parameters(data)
    out = bijectors.ActNorm(shift, log_scale, 1).forward(data)
    np.testing.assert_allclose(out, [[-1, 0], [1, 0]], atol=1e-6)
    assert jnp.isfinite(log_scale).all()


def test_plu_factors_multiply_to_the_matrix():
    weight = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    factored = bijectors.Invertible1x1ConvolutionPLU(**plu_factors(weight), event_ndims=1)
    y, log_det = factored.forward_and_log_det(jnp.eye(5))
    np.testing.assert_allclose(y, weight, atol=1e-5)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(weight)[1], rtol=1e-5)


def test_scales_stay_within_their_bounds():
    raw = jnp.array([-1e4, -2.0, 0.0, 1e4])
    scale = jnp.exp(bijectors.SigmoidLogScale(0.25)(raw))
    np.testing.assert_allclose(scale, [0.25, 0.625, 0.25 + 0.75 * 0.880797, 1.0], rtol=1e-5)


LIFTED = bijectors.BoundedLogScale(-math.inf, math.inf)
LOG_SCALES = {
    "affine": (bijectors.BoundedLogScale(), LIFTED, -2.0, 6.0),
    "sigmoid": (bijectors.SigmoidLogScale(), bijectors.SigmoidLogScale(lower=-math.inf), -3.0, 1.0),
}


@pytest.mark.parametrize("name", LOG_SCALES)
def test_bounds_bend_a_log_scale_beyond_three_quarters_of_themselves(name):
    bounded, lifted, lower, upper = LOG_SCALES[name]
    raw = jnp.concatenate([jnp.linspace(-30, 30, 2001), jnp.array([-1e30, 1e30])])
    found, free = bounded(raw), lifted(raw)
    assert lower <= found.min() < 0.97 * lower
    assert found.max() <= upper
    assert (jnp.diff(found[:-2]) >= -1e-6).all()
    inside = (0.75 * lower <= free) & (free <= 0.75 * upper)
    np.testing.assert_array_equal(found[inside], free[inside])
    if name == "affine":
        np.testing.assert_array_equal(free, 8 * jnp.tanh(raw / 8))
        assert found.max() > 0.97 * upper


@pytest.mark.parametrize("name", LOG_SCALES)
def test_bounds_have_two_finite_derivatives(name):
    bounded = LOG_SCALES[name][0]
    raw = jnp.array([-1e30, -50.0, -3.25, -1.5165, -1.0, 0.0, 5.087, 20.0, 1e30])
    slope = jax.vmap(jax.grad(bounded))
    forward = jax.vmap(lambda value: jax.jvp(bounded, (value,), (1.0,))[1])
    curvature = jax.vmap(jax.grad(jax.grad(bounded)))
    np.testing.assert_allclose(forward(raw), slope(raw), rtol=1e-4, atol=1e-9)
    assert (slope(raw) >= 0).all()
    assert jnp.isfinite(curvature(raw)).all()
    # Smooth where the bending begins, to the second derivative.
    near = jnp.linspace(-4, 6, 20_001)
    assert jnp.abs(jnp.diff(slope(near))).max() < 2e-3


ERRORS = {
    "permutation": lambda: bijectors.Permute((0, 2)),
    "shape_in": lambda: bijectors.Reshape((4,), (3,)),
    "at least one": lambda: bijectors.Chain([]),
    "rank 1": lambda: bijectors.Chain([bijectors.Reverse(3), bijectors.Reverse(1)]),
    "weight must be a matrix": lambda: bijectors.Invertible1x1Convolution(jnp.ones((2, 3))),
    "checkerboard": lambda: bijectors.Squeeze(3, checkerboard=True),
    "kept": lambda: bijectors.FactorOut(bijectors.Reshape((1, 1, 2), (2,)), (1, 1, 2), 2),
    "upper": lambda: bijectors.Sigmoid(1.0, 1.0),
    "floor": lambda: bijectors.SigmoidLogScale(0.0),
    "lower must be below 0, got 0": lambda: bijectors.SigmoidLogScale(lower=0.0),
    "lower must be below 0 and upper above it": lambda: bijectors.BoundedLogScale(1.0, 2.0),
    "segment": lambda: bijectors.Scan(len, jnp.ones((2, 3)), segment=0),
    r"backward must be one of \('plain', 'remat', 'reversible'\), got 'fast'": lambda: (
        bijectors.Scan(len, jnp.ones((2, 3)), backward="fast")
    ),
    "same first axis": lambda: bijectors.Scan(len, {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_arguments_raise(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
