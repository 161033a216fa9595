"""Models of codes and of their priors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.code_models import CODERS, IMAGES, code_model, prior, waved
from tests.variables import drawn_variables
from vaeflow import models

KEY = jax.random.key(0)
LABELS = np.arange(8, dtype=np.int32) % 2


@functools.cache
def example(levels=2, classes=None):
    model = code_model(levels, classes)
    variables = drawn_variables(
        model.init, IMAGES, context=None if classes is None else LABELS, seed=1
    )
    return model, variables | {"params": waved(variables["params"])}


def test_submodels_split_and_merge():
    _, variables = example()
    names = ["auto_encoder", "priors_0", "priors_1"]
    assert sorted(variables["params"]) == names
    parts = {
        name: {key: tree[name] for key, tree in variables.items() if name in tree} for name in names
    }
    again = models.merge_submodels(parts)
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    model, _ = example()
    for name, own in parts.items():
        part, taken = models.submodel(model, variables, name)
        assert part is (
            model.auto_encoder if name == "auto_encoder" else model.priors[int(name[-1])]
        )
        jax.tree.map(np.testing.assert_array_equal, taken, own)
    assert "codebook" in parts["auto_encoder"]
    assert "codebook" not in parts["priors_0"]


def test_each_level_has_its_own_prior():
    model, variables = example()

    @jax.jit
    def run(variables):
        codes = model.apply(variables, IMAGES, rngs={"sample": KEY})
        found = model.apply(variables, codes, method="log_prior")
        first, second = model.priors
        of_first, of_second = ({"params": variables["params"][f"priors_{i}"]} for i in range(2))
        return found, (
            first.apply(of_first, codes[0], method="log_prob"),
            second.apply(of_second, codes[1], None, context=codes[0], method="log_prob"),
        )

    (top, bottom), (of_top, of_bottom) = run(variables)
    np.testing.assert_allclose(top, of_top, rtol=1e-6)
    np.testing.assert_allclose(bottom, of_bottom, rtol=1e-6)


@pytest.mark.parametrize(
    ("levels", "classes"), [(1, None), pytest.param(2, 2, marks=pytest.mark.slow)]
)
def test_samples_are_decoded_codes_of_the_priors(levels, classes):
    model, variables = example(levels, classes)
    labels = None if classes is None else LABELS

    @jax.jit
    def run(variables):
        apply = functools.partial(model.apply, variables, KEY, 8, context=labels)
        codes = apply(method="sample_codes")
        decode = lambda model, codes: model.auto_encoder.decode(codes)  # noqa: E731
        return codes, apply(method="sample"), model.apply(variables, codes, method=decode)

    codes, images, decoded = run(variables)
    assert [maps.shape for maps in codes] == [(8, 2, 2), (8, 4, 3)][-levels:]
    np.testing.assert_array_equal(images, decoded)


def test_upper_codes_are_kept_and_the_rest_sampled_given_them():
    model, variables = example()
    count = 4000
    top = np.tile(np.arange(2, dtype=np.int32)[:, None, None], (count // 2, 2, 2))

    @jax.jit
    def run(variables):
        codes = model.apply(variables, KEY, count, upper_codes=(top,), method="sample_codes")
        prior, own = model.priors[1], {"params": variables["params"]["priors_1"]}
        # The first code's frequencies are its probabilities, given the map above it.
        none = jnp.zeros((2, 4, 3), jnp.int32)
        logits = prior.apply(own, none, context=top[:2]).logits(none)[:, 0, 0]
        return codes, jax.nn.softmax(logits)

    codes, expected = jax.device_get(run(variables))
    np.testing.assert_array_equal(codes[0], top)
    for label in range(2):
        drawn = np.bincount(codes[1][label::2, 0, 0], minlength=4) / (count // 2)
        np.testing.assert_allclose(drawn, expected[label], atol=0.04)
    assert np.abs(expected[0] - expected[1]).max() > 0.1


@pytest.mark.slow
def test_options_of_sampling_reach_every_level():
    model, variables = example()

    @jax.jit
    def run(variables):
        draw = functools.partial(model.apply, variables, method="sample_codes")
        other = jax.random.key(1)
        likeliest = draw(KEY, 6, temperature=0.0)
        return likeliest, [draw(other, 6, top_k=1), draw(other, 6, top_p=1e-6)]

    likeliest, drawn = jax.device_get(run(variables))
    for maps in drawn:
        jax.tree.map(np.testing.assert_array_equal, maps, likeliest)
    for maps in likeliest:
        np.testing.assert_array_equal(maps, np.broadcast_to(maps[:1], maps.shape))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"priors": ()}, "priors must be one for each of 1 levels, got 0"),
        ({"priors": (prior((4, 3), 6),)}, r"level 0 from the top has 5 codes .* its prior 6 codes"),
        ({"priors": (prior((4, 3), 5, above=5),)}, "the prior of the top must have above=None"),
        (
            {"auto_encoder": CODERS["residual"], "priors": (prior((4, 3), 3),)},
            r"codes of shape \(2,\) where it must be",
        ),
    ],
)
def test_mismatched_parts_raise(wrong, message):
    model = code_model(1).clone(**wrong)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, KEY, IMAGES)


@pytest.mark.parametrize(
    ("classes", "arguments", "message"),
    [
        (None, {"context": LABELS}, r"context must hold labels of shape None for 8 images"),
        (2, {}, r"labels of shape \(8,\) for 8 images and num_classes=2, got None"),
        (2, {"context": LABELS[:3]}, r"labels of shape \(8,\).* got \(3,\)"),
        (
            None,
            {"upper_codes": (np.zeros((3, 2, 2), int),)},
            r"upper_codes must be .* got \[\(3, 2, 2\)\]",
        ),
        (
            None,
            {"upper_codes": (np.zeros((8, 2, 2), int),) * 3},
            "upper_codes must be maps of shapes",
        ),
    ],
)
def test_mismatched_sampling_arguments_raise(classes, arguments, message):
    model = code_model(2, classes)
    labels = None if classes is None else LABELS

    def draw():
        variables = model.init(KEY, IMAGES, context=labels)
        return model.apply(variables, KEY, 8, method="sample_codes", **arguments)

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(draw)
