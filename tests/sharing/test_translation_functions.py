"""Exported functions of a model that translates."""

from __future__ import annotations

import functools
import json
import zipfile

import jax
import numpy as np
import pytest

from tests.munit_game import GAME, IMAGES, SHAPES, STYLES, variables
from vaeflow import models, sharing

MODEL = GAME.generator
OTHER = {"a": "b", "b": "a"}


@functools.cache
def own():
    return models.submodel(GAME, variables(), "generator")[1]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The file of all functions."""
    path = tmp_path_factory.mktemp("exported") / "file"
    sharing.save_exported(path, sharing.export_functions(MODEL), own(), {})
    return path


@pytest.fixture(scope="module")
def loaded(path):
    return sharing.load_exported(path)


def within_a_level(found, expected):
    """Two compilations may round to either side of a level."""
    assert (found.dtype, found.shape) == (np.uint8, expected.shape)
    difference = np.abs(np.int32(found) - np.int32(expected))
    assert difference.max() <= 1
    assert difference.mean() < 0.02


@pytest.mark.slow
def test_every_platform_has_every_function(path):
    with zipfile.ZipFile(path) as archive:
        signature = json.loads(archive.read("signature.json"))
        for name in signature["functions"]:
            exported = jax.export.deserialize(bytearray(archive.read(f"{name}.bin")))
            assert exported.platforms == ("cpu", "cuda", "tpu")
    domains = {"reconstruct_{}", "encode_style_{}", "sample_style_{}"}
    expected = {name.format(domain) for name in domains for domain in SHAPES}
    assert set(signature["functions"]) == expected | {"translate_a_to_b", "translate_b_to_a"}
    arguments = signature["functions"]["translate_a_to_b"]["arguments"]
    assert [(each["name"], each["dtype"], each["shape"]) for each in arguments] == [
        ("images", "uint8", ["b", 9, 8, 1]),
        ("styles", "float32", ["b", 3]),
    ]
    result = signature["functions"]["translate_a_to_b"]["result"]
    assert (result["dtype"], result["shape"]) == ("uint8", ["b", 9, 8, 3])


@pytest.mark.parametrize("domain", ["a", pytest.param("b", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_loaded_functions_are_the_models(loaded, domain):
    to = OTHER[domain]
    images = IMAGES[domain]
    keys = jax.random.split(jax.random.key(5), len(images))
    numbers = np.asarray(jax.random.key_data(keys))
    styles = np.random.RandomState(1).normal(size=(len(images), STYLES[to])).astype(np.float32)

    @jax.jit
    def directly(variables):
        apply = functools.partial(MODEL.apply, variables)
        content, style = apply(images, domain, method="encode")
        reconstructed = apply(content, style.mean(), domain, method="decode")
        translated = apply(images, to, styles, method="translate")
        drawn = apply(keys, len(images), domain, method="draw_styles")
        return reconstructed, translated, style.mean(), drawn

    reconstructed, translated, means, drawn = jax.device_get(directly(own()))
    # A row depends on its own image and key alone, so batches of all sizes hold the same rows.
    rows = slice(1, 3)
    within_a_level(loaded[f"reconstruct_{domain}"](images[rows]), reconstructed[rows])
    found = loaded[f"translate_{domain}_to_{to}"](images[rows], styles[rows])
    within_a_level(found, translated[rows])
    found = loaded[f"encode_style_{domain}"](images[rows])
    np.testing.assert_allclose(found, means[rows], rtol=1e-4, atol=1e-5)
    found = loaded[f"sample_style_{domain}"](numbers[rows])
    np.testing.assert_allclose(found, drawn[rows], rtol=1e-6)


def test_styles_of_examples_and_of_the_prior_lead_to_translations(loaded):
    """Together the functions do what `translate` does with an example, and with keys."""
    rows = 2
    images = {domain: IMAGES[domain][:rows] for domain in SHAPES}
    keys = jax.random.split(jax.random.key(2), rows)

    @jax.jit
    def directly(variables):
        apply = functools.partial(MODEL.apply, variables)
        style = apply(images["b"], "b", method="encode")[1].mean()
        of_examples = apply(images["a"], "b", style, method="translate")
        return of_examples, apply(images["a"], "b", rng=keys, method="translate")

    of_examples, of_the_prior = jax.device_get(directly(own()))
    examples = loaded["encode_style_b"](images["b"])
    within_a_level(loaded["translate_a_to_b"](images["a"], examples), of_examples)
    drawn = loaded["sample_style_b"](np.asarray(jax.random.key_data(keys)))
    within_a_level(loaded["translate_a_to_b"](images["a"], drawn), of_the_prior)
