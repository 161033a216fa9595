"""Content and style encoders of MUNIT, and point-mass posteriors."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reflection import reflected_convolution
from tests.variables import drawn_variables
from vaeflow import decoders, encoders, models
from vaeflow.distributions.transformed import sample_per_example

KEY = jax.random.key(0)
CONTENT = encoders.ContentEncoder((3, 4, 5), num_blocks=1)
STYLE = encoders.StyleEncoder((3, 4, 5))
SIZES = [(28, 28), (27, 24), (24, 32), (9, 5), (1, 6)]


def values(*shape):
    return np.random.RandomState(0).uniform(-0.7, 0.7, shape).astype(np.float32)


def fitted(network, x):
    """Parameters, and the network with them."""
    variables = drawn_variables(network.init, x)
    apply = jax.jit(lambda x: network.apply(variables, x))
    return variables["params"], lambda x: np.asarray(apply(x))


@pytest.mark.parametrize("size", SIZES)
def test_maps_halve_rounded_up_and_features_are_one_vector(size):
    x = np.ones((2, *size, 3), np.float32)
    content = jax.eval_shape(lambda x: CONTENT.init_with_output(KEY, x)[0], x)
    assert content.shape == (2, -(-size[0] // 4), -(-size[1] // 4), 5)
    style = jax.eval_shape(lambda x: STYLE.init_with_output(KEY, x)[0], x)
    assert style.shape == (2, 5)


def normed(x):
    return (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)


def test_content_equals_normalised_convolutions_and_blocks():
    x = values(2, 9, 7, 2)
    parameters, encode = fitted(CONTENT, x)
    expected = x
    for level in range(3):
        kernel = parameters[f"Conv_{level}"]["kernel"]
        convolved = reflected_convolution(expected, kernel, 2 if level else 1)
        expected = np.maximum(normed(convolved), 0)
    block = parameters["InstanceNormBlock_0"]
    hidden = normed(reflected_convolution(expected, block["Conv_0"]["kernel"]))
    change = reflected_convolution(np.maximum(hidden, 0), block["Conv_1"]["kernel"])
    np.testing.assert_allclose(encode(x), expected + normed(change), atol=1e-3)
    assert len(jax.tree.leaves(parameters)) == 5  # no biases, which the norms would subtract


def test_style_is_the_mean_of_convolutions_without_norms():
    x = values(2, 9, 7, 2)
    parameters, encode = fitted(STYLE, x)
    expected = x
    for level in range(3):
        layer = parameters[f"Conv_{level}"]
        convolved = reflected_convolution(expected, layer["kernel"], 2 if level else 1)
        expected = np.maximum(convolved + layer["bias"], 0)
    np.testing.assert_allclose(encode(x), expected.mean((1, 2)), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_and_brightness_are_style_and_not_content(channels):
    x = values(2, 12, 11, channels)
    # A contrast of all channels and a brightness of each; mirrored edges hold no other constant.
    other = 0.6 * x + np.float32([0.2, -0.3, 0.1])[:channels]
    content, style = fitted(CONTENT, x)[1], fitted(STYLE, x)[1]
    spread = np.std(content(x))
    assert np.abs(content(other) - content(x)).max() < 2e-3 * spread
    assert np.abs(style(other) - style(x)).max() > 0.3 * np.abs(style(x)).max()
    # Content isn't blind: what is shown elsewhere, or inverted, is another.
    assert np.abs(content(x[:, ::-1]) - content(x)).max() > 0.3 * spread
    assert np.abs(content(-x) - content(x)).max() > 0.3 * spread


@pytest.mark.slow
def test_networks_compute_in_bfloat16_and_return_float32():
    x = values(2, 8, 8, 1)
    for network in (CONTENT, STYLE):

        @jax.jit
        def both(x, network=network):
            exact, variables = network.init_with_output(KEY, x)
            return exact, network.clone(dtype=jnp.bfloat16).apply(variables, x)

        exact, half = jax.device_get(both(x))
        assert half.dtype == np.float32
        assert 0 < np.abs(half - exact).max() < 0.1 * np.abs(exact).max()


def test_a_point_mass_is_its_mean_and_linear_in_the_features():
    posterior = encoders.PointMassPosterior(2)

    @jax.jit
    def run(features):
        found, variables = posterior.init_with_output(KEY, features)
        return found, variables, found.mean(), found.sample(seed=KEY)

    features = values(4, 3)
    found, variables, mean, sample = jax.device_get(run(features))
    (dense,) = variables["params"].values()
    np.testing.assert_allclose(mean, features @ dense["kernel"] + dense["bias"], rtol=1e-5)
    assert (found.batch_shape, found.event_shape) == ((4,), (2,))
    np.testing.assert_array_equal(sample, mean)
    assert isinstance(found, distrax.Distribution)


def test_point_masses_are_sampled_row_by_row():
    posterior = encoders.PointMassPosterior(2)

    @jax.jit
    def run(features):
        found, variables = posterior.init_with_output(KEY, features)

        def total(features):
            keys = jax.random.split(KEY, 4)
            drawn = sample_per_example(posterior.apply(variables, features), keys, 5)[0]
            return drawn.sum(), drawn

        slope, drawn = jax.grad(total, has_aux=True)(features)
        return variables, found.mean(), drawn, slope

    variables, mean, drawn, slope = jax.device_get(run(values(4, 3)))
    np.testing.assert_allclose(drawn, np.broadcast_to(mean, (5, 4, 2)), rtol=1e-5)
    kernel = next(iter(variables["params"].values()))["kernel"]
    np.testing.assert_allclose(slope, np.broadcast_to(5 * kernel.sum(1), (4, 3)), rtol=1e-5)


def test_the_prior_of_a_point_mass_is_standard_normal():
    z = np.float32([0.5, -1.0, 3.0])

    @jax.jit
    def run(z):
        prior = encoders.PointMassPosterior(3).standard(2.0)
        plain = encoders.PointMassPosterior(3).standard()
        return prior, prior.log_prob(z), plain.log_prob(jnp.zeros(3))

    prior, density, plain = run(z)
    expected = -0.5 * np.sum((z / 2) ** 2) - 3 * np.log(2 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(density, expected, rtol=1e-6)
    assert (prior.batch_shape, prior.event_shape) == ((), (3,))
    assert plain == pytest.approx(-1.5 * np.log(2 * np.pi), rel=1e-6)


def test_point_mass_has_no_bound():
    vae = models.VAE(
        encoder=encoders.Encoder(encoders.DenseEncoder((4,)), encoders.PointMassPosterior(2)),
        decoder=decoders.Decoder(
            decoders.DenseDecoder((4,)), decoders.BernoulliLikelihood(), (3, 2, 1)
        ),
        observation=models.Binarizer(),
    )
    images = np.zeros((2, 3, 2, 1), np.uint8)
    with pytest.raises(ValueError, match=r"a posterior must have a density .* got a PointMass"):
        jax.eval_shape(vae.init, KEY, images)


def test_single_position_raises():
    with pytest.raises(ValueError, match=r"2 positions or more, got shape \(2, 1, 1, 4\)"):
        jax.eval_shape(lambda x: CONTENT.init_with_output(KEY, x)[0], np.ones((2, 1, 2, 3)))
