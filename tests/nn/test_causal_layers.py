"""Causal convolutions and attention against slow references, at once and in parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.raster_networks import noisy
from vaeflow import nn
from vaeflow.nn.causal import CausalAttention, CausalConv

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 3, 4, 3))


def slow_convolution(x, kernel, ahead):
    batch, height, width, _ = x.shape
    rows, columns = kernel.shape[:2]
    y = np.zeros((batch, height, width, kernel.shape[-1]))
    for i, j, r, c in np.ndindex(height, width, rows, columns):
        row, column = i - rows + 1 + r, j + ahead - columns + 1 + c
        if 0 <= row < height and 0 <= column < width:
            y[:, i, j] += x[:, row, column] @ kernel[r, c]
    return y


LAYERS = [((1, 1), 0), ((2, 2), 0), ((1, 3), 0), ((2, 3), 1), ((3, 5), 2)]


@pytest.mark.parametrize(("size", "ahead"), LAYERS)
def test_causal_convolution_equals_a_slow_reference(size, ahead):
    layer = CausalConv(5, size, ahead)
    variables = noisy(layer.init(KEY, X))
    y, cache = layer.apply(variables, X)
    parameters = variables["params"]["conv"]
    kernel = np.float64(parameters["kernel"])
    expected = slow_convolution(np.float64(X), kernel, ahead) + np.float64(parameters["bias"])
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert cache is None


@pytest.mark.parametrize(("size", "ahead"), LAYERS)
def test_convolution_row_by_row_equals_that_of_the_map(size, ahead):
    layer = CausalConv(5, size, ahead)
    variables = noisy(layer.init(KEY, X))
    cache, rows = layer.empty_cache(2, (3, 4), 3), []
    for row in range(3):
        y, cache = layer.apply(variables, X[:, row : row + 1], cache, (row, 0))
        rows.append(y)
    np.testing.assert_allclose(
        jnp.concatenate(rows, axis=1), layer.apply(variables, X)[0], atol=1e-5
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (2, 1)])
def test_convolution_position_by_position_equals_that_of_the_map(size):
    layer = CausalConv(5, size)
    variables = noisy(layer.init(KEY, X))
    step = jax.jit(lambda x, cache, at: layer.apply(variables, x, cache, at))
    cache, result = layer.empty_cache(2, (3, 4), 3), np.zeros((2, 3, 4, 5))
    for row, column in np.ndindex(3, 4):
        piece = X[:, row : row + 1, column : column + 1]
        y, cache = step(piece, cache, (row, column))
        result[:, row, column] = y[:, 0, 0]
    np.testing.assert_allclose(result, layer.apply(variables, X)[0], atol=1e-5)


def attention():
    layer = CausalAttention(6, num_heads=2)
    queries = jax.random.normal(KEY, (2, 5, 3))
    content = jax.random.normal(jax.random.key(1), (2, 5, 4))
    return layer, noisy(layer.init(KEY, queries, content)), queries, content


def test_attention_equals_its_definition():
    layer, variables, queries, content = attention()
    result, cache = layer.apply(variables, queries, content)
    kernels = {name: np.float64(leaf["kernel"]) for name, leaf in variables["params"].items()}
    query = np.float64(queries) @ kernels["query"]
    key, value = (np.float64(content) @ kernels[name] for name in ("key", "value"))
    for head, row, position in np.ndindex(2, 2, 5):
        own = slice(3 * head, 3 * head + 3)
        scores = key[row, : position + 1, own] @ query[row, position, own] / np.sqrt(3)
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = weights @ value[row, : position + 1, own]
        np.testing.assert_allclose(result[row, position, own], expected, atol=1e-5)
    assert cache is None


@pytest.mark.parametrize("size", [1, 2])
def test_attention_in_parts_equals_that_of_the_sequence(size):
    layer, variables, queries, content = attention()
    step = jax.jit(functools.partial(layer.apply, variables))
    cache, pieces = layer.empty_cache(2, 5), []
    for start in range(0, 5, size):
        part = slice(start, start + size)
        result, cache = step(queries[:, part], content[:, part], cache, start)
        pieces.append(result)
    np.testing.assert_allclose(
        jnp.concatenate(pieces, axis=1), layer.apply(variables, queries, content)[0], atol=1e-5
    )


def test_nan_row_is_isolated():
    layer, variables, queries, content = attention()
    result, _ = layer.apply(variables, queries, content.at[0, 2].set(jnp.nan))
    clean, _ = layer.apply(variables, queries, content)
    assert jnp.isnan(result[0, 2]).any()
    np.testing.assert_array_equal(result[1], clean[1])


def test_upsampled_conditioner_repeats_features():
    above = jax.random.randint(KEY, (2, 3, 2, 2), 0, 5)
    network = nn.UpsampledConditioner((5, 4), num_codes=5, channels=6)
    variables = noisy(network.init(KEY, above))
    features = network.apply(variables, above)
    assert features.shape == (2, 3, 5, 4, 6)
    coarse = network.clone(map_shape=(2, 2)).apply(variables, above)
    rows, columns = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(features, coarse[:, :, rows][:, :, :, columns])
    other = network.apply(variables, (above + 1) % 5)
    assert jnp.abs(other - features).max() > 1e-3
    row = network.apply(variables, above[1, 2])
    np.testing.assert_allclose(row, features[1, 2], atol=1e-5)


def test_upsampled_conditioner_reads_features_in_its_dtype():
    above = jax.random.normal(KEY, (2, 3, 2, 7))
    network = nn.UpsampledConditioner((6, 4), channels=6, num_blocks=1, dtype=jnp.bfloat16)
    features = network.apply(network.init(KEY, above), above)
    assert features.shape == (2, 6, 4, 6)
    assert features.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("codes", "above"),
    [
        (None, jnp.zeros((2, 3, 2), jnp.int32)),
        (5, jnp.zeros((2, 3, 2))),
        (5, jnp.zeros((2,), jnp.int32)),
        (None, jnp.zeros((3, 2))),
    ],
)
def test_upsampled_conditioner_raises_for_other_inputs(codes, above):
    with pytest.raises(ValueError, match=rf"\[\*batch, height, width.*{above.dtype}.*\(.*\)"):
        nn.UpsampledConditioner((4, 4), num_codes=codes).init(KEY, above)
