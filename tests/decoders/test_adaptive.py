"""The AdaIN decoder: sizes of images, its layers, errors."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reflection import reflected_convolution, valid_convolution
from tests.variables import drawn_variables
from vaeflow import decoders, encoders

KEY = jax.random.key(0)
DECODER = decoders.AdaINDecoder((5, 4, 3), num_blocks=2, hidden_sizes=(6,))
SHAPE = (9, 7, 2)


def normal(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


CONTENT, STYLES = normal(2, 3, 2, 5), normal(2, 4, seed=1)


@functools.cache
def parameters():
    return drawn_variables(functools.partial(DECODER.init, shape=SHAPE), CONTENT, STYLES)["params"]


@jax.jit
def decode(content, style):
    return DECODER.apply({"params": parameters()}, content, style, shape=SHAPE)


@pytest.mark.parametrize("size", [(28, 28), (27, 24), (24, 32), (9, 5), (1, 6)])
def test_decodes_contents_of_images_of_any_size(size):
    x = np.ones((2, *size, 3), np.float32)
    encoder = encoders.ContentEncoder((2, 4, 5), num_blocks=1)
    content = jax.eval_shape(lambda x: encoder.init_with_output(KEY, x)[0], x)
    decode = functools.partial(DECODER.init_with_output, KEY, shape=x.shape[1:])
    assert jax.eval_shape(lambda *given: decode(*given)[0], content, STYLES).shape == x.shape


def normed(x, axes=(1, 2)):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def test_equals_modulated_blocks_and_upsampling_convolutions():
    """Layer by layer, in float64."""
    own = jax.tree.map(np.float64, parameters())
    hidden = np.maximum(STYLES @ own["Dense_0"]["kernel"] + own["Dense_0"]["bias"], 0)
    numbers = hidden @ own["Dense_1"]["kernel"] + own["Dense_1"]["bias"]
    x = CONTENT
    for block, given in enumerate(np.split(numbers, 2, axis=1)):
        kernels = own[f"InstanceNormBlock_{block}"]
        given = given.reshape(2, 4, 1, 1, 5)
        y = normed(reflected_convolution(x, kernels["Conv_0"]["kernel"]))
        y = np.maximum((1 + given[:, 0]) * y + given[:, 1], 0)
        y = normed(reflected_convolution(y, kernels["Conv_1"]["kernel"]))
        x = x + (1 + given[:, 2]) * y + given[:, 3]
    for level, (height, width) in enumerate([(5, 4), (9, 7)]):
        layer, norm = own[f"DoubledConv_{level}"], own[f"ImageLayerNorm_{level}"]
        doubled = x.repeat(2, axis=1).repeat(2, axis=2)
        padded = np.pad(doubled, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="symmetric")
        y = (valid_convolution(padded, layer["kernel"]) + layer["bias"])[:, :height, :width]
        x = np.maximum(normed(y, (1, 2, 3)) * norm["scale"] + norm["shift"], 0)
    x = np.tanh(reflected_convolution(x, own["Conv_0"]["kernel"]) + own["Conv_0"]["bias"])
    found = decode(CONTENT, STYLES)
    assert (found.shape, found.dtype) == ((2, *SHAPE), jnp.float32)
    np.testing.assert_allclose(found, x, atol=1e-4)


def test_values_lie_within_one_and_follow_content_and_style():
    found = np.asarray(decode(CONTENT, STYLES))
    assert np.abs(decode(CONTENT, 100 * STYLES)).max() <= 1
    assert np.abs(decode(CONTENT, STYLES + 1) - found).max() > 0.01
    assert np.abs(decode(CONTENT[:, ::-1], STYLES) - found).max() > 0.01
    # A row is of its own content and style alone.
    swapped = np.asarray(decode(CONTENT, STYLES[::-1]))
    both = np.asarray(decode(np.tile(CONTENT[:1], (2, 1, 1, 1)), STYLES))
    np.testing.assert_allclose(both[0], found[0], atol=1e-5)
    np.testing.assert_allclose(both[1], swapped[0], atol=1e-5)


def test_computes_in_bfloat16_and_returns_float32():
    half = DECODER.clone(dtype=jnp.bfloat16)
    apply = jax.jit(functools.partial(half.apply, shape=SHAPE))
    found = apply({"params": parameters()}, CONTENT, STYLES)
    assert found.dtype == jnp.float32
    assert 0 < np.abs(np.asarray(found) - decode(CONTENT, STYLES)).max() < 0.2


@pytest.mark.parametrize(
    ("content", "style"),
    [
        ((2, 3, 3, 5), (2, 4)),
        ((2, 3, 2, 4), (2, 4)),
        ((3, 3, 2, 5), (2, 4)),
        ((2, 3, 2, 5), (2, 4, 1)),
        ((3, 2, 5), (2, 4)),
    ],
)
def test_other_shapes_raise(content, style):
    with pytest.raises(
        ValueError, match=r"AdaINDecoder: expected content of shape \(2, 3, 2, 5\)"
    ) as e:
        jax.eval_shape(
            lambda *given: DECODER.init(KEY, *given, shape=SHAPE), np.ones(content), np.ones(style)
        )
    assert f"images of shape {SHAPE}, got {content} and {style}" in str(e.value)
