"""Monotone elementwise maps against exact values, and the block autoregressive map."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import polynomial

from tests import makers_monotone
from vaeflow import bijectors, distributions, flows

FAMILIES = {
    "bernstein": bijectors.BernsteinTransformer(6, 3.0),
    "monotone": bijectors.MonotoneTransformer(5),
    "spline": bijectors.SplineTransformer(num_bins=5, bound=3.0),
}


def parameters(name, scale=1.5, seed=0):
    raw = np.random.default_rng(seed).normal(size=(1, FAMILIES[name].num_parameters))
    return np.float32(scale * raw)


@pytest.mark.parametrize("name", FAMILIES)
def test_densities_integrate_to_one(name):
    @jax.jit
    def log_prob(raw, places):
        noise = distributions.standard_normal((1,))
        inverse = bijectors.Inverse(FAMILIES[name](raw))
        return distributions.Transformed(noise, inverse).log_prob(places)

    places = np.linspace(-60, 60, 240_001, dtype=np.float32)[:, None]
    for seed in (0, 1):
        total = np.trapezoid(np.exp(log_prob(parameters(name, seed=seed), places)), places[:, 0])
        np.testing.assert_allclose(total, 1, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_increase_everywhere(name):
    run = jax.jit(lambda raw, places: FAMILIES[name](raw).forward_and_log_det(places))
    raw = parameters(name, 4.0)
    places = np.float32([*np.linspace(-10, 10, 3999), -1e3, 1e3])
    _, log_det = run(raw, places[:, None])
    assert np.all(np.isfinite(log_det))
    values, _ = run(raw, np.linspace(-50, 50, 4001, dtype=np.float32)[:, None])
    assert np.all(np.diff(np.asarray(values)[:, 0]) > 0)


def test_bernstein_is_its_polynomial_inside_and_its_lines_outside():
    shares = np.array([0.5, -1.0, 0.3, 2.0])

    @jax.jit
    def run(shares, x):
        return bijectors.BernsteinPolynomial(shares, 2.0, 0).forward_and_log_det(x)

    p = 1e-3 + (1 - 4e-3) * np.exp(shares) / np.exp(shares).sum()
    slope = np.zeros(1)  # n sum_k p_{k+1} b_{k,n-1} in powers of t
    for k, binomial in enumerate((1, 3, 3, 1)):
        term = binomial * polynomial.polypow([1, -1], 3 - k)
        slope = polynomial.polyadd(slope, 4 * p[k] * np.r_[np.zeros(k), term])
    rise = polynomial.polyint(slope)
    x = np.linspace(-2, 2, 9)
    t = (x + 2) / 4
    y, log_det = jax.device_get(run(np.float32(shares), np.float32([*x, 5, -5])))
    y, far, log_det = y[:9], y[9:], log_det[:9]
    np.testing.assert_allclose(y, -2 + 4 * polynomial.polyval(t, rise), atol=2e-6)
    np.testing.assert_allclose(log_det, np.log(polynomial.polyval(t, slope)), atol=1e-5)
    np.testing.assert_allclose(far, [2 + 3 * 4 * p[-1], -2 - 3 * 4 * p[0]], rtol=1e-6)


def test_bernstein_inverts_in_the_unit_of_its_interval():
    increments, y = parameters("bernstein")[..., :6], np.linspace(-2, 2, 9, dtype=np.float32)
    bound = 2.0**-70

    @jax.jit
    def roundtrip(y):
        bernstein = bijectors.BernsteinPolynomial(increments, bound, event_ndims=0)
        return bernstein.forward(bernstein.inverse(y))

    np.testing.assert_allclose(roundtrip(np.float32(bound) * y) / bound, y, atol=1e-5)


def test_monotone_network_is_its_formula():
    weights, slopes, offsets = np.random.default_rng(0).normal(size=(3, 4))

    @jax.jit
    def run(leaves, x):
        return bijectors.MonotoneNetwork(*leaves, 0).forward_and_log_det(x)

    a = 1e-3 + np.log1p(np.exp(slopes + np.log(np.expm1(1 - 1e-3))))
    w = np.exp(weights) / np.exp(weights).sum()
    x = np.linspace(-6, 6, 13)
    s = 1 / (1 + np.exp(-(a * x[:, None] + offsets)))
    p = s @ w
    leaves = np.float32([weights, slopes, offsets])
    y, log_det = jax.device_get(run(leaves, np.float32([*x, 1e3, 2e3])))
    y, far, log_det = y[:13], y[13:], log_det[:13]
    np.testing.assert_allclose(y, np.log(p / (1 - p)), atol=1e-5)
    slope = (s * (1 - s) * a) @ w / (p * (1 - p))
    np.testing.assert_allclose(log_det, np.log(slope), atol=1e-5)
    # Far out it is a line with the smallest slope.
    np.testing.assert_allclose(np.diff(far) / 1e3, a.min(), rtol=1e-3)


def test_families_start_at_or_near_the_identity():
    x = np.linspace(-2, 2, 9, dtype=np.float32)[:, None]

    @jax.jit
    def run(x):
        return {
            name: family(jnp.zeros((1, family.num_parameters))).forward(x)
            for name, family in FAMILIES.items()
        }

    for name, y in run(x).items():
        np.testing.assert_allclose(y, x, atol=0.4 if name == "monotone" else 1e-6)


def test_block_autoregressive_jacobian_is_triangular_with_a_positive_diagonal():
    @jax.jit
    def jacobians(key, x):
        bijector = makers_monotone.block_autoregressive(4, 3, 2)(key)
        return jax.vmap(jax.jacrev(bijector.forward))(x)

    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    for jacobian in np.asarray(jacobians(jax.random.key(0), x)):
        assert np.all(jacobian[np.triu_indices(4, 1)] == 0)
        assert np.all(np.diag(jacobian) > 0)
        assert np.all(jacobian[np.tril_indices(4, -1)] != 0)


def test_block_autoregressive_density_integrates_to_one():
    flow = flows.BlockAutoregressiveFlow((2,), num_steps=2, hidden_sizes=(4,))
    random = np.random.default_rng(0)
    data = random.normal(size=(32, 2)).astype(np.float32)

    @jax.jit
    def log_prob(data, grid):
        variables = jax.tree.map(
            lambda leaf: leaf + 0.4 * np.float32(random.normal(size=leaf.shape)),
            flow.init(jax.random.key(0), data=data),
        )
        noise = distributions.standard_normal((2,))
        return distributions.Transformed(noise, flow.apply(variables)).log_prob(grid)

    side = np.linspace(-25, 25, 401, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    total = np.sum(np.exp(log_prob(data, grid))) * (side[1] - side[0]) ** 2
    np.testing.assert_allclose(total, 1, atol=1e-3)


def test_wrong_parameters_raise():
    with pytest.raises(ValueError, match=r"1 to 99 coefficients, got shape \(3, 0\)"):
        bijectors.BernsteinPolynomial(np.zeros((3, 0)))
    with pytest.raises(ValueError, match="bound must be positive and finite, got -1"):
        bijectors.BernsteinPolynomial(np.zeros(3), -1)
    with pytest.raises(ValueError, match=r"one shape .* got \(3,\), \(2,\) and \(3,\)"):
        bijectors.MonotoneNetwork(np.zeros(3), np.zeros(2), np.zeros(3))

    def block_autoregressive(blocks):
        good = makers_monotone.block_autoregressive(2, 3, 1)(jax.random.key(0))
        return bijectors.BlockAutoregressive(good.blocks[blocks], good.gate).gate

    with pytest.raises(ValueError, match=r"expected 1 inputs for each of \(2,\) dimensions"):
        jax.eval_shape(lambda: block_autoregressive(slice(1, None)))
    with pytest.raises(ValueError, match=r"last block must have one output.* got 3"):
        jax.eval_shape(lambda: block_autoregressive(slice(1)))
