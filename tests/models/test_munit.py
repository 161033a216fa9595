"""MUNIT: encoding, decoding, translation and errors."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.munit_game import GAME, IMAGES, ROWS, SHAPES, STYLES, coder, variables
from vaeflow import encoders, models
from vaeflow.models.munit import denormalize_images, normalize_images, other_domain

KEY = jax.random.key(0)
MODEL = GAME.generator
DOMAINS = ("a", "b")


@functools.cache
def own():
    """The generator's variables, as its own discriminators leave them."""
    return models.submodel(GAME, variables(), "generator")[1]


def apply(method, *arguments, **options):
    return MODEL.apply(own(), *arguments, method=method, **options)


def within_a_level(found, expected):
    """Two compilations may round to either side of a level."""
    assert found.dtype == expected.dtype == jnp.uint8
    np.testing.assert_allclose(np.int32(found), np.int32(expected), atol=1)


@pytest.mark.parametrize("domain", DOMAINS)
def test_encode_and_decode(domain):
    content, style = apply("encode", IMAGES[domain], domain)
    assert content.shape == (ROWS, 5, 4, 4)
    assert (style.batch_shape, style.event_shape) == ((ROWS,), (STYLES[domain],))
    by_values = apply("encode_values", normalize_images(IMAGES[domain]), domain)
    np.testing.assert_array_equal(by_values[0], content)
    np.testing.assert_array_equal(by_values[1].mean(), style.mean())
    values = apply("decode_values", content, style.mean(), domain)
    assert (values.shape, values.dtype) == ((ROWS, *SHAPES[domain]), jnp.float32)
    assert np.abs(values).max() <= 1
    images = apply("decode", content, style.mean(), domain)
    np.testing.assert_array_equal(images, denormalize_images(values))
    assert images.dtype == jnp.uint8


@pytest.mark.parametrize("to", DOMAINS)
def test_a_translation_is_the_content_in_a_style_of_the_other_domain(to):
    source = "b" if to == "a" else "a"
    assert other_domain(to) == source
    style = np.random.RandomState(1).normal(size=(ROWS, STYLES[to])).astype(np.float32)
    translated = apply("translate", IMAGES[source], to, style)
    content, _ = apply("encode", IMAGES[source], source)
    np.testing.assert_array_equal(translated, apply("decode", content, style, to))
    assert translated.shape == (ROWS, *SHAPES[to])
    drawn = apply("translate", IMAGES[source], to, rng=KEY)
    styles = apply("draw_styles", KEY, ROWS, to)
    np.testing.assert_array_equal(drawn, apply("translate", IMAGES[source], to, styles))
    assert np.any(drawn != translated)


def test_a_call_translates_both_ways_in_the_styles_of_the_rows():
    found = MODEL.apply(own(), IMAGES["a"], IMAGES["b"])
    assert set(found) == set(DOMAINS)
    for to in DOMAINS:
        style = apply("encode", IMAGES[to], to)[1].mean()
        expected = apply("translate", IMAGES[other_domain(to)], to, style)
        np.testing.assert_array_equal(denormalize_images(found[to]), expected)


def test_domains_have_separate_networks():
    moved = jax.tree.map(lambda leaf: leaf, own())
    moved["params"]["b"] = jax.tree.map(lambda leaf: leaf + 0.2, moved["params"]["b"])
    for domain in DOMAINS:
        content = MODEL.apply(moved, IMAGES[domain], domain, method="encode")[0]
        same = np.array_equal(content, apply("encode", IMAGES[domain], domain)[0])
        assert same == (domain == "a")


def test_row_depends_only_on_its_key_and_image():
    keys = jax.random.split(KEY, ROWS)
    styles = apply("draw_styles", keys, ROWS, "b")
    assert len({row.tobytes() for row in np.asarray(styles)}) == ROWS
    np.testing.assert_array_equal(apply("draw_styles", KEY, ROWS, "b"), styles)
    np.testing.assert_array_equal(apply("draw_styles", keys[1:2], 1, "b")[0], styles[1])
    whole = apply("translate", IMAGES["a"], "b", rng=keys)
    alone = apply("translate", IMAGES["a"][1:2], "b", rng=keys[1:2])
    within_a_level(alone[0], whole[1])


def test_drawn_styles_are_standard_normal():
    for domain in DOMAINS:
        styles = np.asarray(apply("draw_styles", KEY, 4000, domain))
        assert styles.shape == (4000, STYLES[domain])
        np.testing.assert_allclose(styles.mean(0), 0, atol=0.06)
        np.testing.assert_allclose(np.cov(styles.T), np.eye(STYLES[domain]), atol=0.1)


@pytest.mark.parametrize("given", [{}, {"style": np.ones((ROWS, 3)), "rng": KEY}])
def test_a_translation_takes_a_style_or_a_key(given):
    with pytest.raises(ValueError, match="either style or rng, got both or neither"):
        apply("translate", IMAGES["a"], "b", **given)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("encode", (IMAGES["a"], "c")),
        ("encode_values", (np.zeros((2, 9, 8, 1)), "c")),
        ("decode", (np.zeros((2, 5, 4, 4)), np.zeros((2, 2)), "c")),
        ("decode_values", (np.zeros((2, 5, 4, 4)), np.zeros((2, 2)), "c")),
        ("draw_styles", (KEY, 2, "c")),
        ("translate", (IMAGES["a"], "c", np.zeros((ROWS, 2)))),
    ],
)
def test_other_domains_raise(method, arguments):
    with pytest.raises(ValueError, match="domain must be 'a' or 'b', got 'c'"):
        apply(method, *arguments)


@pytest.mark.parametrize("shape", [(2, 9, 8, 3), (2, 8, 8, 1), (9, 8, 1)])
def test_values_of_other_shapes_raise_with_both_shapes(shape):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (its message is compared below)
        apply("encode_values", jnp.zeros(shape), "a")
    assert f"images must be [batch, *(9, 8, 1)], got shape {shape}" in str(error.value)


@pytest.mark.parametrize("shape", [(ROWS, 2), (3,), (ROWS, 3, 1)])
def test_styles_of_other_shapes_raise(shape):
    for method, given in (
        ("translate", (IMAGES["a"], "b", jnp.zeros(shape))),
        ("decode", (jnp.zeros((ROWS, 5, 4, 4)), jnp.zeros(shape), "b")),
    ):
        with pytest.raises(ValueError, match=r"styles must be \[batch, 3\], got shape") as error:
            apply(method, *given)
        assert str(error.value).endswith(f"got shape {shape}")


def test_images_of_other_shapes_and_types_raise():
    with pytest.raises(ValueError, match=r"\*\(9, 8, 3\)\], got shape \(3, 9, 8, 1\)"):
        apply("encode", IMAGES["a"], "b")
    with pytest.raises(ValueError, match=r"\*\(9, 8, 1\)\], got shape \(3, 9, 8, 3\)"):
        apply("translate", IMAGES["b"], "b", rng=KEY)
    for wrong in (np.float32(IMAGES["a"]), np.int32(IMAGES["a"])):
        with pytest.raises(ValueError, match=f"images must be uint8.*got {wrong.dtype}"):
            apply("encode", wrong, "a")
        with pytest.raises(ValueError, match=f"images must be uint8.*got {wrong.dtype}"):
            apply("translate", wrong, "b", rng=KEY)


def test_normalization_of_every_intensity_inverts():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    values = normalize_images(levels)
    np.testing.assert_array_equal(denormalize_images(values), levels)
    np.testing.assert_array_equal(values.ravel(), -values.ravel()[::-1])
    np.testing.assert_allclose(np.diff(values.ravel()), 1 / 128, rtol=1e-6)
    assert values.max() == 1 - 1 / 256
    # Up to half a level away it is the same; a tanh reaches both ends.
    np.testing.assert_array_equal(denormalize_images(values + 0.99 / 256), levels)
    np.testing.assert_array_equal(denormalize_images(values - 0.99 / 256), levels)
    ends = denormalize_images(jnp.float32([-1, 1]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(ends.ravel(), [0, 255])


def test_generator_is_a_submodel_of_the_game():
    module, found = models.submodel(GAME, variables(), "generator")
    assert module is GAME.generator
    alone = jax.eval_shape(module.init, KEY, IMAGES["a"], IMAGES["b"])
    assert jax.tree.structure(found) == jax.tree.structure(alone)
    assert set(variables()["params"]) == {"generator", "discriminator"}
    assert set(found["params"]) == set(DOMAINS)


def test_game_scores_translations_by_the_discriminator_of_their_domain():
    judged = GAME.apply(variables(), IMAGES["a"], IMAGES["b"])
    translated = MODEL.apply(own(), IMAGES["a"], IMAGES["b"])
    params = variables()["params"]["discriminator"]
    for domain in DOMAINS:
        judge = getattr(GAME.discriminator, domain)
        expected = judge.apply({"params": params[domain]}, translated[domain])
        assert [each.shape for each in judged[domain]] == [(ROWS, 3, 2), (ROWS, 2, 1)]
        for found, each in zip(judged[domain], expected, strict=True):
            np.testing.assert_allclose(found, each, atol=1e-5)


def test_a_posterior_with_uncertainty_is_a_style_too():
    model = models.MUNIT(
        *(coder(SHAPES[d], encoders.DiagonalGaussianPosterior(STYLES[d])) for d in DOMAINS)
    )
    made = jax.jit(model.init)(KEY, IMAGES["a"], IMAGES["b"])
    style = model.apply(made, IMAGES["b"], "b", method="encode")[1]
    assert np.all(np.asarray(style.distribution.scale) > 0)
    shown = model.apply(made, IMAGES["a"], "b", style.mean(), method="translate")
    assert shown.shape == IMAGES["b"].shape
