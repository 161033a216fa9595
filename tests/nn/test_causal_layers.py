"""Causal convolutions and attention against slow references, at once and in parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.variables import noisy
from vaeflow import nn
from vaeflow.nn.causal import CausalAttention, CausalConv

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(2, 3, 4, 3)).astype(np.float32)


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


@functools.cache
def convolved(size, ahead):
    """Variables of a layer, and what it makes of the map at once and row by row."""
    layer = CausalConv(5, size, ahead)

    @jax.jit
    def run():
        variables = noisy(layer.init(KEY, X), 0.3)
        whole, none = layer.apply(variables, X)
        cache, rows = layer.empty_cache(2, (3, 4), 3), []
        for row in range(3):
            y, cache = layer.apply(variables, X[:, row : row + 1], cache, (row, 0))
            rows.append(y)
        return variables, whole, none, jnp.concatenate(rows, axis=1)

    return jax.device_get(run())


@pytest.mark.parametrize(("size", "ahead"), LAYERS)
def test_causal_convolution_equals_a_slow_reference(size, ahead):
    variables, y, cache, _ = convolved(size, ahead)
    parameters = variables["params"]["conv"]
    kernel = np.float64(parameters["kernel"])
    expected = slow_convolution(np.float64(X), kernel, ahead) + np.float64(parameters["bias"])
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert cache is None


@pytest.mark.parametrize(("size", "ahead"), LAYERS)
def test_convolution_row_by_row_equals_that_of_the_map(size, ahead):
    _, whole, _, rows = convolved(size, ahead)
    np.testing.assert_allclose(rows, whole, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (2, 1)])
def test_convolution_position_by_position_equals_that_of_the_map(size):
    layer = CausalConv(5, size)
    variables, whole, *_ = convolved(size, 0)
    step = jax.jit(lambda x, cache, at: layer.apply(variables, x, cache, at))
    cache, result = layer.empty_cache(2, (3, 4), 3), np.zeros((2, 3, 4, 5))
    for row, column in np.ndindex(3, 4):
        piece = X[:, row : row + 1, column : column + 1]
        y, cache = step(piece, cache, (row, column))
        result[:, row, column] = np.asarray(y)[:, 0, 0]
    np.testing.assert_allclose(result, whole, atol=1e-5)


LAYER = CausalAttention(6, num_heads=2)
QUERIES, CONTENT = (np.random.default_rng(0).normal(size=(2, 5, n)) for n in (3, 4))


@functools.cache
def attention():
    """Variables of the layer, and what it makes of the sequence."""

    @jax.jit
    def run(queries, content):
        variables = noisy(LAYER.init(KEY, queries, content), 0.3)
        return variables, *LAYER.apply(variables, queries, content)

    return jax.device_get(run(np.float32(QUERIES), np.float32(CONTENT)))


def test_attention_equals_its_definition():
    variables, result, cache = attention()
    kernels = {name: np.float64(leaf["kernel"]) for name, leaf in variables["params"].items()}
    query = QUERIES @ kernels["query"]
    key, value = (CONTENT @ kernels[name] for name in ("key", "value"))
    for head, row, position in np.ndindex(2, 2, 5):
        own = slice(3 * head, 3 * head + 3)
        scores = key[row, : position + 1, own] @ query[row, position, own] / np.sqrt(3)
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = weights @ value[row, : position + 1, own]
        np.testing.assert_allclose(result[row, position, own], expected, atol=1e-5)
    assert cache is None


@pytest.mark.parametrize("size", [1, 2])
def test_attention_in_parts_equals_that_of_the_sequence(size):
    variables, whole, _ = attention()

    @jax.jit
    def in_parts(queries, content):
        cache, pieces = LAYER.empty_cache(2, 5), []
        for start in range(0, 5, size):
            part = slice(start, start + size)
            result, cache = LAYER.apply(variables, queries[:, part], content[:, part], cache, start)
            pieces.append(result)
        return jnp.concatenate(pieces, axis=1)

    result = in_parts(np.float32(QUERIES), np.float32(CONTENT))
    np.testing.assert_allclose(result, whole, atol=1e-5)


def test_nan_row_is_isolated():
    variables, clean, _ = attention()
    content = np.float32(CONTENT)
    content[0, 2] = np.nan
    result, _ = jax.device_get(jax.jit(LAYER.apply)(variables, np.float32(QUERIES), content))
    assert np.isnan(result[0, 2]).any()
    np.testing.assert_array_equal(result[1], clean[1])


def test_upsampled_conditioner_repeats_features():
    above = np.random.default_rng(0).integers(0, 5, (2, 3, 2, 2))
    network = nn.UpsampledConditioner((5, 4), num_codes=5, channels=6)

    @jax.jit
    def run(above):
        variables = noisy(network.init(KEY, above), 0.3)
        features = network.apply(variables, above)
        coarse = network.clone(map_shape=(2, 2)).apply(variables, above)
        other = network.apply(variables, (above + 1) % 5)
        return features, coarse, other, network.apply(variables, above[1, 2])

    features, coarse, other, row = jax.device_get(run(above.astype(np.int32)))
    assert features.shape == (2, 3, 5, 4, 6)
    rows, columns = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1])
    np.testing.assert_allclose(features, coarse[:, :, rows][:, :, :, columns], rtol=1e-6)
    assert np.abs(other - features).max() > 1e-3
    np.testing.assert_allclose(row, features[1, 2], atol=1e-5)


def test_upsampled_conditioner_reads_features_in_its_dtype():
    above = np.ones((2, 3, 2, 7), np.float32)
    network = nn.UpsampledConditioner((6, 4), channels=6, num_blocks=1, dtype=jnp.bfloat16)
    features, _ = jax.eval_shape(network.init_with_output, KEY, above)
    assert features.shape == (2, 6, 4, 6)
    assert features.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("codes", "above"),
    [
        (None, np.zeros((2, 3, 2), np.int32)),
        (5, np.zeros((2, 3, 2), np.float32)),
        (5, np.zeros((2,), np.int32)),
        (None, np.zeros((3, 2), np.float32)),
    ],
)
def test_upsampled_conditioner_raises_for_other_inputs(codes, above):
    with pytest.raises(ValueError, match=rf"\[\*batch, height, width.*{above.dtype}.*\(.*\)"):
        nn.UpsampledConditioner((4, 4), num_codes=codes).init(KEY, above)
