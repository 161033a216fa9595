"""The base class against the distrax that is installed."""

import distrax
import jax
import jax.numpy as jnp

from vaeflow import bijectors
from vaeflow.bijectors.base import DISTRAX_FIELDS


class Identity(distrax.Bijector):
    """The least that distrax takes for a bijector."""

    def forward_and_log_det(self, x):
        return x, x

    def inverse_and_log_det(self, y):
        return y, y


def test_fields_of_distrax_are_known():
    """A field that distrax adds would become a leaf of every pytree: list it in `base.py`."""
    assert set(vars(Identity(1))) == set(DISTRAX_FIELDS)


def test_same_as_compares_static_parts_and_arrays_by_identity():
    scale = jnp.ones(3)
    affine = bijectors.ElementwiseAffine(scale, scale)
    assert affine.same_as(affine)
    assert affine.same_as(bijectors.ElementwiseAffine(scale, scale))
    assert not affine.same_as(bijectors.ElementwiseAffine(scale, jnp.ones(3)))
    assert not affine.same_as(bijectors.ElementwiseAffine(scale, scale, 0))
    assert bijectors.Reverse().same_as(bijectors.Reverse())
    assert not bijectors.Reverse().same_as(bijectors.Reverse(3))
    assert not bijectors.Reverse().same_as(bijectors.Exp())
    jax.eval_shape(lambda x: jnp.float32(affine.same_as(bijectors.ElementwiseAffine(x, x))), scale)


def test_channels_that_leave_an_empty_batch_are_none():
    inner = bijectors.Reshape((2, 2, 1), (4,))
    noise = jax.eval_shape(bijectors.FactorOut(inner, (2, 2, 3), 1).forward, jnp.ones((0, 2, 2, 3)))
    assert noise.shape == (0, 12)
