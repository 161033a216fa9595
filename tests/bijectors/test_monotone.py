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


def member(name, scale=1.5, seed=0):
    family = FAMILIES[name]
    raw = scale * jax.random.normal(jax.random.key(seed), (1, family.num_parameters))
    return family(raw)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_densities_integrate_to_one(name, seed):
    places = jnp.linspace(-60, 60, 240_001)[:, None]
    noise = distributions.standard_normal((1,))
    density = distributions.Transformed(noise, bijectors.Inverse(member(name, seed=seed)))
    total = np.trapezoid(np.exp(jax.jit(density.log_prob)(places)), places[:, 0])
    np.testing.assert_allclose(total, 1, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_increase_everywhere(name):
    places = jnp.concatenate([jnp.linspace(-10, 10, 4001), jnp.array([-1e3, 1e3])])
    _, log_det = jax.jit(member(name, 4.0).forward_and_log_det)(places[:, None])
    assert np.all(np.isfinite(log_det))
    values = jax.jit(member(name, 4.0).forward)(jnp.linspace(-50, 50, 2001)[:, None])[:, 0]
    assert np.all(np.diff(np.asarray(values)) > 0)


def test_bernstein_is_its_polynomial_inside_and_its_lines_outside():
    shares = np.array([0.5, -1.0, 0.3, 2.0])
    bend = bijectors.BernsteinPolynomial(jnp.asarray(shares, jnp.float32), 2.0, 0)
    p = 1e-3 + (1 - 4e-3) * np.exp(shares) / np.exp(shares).sum()
    slope = np.zeros(1)  # n sum_k p_{k+1} b_{k,n-1} in powers of t
    for k, binomial in enumerate((1, 3, 3, 1)):
        term = binomial * polynomial.polypow([1, -1], 3 - k)
        slope = polynomial.polyadd(slope, 4 * p[k] * np.r_[np.zeros(k), term])
    rise = polynomial.polyint(slope)
    x = np.linspace(-2, 2, 9)
    t = (x + 2) / 4
    y, log_det = bend.forward_and_log_det(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, -2 + 4 * polynomial.polyval(t, rise), atol=2e-6)
    np.testing.assert_allclose(log_det, np.log(polynomial.polyval(t, slope)), atol=1e-5)
    np.testing.assert_allclose(bend.forward(jnp.array(5.0)), 2 + 3 * 4 * p[-1], rtol=1e-6)
    np.testing.assert_allclose(bend.forward(jnp.array(-5.0)), -2 - 3 * 4 * p[0], rtol=1e-6)


def test_monotone_network_is_its_formula():
    weights, slopes, offsets = np.random.default_rng(0).normal(size=(3, 4))
    bend = bijectors.MonotoneNetwork(
        *(jnp.asarray(leaf, jnp.float32) for leaf in (weights, slopes, offsets)), 0
    )
    a = 1e-3 + np.log1p(np.exp(slopes + np.log(np.expm1(1 - 1e-3))))
    w = np.exp(weights) / np.exp(weights).sum()
    x = np.linspace(-6, 6, 13)
    s = 1 / (1 + np.exp(-(a * x[:, None] + offsets)))
    p = s @ w
    y, log_det = bend.forward_and_log_det(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, np.log(p / (1 - p)), atol=1e-5)
    slope = (s * (1 - s) * a) @ w / (p * (1 - p))
    np.testing.assert_allclose(log_det, np.log(slope), atol=1e-5)
    # Far out it is a line with the smallest slope.
    far = bend.forward(jnp.array([1e3, 2e3]))
    np.testing.assert_allclose(np.diff(np.asarray(far)) / 1e3, a.min(), rtol=1e-3)


def test_families_start_at_or_near_the_identity():
    x = jnp.linspace(-2, 2, 9)[:, None]
    for name, family in FAMILIES.items():
        y = jax.jit(family(jnp.zeros((1, family.num_parameters))).forward)(x)
        np.testing.assert_allclose(y, x, atol=0.4 if name == "monotone" else 1e-6)


def test_block_autoregressive_jacobian_is_triangular_with_a_positive_diagonal():
    bijector = makers_monotone.block_autoregressive(4, 3, 2)(jax.random.key(0))
    jacobians = jax.jit(jax.vmap(jax.jacrev(bijector.forward)))
    for jacobian in np.asarray(jacobians(jax.random.normal(jax.random.key(1), (5, 4)))):
        assert np.all(jacobian[np.triu_indices(4, 1)] == 0)
        assert np.all(np.diag(jacobian) > 0)
        assert np.all(jacobian[np.tril_indices(4, -1)] != 0)


def test_block_autoregressive_density_integrates_to_one():
    flow = flows.BlockAutoregressiveFlow((2,), num_steps=2, hidden_sizes=(4,))
    variables = flow.init(jax.random.key(0), data=jax.random.normal(jax.random.key(1), (32, 2)))
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [
        leaf + 0.4 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    bijector = flow.apply(jax.tree.unflatten(structure, leaves))
    density = distributions.Transformed(distributions.standard_normal((2,)), bijector)
    side = jnp.linspace(-25, 25, 801)
    grid = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    cell = float(side[1] - side[0]) ** 2
    total = np.sum(np.exp(jax.jit(density.log_prob)(grid))) * cell
    np.testing.assert_allclose(total, 1, atol=1e-3)


def test_wrong_parameters_raise():
    with pytest.raises(ValueError, match=r"1 to 99 coefficients, got shape \(3, 0\)"):
        bijectors.BernsteinPolynomial(jnp.zeros((3, 0)))
    with pytest.raises(ValueError, match="bound must be positive and finite, got -1"):
        bijectors.BernsteinPolynomial(jnp.zeros(3), -1)
    with pytest.raises(ValueError, match=r"one shape .* got \(3,\), \(2,\) and \(3,\)"):
        bijectors.MonotoneNetwork(jnp.zeros(3), jnp.zeros(2), jnp.zeros(3))
    good = makers_monotone.block_autoregressive(2, 3, 1)(jax.random.key(0))
    with pytest.raises(ValueError, match=r"expected 1 inputs for each of \(2,\) dimensions"):
        bijectors.BlockAutoregressive(good.blocks[1:], good.gate)
    with pytest.raises(ValueError, match=r"last block must have one output.* got 3"):
        bijectors.BlockAutoregressive(good.blocks[:1], good.gate)
