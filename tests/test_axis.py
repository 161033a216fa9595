"""The axis contract and the keys of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaeflow as vf


def test_local_axis_is_the_identity():
    tree = {"a": jnp.arange(4.0), "b": jnp.ones((2, 3))}
    for operation in (vf.LOCAL.sum, vf.LOCAL.mean, vf.LOCAL.gather):
        jax.tree.map(np.testing.assert_array_equal, operation(tree), tree)


def test_named_axis_reduces_and_gathers():
    axis = vf.Axis("rows")
    x = jnp.arange(12.0).reshape(3, 2, 2)
    over = lambda f: jax.vmap(f, axis_name="rows")(x)  # noqa: E731
    np.testing.assert_array_equal(over(axis.sum)[1], x.sum(0))
    np.testing.assert_array_equal(over(axis.mean)[2], x.mean(0))
    np.testing.assert_array_equal(over(axis.gather)[0], x.reshape(6, 2))


def test_row_keys_splits_one_key_and_keeps_many():
    keys = vf.row_keys(jax.random.key(0), 5)
    assert keys.shape == (5,)
    assert len({int(jax.random.bits(key)) for key in keys}) == 5
    assert (vf.row_keys(keys, 5) == keys).all()


@pytest.mark.parametrize("rng", [jax.random.split(jax.random.key(0), 4), jnp.zeros(2, jnp.uint32)])
def test_row_keys_raises_for_other_keys(rng):
    with pytest.raises(ValueError, match="rng must"):
        vf.row_keys(rng, 5)
