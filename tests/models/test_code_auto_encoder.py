"""Auto-encoders with codes: laws that hold for every quantizer and number of levels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.code_models import CODERS, IMAGES, SHAPE, average, coder, decoder, every_coder, vqvae2
from vaeflow import models

KEY = jax.random.key(0)


@functools.cache
def variables_of(name):
    return jax.jit(CODERS[name].init)(KEY, IMAGES)


@functools.cache
def values():
    return CODERS["average"].apply({}, IMAGES, KEY, method="observe").values


@every_coder()
def test_decoding_codes_equals_decoding_quantised_values(name):
    model, variables = CODERS[name], variables_of(name)
    apply = functools.partial(model.apply, variables)
    levels = apply(values(), method="quantize")
    codes = apply(IMAGES, KEY, method="encode")
    latents = apply([level.values for level in levels], method="merge")
    np.testing.assert_allclose(apply(codes, method="lookup"), latents, atol=1e-6)
    images = apply(codes, method="decode")
    assert (images.shape, images.dtype) == (IMAGES.shape, jnp.uint8)
    np.testing.assert_array_equal(images, apply(latents, method="show"))
    assert jnp.std(images.astype(jnp.float32)) > 1
    for maps, level, quantizer in zip(codes, levels, model.quantizers, strict=True):
        np.testing.assert_array_equal(maps, level.indices)
        assert 0 <= maps.min() <= maps.max() < quantizer.num_codes
        assert maps.shape[3:] == quantizer.code_shape


@every_coder()
def test_codes_take_any_batch_axes(name):
    model, variables = CODERS[name], variables_of(name)
    codes = model.apply(variables, IMAGES, KEY, method="encode")
    parts = [maps.reshape(2, 4, *maps.shape[1:]) for maps in codes]
    images = model.apply(variables, parts, method="decode")
    assert images.shape == (2, 4, *SHAPE)
    whole = model.apply(variables, codes, method="decode")
    # Two batches may be rounded differently, to the other side of a level.
    assert np.abs(images.reshape(whole.shape).astype(int) - whole).max() <= 1


def test_maps_halve_from_level_to_level():
    codes = CODERS["3 levels"].apply(variables_of("3 levels"), IMAGES, KEY, method="encode")
    assert [maps.shape[1:] for maps in codes] == [(1, 1), (2, 2), (4, 3)]


def test_lower_levels_and_the_decoder_see_those_above():
    model, variables = CODERS["2 levels"], variables_of("2 levels")
    codes = model.apply(variables, IMAGES, KEY, method="encode")
    latents = model.apply(variables, codes, method="lookup")
    moved = model.apply(variables, (codes[0].at[:, 0, 0].add(1) % 3, codes[1]), method="lookup")
    # The top's 2x2 codes are repeated over the bottom's 4x3 positions: two rows, two columns.
    changed = jnp.any(latents != moved, axis=-1)
    np.testing.assert_array_equal(
        changed,
        np.broadcast_to(
            np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]], bool), changed.shape
        ),
    )

    def bottom(scale):
        scaled = jax.tree.map(lambda leaf: leaf, variables)
        kernel = scaled["params"]["expanders_0"]["Conv_0"]["kernel"]
        scaled["params"]["expanders_0"]["Conv_0"]["kernel"] = scale * kernel
        levels = model.apply(scaled, values(), method="quantize")
        return jnp.mean(levels[1].losses["commitment"])

    assert jnp.abs(jax.grad(bottom)(1.0)) > 1e-4


def test_numbers_of_levels_must_match():
    model = vqvae2(2).clone(quantizers=(average(),))
    with pytest.raises(ValueError, match=r"as many encoders as quantizers.* got 2, 1 and 1"):
        model.init(KEY, IMAGES)
    model, variables = CODERS["2 levels"], variables_of("2 levels")
    with pytest.raises(ValueError, match="codes must be 2 maps from the top, got 1"):
        model.apply(variables, [jnp.zeros((1, 2, 2), jnp.int32)], method="decode")


def test_decoder_raises_for_maps_of_another_size():
    with pytest.raises(ValueError, match=r"expected latents of shape \(2, 4, 3, 4\).* got \(2, 3"):
        decoder((6,)).init(KEY, jnp.zeros((2, 3, 3, 4)))
    with pytest.raises(ValueError, match=r"latents must have 3 axes.* got shape \(3, 4\)"):
        decoder((6,)).init(KEY, jnp.zeros((3, 4)))


def test_all_features_of_an_image_size_are_kept():
    network = coder((6, 6), 3)
    for size, expected in (((28, 28), (7, 7)), ((25, 30), (7, 8)), ((1, 3), (1, 1))):
        x = jnp.ones((1, *size, 1))
        assert network.apply(network.init(KEY, x), x).shape == (1, *expected, 3)


def test_code_out_of_range_blanks_only_its_image():
    model, variables = CODERS["average"], variables_of("average")
    codes = model.apply(variables, IMAGES, KEY, method="encode")[0]
    latents = model.apply(variables, [codes.at[1, 0, 0].set(5)], method="lookup")
    finite = jnp.all(jnp.isfinite(latents), axis=(1, 2, 3))
    assert finite.tolist() == [True, False, *[True] * 6]


def test_both_classes_share_a_base():
    assert issubclass(models.VQVAE, models.CodeAutoEncoder)
    assert issubclass(models.VQVAE2, models.CodeAutoEncoder)
