"""Products of diagonal Gaussians."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import distributions
from vaeflow.distributions.gaussian import product_of_normals


def normals(mean, scale):
    return distrax.Independent(distrax.Normal(jnp.asarray(mean), jnp.asarray(scale)), 1)


def test_the_product_is_proportional_to_both():
    @jax.jit
    def facts(x):
        first, second = normals([0.3, -2.0], [0.7, 1.5]), normals([1.0, 0.5], [2.0, 0.2])
        product = product_of_normals(first, second)
        constant = first.log_prob(x) + second.log_prob(x) - product.log_prob(x)
        many = product_of_normals(normals(jnp.zeros((5, 3, 2)), jnp.ones(2)), second)
        return constant, product, many

    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    constant, product, many = facts(x)
    np.testing.assert_allclose(constant, np.full(20, constant[0]), rtol=1e-4)
    assert product.batch_shape == ()
    assert many.batch_shape == (5, 3)


@jax.jit
def product_and_slopes(values):
    def product(values):
        merged = product_of_normals(
            normals(values[0][None], values[1][None]), normals(values[2][None], values[3][None])
        ).distribution
        found = jnp.concatenate([merged.loc, merged.scale])
        return found, found

    slopes, found = jax.jacobian(product, has_aux=True)(values)
    return found, slopes


@pytest.mark.parametrize("one", [1e-6, 1.0, 1e6, 1e25])
@pytest.mark.parametrize("two", [1e-6, 1.0, 1e6, 1e25])
def test_extreme_deviations_are_finite(one, two):
    (loc, scale), slopes = jax.device_get(product_and_slopes(np.float32([1.0, one, -3.0, two])))
    assert np.all(np.isfinite(slopes))
    precision = one**-2.0 + two**-2.0
    assert float(loc) == pytest.approx((one**-2.0 - 3 * two**-2.0) / precision, rel=1e-4)
    assert float(scale) == pytest.approx(precision**-0.5, rel=1e-4)


def test_other_distributions_raise():
    plain = normals([0.0], [1.0])
    with pytest.raises(ValueError, match=r"got Independent and FullGaussian"):
        product_of_normals(plain, distributions.FullGaussian(np.zeros(1), np.ones((1, 1))))
    with pytest.raises(ValueError, match=r"got \(1,\) and \(2,\)"):
        product_of_normals(plain, normals([0.0, 0.0], [1.0, 1.0]))
