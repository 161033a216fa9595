"""Code maps: sequential samples against full passes, truncation, errors."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.drawn import log_prob
from tests.raster_networks import KEY, NETWORKS, context_of, gated, initialised, maps_of
from vaeflow import distributions
from vaeflow.bijectors import Conditioner
from vaeflow.distributions.code_maps import truncated_logits

CUTS = {
    "all": {},
    "temperature": {"temperature": 0.5},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.8},
    "together": {"temperature": 1.5, "top_k": 2, "top_p": 0.6},
}
cuts = pytest.mark.parametrize("options", CUTS.values(), ids=CUTS)


def distribution(network, context=None, **options):
    variables = initialised(network, context)
    ndims = 1 if context is None else context.ndim - 1
    return distributions.CodeMaps(Conditioner(network, variables, context, 2, ndims), **options)


def renormalised(logits, temperature=1.0, top_k=None, top_p=None):
    """Probabilities of the codes that are left, in plain loops over one vector of logits."""
    weights = np.exp(np.float64(logits) / temperature)
    probability = weights / weights.sum()
    order = sorted(range(len(logits)), key=lambda code: -probability[code])[:top_k]
    probability = {code: probability[code] / probability[order].sum() for code in order}
    kept, gathered = [], 0.0
    for code in order:
        if top_p is None or gathered < top_p:
            kept.append(code)
            gathered += probability[code]
    result = np.zeros(len(logits))
    for code in kept:
        result[code] = probability[code] / gathered
    return result


def all_maps(codes, *shape):
    """Every map, one a row."""
    maps = itertools.product(range(codes), repeat=math.prod(shape))
    return np.array(list(maps), np.int32).reshape(-1, *shape)


@cuts
def test_truncation_by_probability(options):
    logits = 2 * np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    code_map = jax.jit(lambda x: jax.nn.softmax(truncated_logits(x, **options)))(logits)
    expected = np.array([renormalised(row, **options) for row in logits])
    np.testing.assert_allclose(code_map, expected, atol=1e-5)


def test_ties_keep_the_first_codes():
    logits, shares = np.zeros(4, np.float32), np.float32([0.4, 0.5, 1e-30, 1.0])

    @jax.jit
    def truncated(shares):
        by_count = [truncated_logits(logits, top_k=count) for count in (3, 9)]
        return jnp.stack(by_count), jax.vmap(lambda p: truncated_logits(logits, top_p=p))(shares)

    for kept, counts in zip(truncated(shares), ([3, 4], [2, 2, 1, 4]), strict=True):
        np.testing.assert_array_equal(kept == 0, np.arange(4) < np.array(counts)[:, None])


def test_top_p_one_keeps_all_and_temperature_zero_is_finite():
    logits = np.where(np.arange(2000) == 0, 0, np.float32(-18.0))

    @jax.jit
    def truncated():
        cold = truncated_logits(jnp.array([3.0, 1e6, -1e6]), 0.0)
        return truncated_logits(jnp.asarray(logits), top_p=1.0), jax.nn.softmax(cold)

    kept, cold = jax.device_get(truncated())
    assert (kept > -np.inf).all()
    np.testing.assert_array_equal(cold, [0, 1, 0])


@pytest.mark.parametrize(
    ("make", "options"),
    [
        pytest.param(NETWORKS["PixelSNAIL"], {}, marks=pytest.mark.slow),
        *((gated, options) for options in CUTS.values()),
    ],
    ids=["PixelSNAIL", *CUTS],
)
def test_probabilities_of_all_maps_add_up_to_one(make, options):
    code_map = distribution(make((2, 2), 3, num_blocks=1), **options)
    found = np.asarray(log_prob(code_map, all_maps(3, 2, 2)))
    assert found.shape == (81,)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)
    assert np.isneginf(found).any() == ("top_k" in options or "top_p" in options)


@jax.jit
def logits_of(code_map, maps):
    return code_map.logits(maps)


@cuts
def test_log_prob_is_of_renormalised_probabilities(options):
    network, maps = gated((2, 2), 3, num_blocks=1), all_maps(3, 2, 2)
    logits = np.asarray(logits_of(distribution(network), maps))
    probability = np.ones(81)
    for row, i, j in np.ndindex(maps.shape):
        probability[row] *= renormalised(logits[row, i, j], **options)[maps[row, i, j]]
    with np.errstate(divide="ignore"):  # of codes that are truncated
        expected = np.log(probability)
    found = log_prob(distribution(network, **options), maps)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (NETWORKS["GatedPixelCNN"], "none"),
        # The tests of networks have these as well, without the samples.
        pytest.param(NETWORKS["PixelSNAIL"], "maps", marks=pytest.mark.slow),
        pytest.param(NETWORKS["GatedPixelCNN"], "maps", marks=pytest.mark.slow),
        pytest.param(NETWORKS["PixelSNAIL"], "none", marks=pytest.mark.slow),
    ],
)
def test_samples_equal_those_of_full_passes(make, kind):
    network = make(num_blocks=1)
    options = {"temperature": 0.8, "top_k": 4, "top_p": 0.9}
    code_map = distribution(network, context_of(kind, 2), **options)
    batch = () if kind == "none" else (2,)
    samples, density = code_map.sample_and_log_prob(seed=KEY, sample_shape=3)
    assert samples.shape == (3, *batch, 3, 4)

    @jax.jit
    def step(code_map, maps, i, j):
        rows = code_map.logits(maps)[..., i, j, :].reshape(-1, 5)
        drawn = jax.random.categorical(jax.random.split(KEY, (3, 4))[i, j], rows)
        return maps.at[..., i, j].set(drawn.reshape((3, *batch)))

    naive = np.zeros(samples.shape, np.int32)
    for i, j in np.ndindex(3, 4):
        naive = step(code_map, naive, i, j)
    np.testing.assert_array_equal(samples, naive)
    np.testing.assert_allclose(density, log_prob(code_map, naive), rtol=1e-4)
    assert len(np.unique(samples)) > 1


def test_temperature_zero_is_greedy():
    code_map = distribution(gated((2, 2), num_blocks=1), temperature=0.0)
    samples, density = code_map.sample_and_log_prob(seed=KEY, sample_shape=3)
    best = np.argmax(logits_of(code_map, samples), axis=-1)
    samples = np.asarray(samples)
    np.testing.assert_array_equal(samples, best)
    np.testing.assert_array_equal(samples[0], samples[1])
    np.testing.assert_array_equal(density, 0)


def test_code_out_of_range_has_probability_zero():
    network = gated(num_blocks=1)
    maps = np.stack([maps_of(network, 4)] * 3)
    maps[1:, 1, 2, 0] = -1, 5
    clean, *spoilt = np.asarray(log_prob(distribution(network), maps))
    for found in spoilt:
        np.testing.assert_array_equal(np.isneginf(found), [False, True, False, False])
        np.testing.assert_allclose(found[2:], clean[2:], rtol=1e-5)


@pytest.mark.slow
def test_jit_argument_compiles_once():
    code_map, traces = distribution(gated((2, 2), num_blocks=1), top_k=3), []

    @jax.jit
    def both(code_map, key):
        traces.append(None)
        return code_map.sample_and_log_prob(seed=key, sample_shape=2)

    with jax.check_tracer_leaks():
        samples, density = both(code_map, KEY)
    both(jax.tree.map(np.array, code_map), KEY)
    assert len(traces) == 1
    np.testing.assert_array_equal(samples, code_map.sample(seed=KEY, sample_shape=2))
    np.testing.assert_allclose(density, log_prob(code_map, samples), rtol=1e-4)


@pytest.mark.slow
def test_vmap_over_keys_and_contexts_gives_each_its_own():
    context = context_of("vectors", 3)
    network = gated((2, 2), num_blocks=1)
    variables = initialised(network, context)
    keys = jax.random.split(KEY, 3)

    @jax.jit
    def draw(key, context):
        conditioner = Conditioner(network, variables, context, 2)
        return distributions.CodeMaps(conditioner).sample(seed=key, sample_shape=2)

    together = jax.jit(jax.vmap(draw, in_axes=(0, None)))(keys, context)
    for key, samples in zip(keys, together, strict=True):
        np.testing.assert_array_equal(samples, draw(key, context))


@pytest.mark.slow
def test_values_broadcast_against_the_contexts():
    network, context = gated(num_blocks=1), context_of("vectors", 3)
    code_map, maps = distribution(network, context), np.asarray(maps_of(network, 2))
    density = np.asarray(log_prob(code_map, maps[:, None]))
    assert density.shape == (2, 3)
    np.testing.assert_allclose(log_prob(code_map, maps[1]), density[1], rtol=1e-5)


@pytest.mark.slow
def test_bfloat16_networks_have_float32_probabilities_that_add_up():
    code_map = distribution(gated((1, 2), 3, num_blocks=1, dtype=jnp.bfloat16))
    density = np.asarray(log_prob(code_map, all_maps(3, 1, 2)))
    assert density.dtype == np.float32
    assert np.exp(density).sum() == pytest.approx(1, abs=1e-5)
    _, of_samples = jax.eval_shape(
        lambda code_map: code_map.sample_and_log_prob(seed=KEY, sample_shape=2), code_map
    )
    assert of_samples.dtype == jnp.float32


def test_wrong_arguments_raise():
    network = gated(num_blocks=1)
    conditioner = Conditioner(network, initialised(network), None, 2)
    code_map = distributions.CodeMaps(conditioner)
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(2, 4, 3\)"):
        code_map.log_prob(np.zeros((2, 4, 3), np.int32))
    with pytest.raises(ValueError, match="integers, got float32"):
        code_map.log_prob(np.zeros((2, 3, 4), np.float32))
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        distributions.CodeMaps(conditioner, top_k=0)
    for top_p in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"top_p .* got {top_p}"):
            distributions.CodeMaps(conditioner, top_p=top_p)
    with pytest.raises(ValueError, match="event_ndims=1"):
        distributions.CodeMaps(Conditioner(network, {}, None, 1))
