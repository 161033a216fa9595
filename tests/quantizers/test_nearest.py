"""The nearest code against all distances in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow.quantizers.nearest import BLOCK, GROUP, min_and_argmin, nearest_codes

find = jax.jit(nearest_codes)


def drawn(seed, count, codes, channels=3, offset=0.0):
    first, second = jax.random.split(jax.random.key(seed))
    x = offset + jax.random.normal(first, (count, channels))
    return x, offset + jax.random.normal(second, (codes, channels))


def by_hand(x, codes):
    x, codes = np.asarray(x, np.float64), np.asarray(codes, np.float64)
    return np.argmin(np.sum((x[:, None] - codes) ** 2, axis=-1), axis=1)


@pytest.mark.parametrize("codes", [1, 2, GROUP, GROUP + 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_any_number_of_codes(codes):
    x, codes = drawn(codes, 50, codes)
    result = find(x, codes)
    assert result.dtype == jnp.int32
    np.testing.assert_array_equal(result, by_hand(x, codes))


def test_an_offset_that_all_share_costs_no_digits():
    x, codes = drawn(1, 400, 300, channels=4, offset=3000.0)
    np.testing.assert_array_equal(find(x, codes), by_hand(x, codes))


def test_of_equal_codes_the_first_counts():
    x, codes = drawn(2, 50, 40)
    repeated = jnp.concatenate([codes] * (2 * BLOCK // 40))
    np.testing.assert_array_equal(find(x, repeated), find(x, codes))
    values, indices = min_and_argmin(
        jnp.zeros((3, 2 * GROUP)).at[1, 5].set(-1.0).at[1, 40].set(-1.0)
    )
    np.testing.assert_array_equal(indices, [0, 5, 0])
    np.testing.assert_array_equal(values, [0, -1, 0])


def test_more_axes_are_more_vectors():
    x, codes = drawn(3, 12, 7)
    result = find(x.reshape(2, 3, 2, 3), codes)
    np.testing.assert_array_equal(result.reshape(-1), find(x, codes))


def test_memory_is_that_of_a_block_of_codes():
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4096, 64), (8192, 64))]
    memory = find.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert memory < 4096 * 8192 * 4 / 2
