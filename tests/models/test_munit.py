"""MUNIT: encoding, decoding, translation and errors."""

from __future__ import annotations

import functools

import jax
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


def fail(method, *arguments, **options):
    """Traces a call that raises."""
    jax.eval_shape(lambda: apply(method, *arguments, **options))


@functools.cache
def both_ways():
    """Everything that a model does with the images of both domains, in one program."""
    random = np.random.RandomState(1)
    given = {to: np.float32(random.normal(size=(ROWS, STYLES[to]))) for to in DOMAINS}
    keys = jax.random.split(KEY, ROWS)

    @jax.jit
    def compute(variables):
        apply = functools.partial(MODEL.apply, variables)
        names = ("content", "style", "values", "images", "again", "styles of", "by key")
        found = {name: {} for name in names}
        for domain in DOMAINS:
            content, style = apply(IMAGES[domain], domain, method="encode")
            found["content"][domain] = content
            found["style"][domain] = style.mean()
            assert (style.batch_shape, style.event_shape) == ((ROWS,), (STYLES[domain],))
            found["values"][domain] = apply(content, style.mean(), domain, method="decode_values")
            found["images"][domain] = apply(content, style.mean(), domain, method="decode")
            values = normalize_images(IMAGES[domain])
            again, posterior = apply(values, domain, method="encode_values")
            found["again"][domain] = again, posterior.mean()
        for to in DOMAINS:
            source = other_domain(to)
            translate = functools.partial(apply, IMAGES[source], to, method="translate")
            decode = functools.partial(apply, found["content"][source], method="decode")
            drawn = apply(KEY, ROWS, to, method="draw_styles")
            of_keys = apply(keys, ROWS, to, method="draw_styles")
            alone = apply(keys[1:2], 1, to, method="draw_styles")
            found["styles of"][to] = drawn, of_keys, alone
            found["by key"][to] = translate(rng=KEY), decode(drawn, to)
            found[f"given {to}"] = translate(given[to]), decode(given[to], to)
            found[f"shown {to}"] = decode(found["style"][to], to)
        found["row alone"] = apply(IMAGES["a"][1:2], "b", rng=keys[1:2], method="translate")
        found["call"] = MODEL.apply(variables, IMAGES["a"], IMAGES["b"])
        return found

    return jax.device_get(compute(own()))


def within_a_level(found, expected):
    """Two compilations may round to either side of a level."""
    assert found.dtype == expected.dtype == np.uint8
    np.testing.assert_allclose(np.int32(found), np.int32(expected), atol=1)


@pytest.mark.parametrize("domain", DOMAINS)
def test_encode_and_decode(domain):
    found = both_ways()
    content, style = found["content"][domain], found["style"][domain]
    assert content.shape == (ROWS, 5, 4, 4)
    np.testing.assert_array_equal(found["again"][domain][0], content)
    np.testing.assert_array_equal(found["again"][domain][1], style)
    values = found["values"][domain]
    assert (values.shape, values.dtype) == ((ROWS, *SHAPES[domain]), np.float32)
    assert np.abs(values).max() <= 1
    images = found["images"][domain]
    np.testing.assert_array_equal(images, denormalize_images(values))


@pytest.mark.parametrize("to", DOMAINS)
def test_a_translation_is_the_content_in_a_style_of_the_other_domain(to):
    found = both_ways()
    assert other_domain(to) == ("b" if to == "a" else "a")
    translated, expected = found[f"given {to}"]
    np.testing.assert_array_equal(translated, expected)
    assert translated.shape == (ROWS, *SHAPES[to])
    drawn, expected = found["by key"][to]
    np.testing.assert_array_equal(drawn, expected)
    assert np.any(drawn != translated)


def test_a_call_translates_both_ways_in_the_styles_of_the_rows():
    found = both_ways()
    assert set(found["call"]) == set(DOMAINS)
    for to in DOMAINS:
        values = np.asarray(denormalize_images(found["call"][to]))
        within_a_level(values, found[f"shown {to}"])


def test_domains_have_separate_networks():
    moved = jax.device_get(own())
    moved["params"]["b"] = jax.tree.map(lambda leaf: leaf + np.float32(0.2), moved["params"]["b"])

    @jax.jit
    def encode(variables):
        return {d: MODEL.apply(variables, IMAGES[d], d, method="encode")[0] for d in DOMAINS}

    plain, other = jax.device_get((encode(own()), encode(moved)))
    for domain in DOMAINS:
        assert np.array_equal(other[domain], plain[domain]) == (domain == "a")


def test_row_depends_only_on_its_key_and_image():
    found = both_ways()
    by_key, styles, alone = found["styles of"]["b"]
    assert len({row.tobytes() for row in styles}) == ROWS
    np.testing.assert_array_equal(by_key, styles)
    np.testing.assert_array_equal(alone[0], styles[1])
    within_a_level(found["row alone"][0], found["by key"]["b"][0][1])


def test_drawn_styles_are_standard_normal():
    drawn = jax.jit(lambda: [apply("draw_styles", KEY, 4000, domain) for domain in DOMAINS])()
    for domain, styles in zip(DOMAINS, jax.device_get(drawn), strict=True):
        assert styles.shape == (4000, STYLES[domain])
        np.testing.assert_allclose(styles.mean(0), 0, atol=0.06)
        np.testing.assert_allclose(np.cov(styles.T), np.eye(STYLES[domain]), atol=0.1)


@pytest.mark.parametrize("given", [{}, {"style": np.ones((ROWS, 3)), "rng": KEY}])
def test_a_translation_takes_a_style_or_a_key(given):
    with pytest.raises(ValueError, match="either style or rng, got both or neither"):
        fail("translate", IMAGES["a"], "b", **given)


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
        fail(method, *arguments)


@pytest.mark.parametrize("shape", [(2, 9, 8, 3), (2, 8, 8, 1), (9, 8, 1)])
def test_values_of_other_shapes_raise_with_both_shapes(shape):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (its message is compared below)
        fail("encode_values", np.zeros(shape, np.float32), "a")
    assert f"images must be [batch, *(9, 8, 1)], got shape {shape}" in str(error.value)


@pytest.mark.parametrize("shape", [(ROWS, 2), (3,), (ROWS, 3, 1)])
def test_styles_of_other_shapes_raise(shape):
    for method, given in (
        ("translate", (IMAGES["a"], "b", np.zeros(shape, np.float32))),
        ("decode", (np.zeros((ROWS, 5, 4, 4), np.float32), np.zeros(shape, np.float32), "b")),
    ):
        with pytest.raises(ValueError, match=r"styles must be \[batch, 3\], got shape") as error:
            fail(method, *given)
        assert str(error.value).endswith(f"got shape {shape}")


def test_images_of_other_shapes_and_types_raise():
    with pytest.raises(ValueError, match=r"\*\(9, 8, 3\)\], got shape \(3, 9, 8, 1\)"):
        fail("encode", IMAGES["a"], "b")
    with pytest.raises(ValueError, match=r"\*\(9, 8, 1\)\], got shape \(3, 9, 8, 3\)"):
        fail("translate", IMAGES["b"], "b", rng=KEY)
    for wrong in (np.float32(IMAGES["a"]), np.int32(IMAGES["a"])):
        with pytest.raises(ValueError, match=f"images must be uint8.*got {wrong.dtype}"):
            fail("encode", wrong, "a")
        with pytest.raises(ValueError, match=f"images must be uint8.*got {wrong.dtype}"):
            fail("translate", wrong, "b", rng=KEY)


def test_normalization_of_every_intensity_inverts():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    invert = jax.jit(denormalize_images)
    values = np.asarray(jax.jit(normalize_images)(levels))
    np.testing.assert_array_equal(invert(values), levels)
    np.testing.assert_array_equal(values.ravel(), -values.ravel()[::-1])
    np.testing.assert_allclose(np.diff(values.ravel()), 1 / 128, rtol=1e-6)
    assert values.max() == 1 - 1 / 256
    # Up to half a level away it is the same; a tanh reaches both ends.
    np.testing.assert_array_equal(invert(values + np.float32(0.99 / 256)), levels)
    np.testing.assert_array_equal(invert(values - np.float32(0.99 / 256)), levels)
    ends = np.float32(np.resize([-1, 1], values.shape))
    np.testing.assert_array_equal(np.ravel(invert(ends))[:2], [0, 255])


def test_generator_is_a_submodel_of_the_game():
    module, found = models.submodel(GAME, variables(), "generator")
    assert module is GAME.generator
    alone = jax.eval_shape(module.init, KEY, IMAGES["a"], IMAGES["b"])
    assert jax.tree.structure(found) == jax.tree.structure(alone)
    assert set(variables()["params"]) == {"generator", "discriminator"}
    assert set(found["params"]) == set(DOMAINS)


def test_game_scores_translations_by_the_discriminator_of_their_domain():
    @jax.jit
    def run(variables):
        judged = GAME.apply(variables, IMAGES["a"], IMAGES["b"])
        generator, own = models.submodel(GAME, variables, "generator")
        translated = generator.apply(own, IMAGES["a"], IMAGES["b"])
        params = variables["params"]["discriminator"]
        return judged, {
            domain: getattr(GAME.discriminator, domain).apply(
                {"params": params[domain]}, translated[domain]
            )
            for domain in DOMAINS
        }

    judged, expected = jax.device_get(run(variables()))
    for domain in DOMAINS:
        assert [each.shape for each in judged[domain]] == [(ROWS, 3, 2), (ROWS, 2, 1)]
        for found, each in zip(judged[domain], expected[domain], strict=True):
            np.testing.assert_allclose(found, each, atol=1e-5)


def test_a_posterior_with_uncertainty_is_a_style_too():
    model = models.MUNIT(
        *(coder(SHAPES[d], encoders.DiagonalGaussianPosterior(STYLES[d])) for d in DOMAINS)
    )

    @jax.jit
    def run():
        values = normalize_images(IMAGES["b"])
        made = model.b.init(KEY, values)
        style = model.b.apply(made, values)[1]
        return style.distribution.scale

    assert np.all(np.asarray(run()) > 0)

    def translate():
        made = model.init(KEY, IMAGES["a"], IMAGES["b"])
        style = model.apply(made, IMAGES["b"], "b", method="encode")[1]
        return model.apply(made, IMAGES["a"], "b", style.mean(), method="translate")

    assert jax.eval_shape(translate).shape == IMAGES["b"].shape
