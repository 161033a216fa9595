"""Dequantizers against exact probabilities of whole numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vaeflow import bijectors, flows, models

LOCATION, SCALE = 0.07, 0.2


class PixelFlow(nn.Module):
    """Scales and shifts one pixel, given feature maps or nothing."""

    shift: float
    log_scale: float
    noise_shape = (1,)
    event_shape = (1, 1, 1)
    num_classes = None
    context_ndims = 3

    def __call__(self, *, context=None, data=None):
        shift = jnp.full((1, 1, 1), self.shift)
        if context is not None:
            shift = shift + context
        affine = bijectors.ElementwiseAffine(shift, jnp.full((1, 1, 1), self.log_scale), 3)
        return bijectors.Chain([affine, bijectors.Reshape((1,), (1, 1, 1))])


def exact_probabilities(bits):
    """The mass of a normal in each cube."""
    edges = np.arange(2**bits + 1) / 2**bits - 0.5
    return np.diff(stats.norm(LOCATION, SCALE).cdf(edges))


DEQUANTIZERS = {
    "uniform": lambda bits: models.UniformDequantizer(bits),
    "variational": lambda bits: models.VariationalDequantizer(PixelFlow(0.4, 0.3), bits),
}


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("name", DEQUANTIZERS)
def test_mean_likelihood_ratio_is_the_exact_probability(name, bits):
    # exp(log p(values) + log_det) is an unbiased estimate of the probability of the whole number.
    model = models.FlowModel(PixelFlow(LOCATION, float(np.log(SCALE))), DEQUANTIZERS[name](bits))
    level = {1: 1, 3: 5, 8: 150}[bits]
    images = np.full((20_000, 1, 1, 1), level << (8 - bits), np.uint8)
    find = jax.jit(lambda images: model.apply({}, images, jax.random.key(0), method="log_prob"))
    log_prob = np.asarray(find(images))
    exact = exact_probabilities(bits)[level]
    np.testing.assert_allclose(np.mean(np.exp(log_prob)), exact, rtol=0.03)
    assert np.mean(log_prob) <= np.log(exact) + 1e-3


def test_n_bit_images_drop_the_low_bits():
    images = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    again, _, log_det = requantized(models.UniformDequantizer(5), images)
    np.testing.assert_array_equal(again, images >> 3 << 3)
    np.testing.assert_allclose(log_det, -5 * np.log(2), rtol=1e-6)


def requantized(dequantizer, images):
    """The images again, their values and the log determinants."""

    @jax.jit
    def run(images):
        keys = jax.random.split(jax.random.key(1), len(images))
        values, log_det = dequantizer.apply({}, images, keys)
        return dequantizer.quantize(values), values, log_det

    return jax.device_get(run(images))


@pytest.mark.parametrize("name", DEQUANTIZERS)
@pytest.mark.parametrize("bits", [1, 5, 8])
def test_values_stay_in_their_cell(name, bits):
    images = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1).repeat(20, 0)
    again, values, log_det = requantized(DEQUANTIZERS[name](bits), images)
    np.testing.assert_array_equal(again, images >> (8 - bits) << (8 - bits))
    assert values.dtype == log_det.dtype == np.float32
    assert log_det.shape == (len(images),)
    assert values.min() >= -0.5
    assert values.max() < 0.5


def test_largest_noise_stays_in_the_cell():
    # The logit of the noise is so large that its sigmoid rounds to 1.
    dequantizer = models.VariationalDequantizer(PixelFlow(60.0, 0.0))
    images = np.array([0, 128, 255], np.uint8).reshape(3, 1, 1, 1)
    again, _, log_det = requantized(dequantizer, images)
    np.testing.assert_array_equal(again, images)
    assert np.isfinite(log_det).all()


def test_values_outside_the_range_are_clipped():
    values = np.array([-7.0, -0.5, 0.4999, 9.0], np.float32)
    quantize = jax.jit(models.UniformDequantizer().quantize)
    np.testing.assert_array_equal(quantize(values), [0, 0, 255, 255])


def test_noise_of_a_row_depends_only_on_its_key():
    images = np.full((4, 1, 1, 1), 9, np.uint8)

    @jax.jit
    def run():
        keys = jax.random.split(jax.random.key(0), 4)
        both = (models.UniformDequantizer(), DEQUANTIZERS["variational"](8))
        return [
            (each.apply({}, images, keys), each.apply({}, images[2:], keys[2:])) for each in both
        ]

    for whole, half in jax.device_get(run()):
        np.testing.assert_array_equal(whole.values[2:], half.values)
        np.testing.assert_allclose(whole.log_det[2:], half.log_det, rtol=1e-6)


def test_variational_dequantizer_with_glow_reads_the_image():
    flow = flows.Glow((4, 4, 1), num_levels=1, num_steps=2, hidden_features=8, context_ndims=3)
    dequantizer = models.VariationalDequantizer(flow)
    images = np.random.RandomState(0).randint(0, 256, (3, 4, 4, 1)).astype(np.uint8)

    @jax.jit
    def run():
        keys = jax.random.split(jax.random.key(1), 3)
        variables = dequantizer.init(jax.random.key(2), images, keys)
        variables = jax.tree.map(lambda leaf: leaf + 0.05, variables)
        both = np.stack([images, images // 2])
        values = jax.vmap(lambda images: dequantizer.apply(variables, images, keys).values)(both)
        return (values + 0.5) * 256 - both

    noise, other = jax.device_get(run())
    assert np.abs(noise - other).max() > 1e-3


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range_raise(bits):
    keys = jax.random.split(jax.random.key(0), 1)
    with pytest.raises(ValueError, match=f"bits must be in 1, ..., 8, got {bits}"):
        models.UniformDequantizer(bits).apply({}, np.zeros((1, 2, 2, 1), np.uint8), keys)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 2, 2, 1), np.float32), np.zeros((2, 2, 1), np.uint8)],
    ids=["float", "rank 3"],
)
def test_other_than_uint8_image_batches_raise(images):
    keys = jax.random.split(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="images must be uint8"):
        models.UniformDequantizer().apply({}, images, keys)


def test_data_given_to_init_must_have_the_shape_of_the_flow():
    flow = flows.Glow((4, 4, 1), num_levels=1, num_steps=1, hidden_features=4)
    data = np.zeros((3, 8, 4, 1), np.float32)
    with pytest.raises(
        ValueError, match=r"data must have shape \(batch, 4, 4, 1\), got \(3, 8, 4, 1\)"
    ):
        jax.eval_shape(lambda: flow.init(jax.random.key(0), data=data))
