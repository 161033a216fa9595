"""Auto-encoders with codes: laws that hold for every quantizer and number of levels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.code_models import CODERS, IMAGES, SHAPE, average, coder, decoder, every_coder, vqvae2
from tests.variables import drawn_variables
from vaeflow import models

KEY = jax.random.key(0)


@functools.cache
def variables_of(name):
    return drawn_variables(CODERS[name].init, IMAGES)


@functools.cache
def figures(name):
    """Codes, what they are decoded to in several ways, and the levels that they come from."""
    model = CODERS[name]

    @jax.jit
    def compute(variables):
        apply = functools.partial(model.apply, variables)
        codes = apply(IMAGES, KEY, method="encode")
        values = model.apply({}, IMAGES, KEY, method="observe").values
        levels = apply(values, method="quantize")
        latents = apply([level.values for level in levels], method="merge")
        parts = [maps.reshape(2, 4, *maps.shape[1:]) for maps in codes]
        return {
            "codes": codes,
            "indices": [level.indices for level in levels],
            "latents": latents,
            "looked up": apply(codes, method="lookup"),
            "decoded": apply(codes, method="decode"),
            "shown": apply(latents, method="show"),
            "in parts": apply(parts, method="decode"),
        }

    return jax.device_get(compute(variables_of(name)))


@every_coder()
def test_decoding_codes_equals_decoding_quantised_values(name):
    found = figures(name)
    np.testing.assert_allclose(found["looked up"], found["latents"], atol=1e-6)
    images = found["decoded"]
    assert (images.shape, images.dtype) == (IMAGES.shape, np.uint8)
    np.testing.assert_array_equal(images, found["shown"])
    assert np.std(images) > 1
    quantizers = CODERS[name].quantizers
    for maps, indices, quantizer in zip(found["codes"], found["indices"], quantizers, strict=True):
        np.testing.assert_array_equal(maps, indices)
        assert 0 <= maps.min() <= maps.max() < quantizer.num_codes
        assert maps.shape[3:] == quantizer.code_shape


@every_coder()
def test_codes_take_any_batch_axes(name):
    images, whole = figures(name)["in parts"], figures(name)["decoded"]
    assert images.shape == (2, 4, *SHAPE)
    # Two batches may be rounded differently, to the other side of a level.
    assert np.abs(images.reshape(whole.shape).astype(int) - whole).max() <= 1


def test_maps_halve_from_level_to_level():
    model = CODERS["3 levels"]
    variables = jax.eval_shape(model.init, KEY, IMAGES)
    encode = functools.partial(model.apply, method="encode")
    codes = jax.eval_shape(encode, variables, IMAGES, KEY)
    assert [maps.shape[1:] for maps in codes] == [(1, 1), (2, 2), (4, 3)]


def test_lower_levels_and_the_decoder_see_those_above():
    model, variables = CODERS["2 levels"], variables_of("2 levels")
    codes, latents = figures("2 levels")["codes"], figures("2 levels")["looked up"]
    top = codes[0].copy()
    top[:, 0, 0] = (top[:, 0, 0] + 1) % 3
    moved = jax.jit(functools.partial(model.apply, method="lookup"))(variables, (top, codes[1]))
    # The top's 2x2 codes are repeated over the bottom's 4x3 positions: two rows, two columns.
    changed = np.any(latents != np.asarray(moved), axis=-1)
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
        values = model.apply({}, IMAGES, KEY, method="observe").values
        levels = model.apply(scaled, values, method="quantize")
        return jnp.mean(levels[1].losses["commitment"])

    assert abs(float(jax.jit(jax.grad(bottom))(1.0))) > 1e-4


def test_numbers_of_levels_must_match():
    model = vqvae2(2).clone(quantizers=(average(),))
    with pytest.raises(ValueError, match=r"as many encoders as quantizers.* got 2, 1 and 1"):
        jax.eval_shape(model.init, KEY, IMAGES)
    model, variables = CODERS["2 levels"], variables_of("2 levels")
    with pytest.raises(ValueError, match="codes must be 2 maps from the top, got 1"):
        model.apply(variables, [np.zeros((1, 2, 2), np.int32)], method="decode")


def test_decoder_raises_for_maps_of_another_size():
    init = functools.partial(jax.eval_shape, decoder((6,)).init, KEY)
    with pytest.raises(ValueError, match=r"expected latents of shape \(2, 4, 3, 4\).* got \(2, 3"):
        init(np.zeros((2, 3, 3, 4), np.float32))
    with pytest.raises(ValueError, match=r"latents must have 3 axes.* got shape \(3, 4\)"):
        init(np.zeros((3, 4), np.float32))


def test_all_features_of_an_image_size_are_kept():
    network = coder((6, 6), 3)
    run = functools.partial(jax.eval_shape, lambda x: network.init_with_output(KEY, x)[0])
    for size, expected in (((28, 28), (7, 7)), ((25, 30), (7, 8)), ((1, 3), (1, 1))):
        assert run(np.ones((1, *size, 1), np.float32)).shape == (1, *expected, 3)


def test_code_out_of_range_blanks_only_its_image():
    model, variables = CODERS["average"], variables_of("average")
    codes = np.zeros((8, 4, 3), np.int32)
    codes[1, 0, 0] = 5
    lookup = jax.jit(functools.partial(model.apply, method="lookup"))
    finite = np.isfinite(lookup(variables, [codes])).all(axis=(1, 2, 3))
    assert finite.tolist() == [True, False, *[True] * 6]


def test_both_classes_share_a_base():
    assert issubclass(models.VQVAE, models.CodeAutoEncoder)
    assert issubclass(models.VQVAE2, models.CodeAutoEncoder)
