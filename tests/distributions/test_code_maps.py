"""Code maps: sequential samples against full passes, truncation, errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.raster_networks import KEY, NETWORKS, context_of, gated, initialised, maps_of
from vaeflow import distributions
from vaeflow.bijectors import Conditioner
from vaeflow.distributions.code_maps import truncated_logits

every = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
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


@cuts
def test_truncation_by_probability(options):
    logits = 2 * jax.random.normal(KEY, (50, 6))
    code_map = jax.jit(lambda x: jax.nn.softmax(truncated_logits(x, **options)))(logits)
    expected = np.array([renormalised(row, **options) for row in logits])
    np.testing.assert_allclose(code_map, expected, atol=1e-5)


def test_ties_keep_the_first_codes():
    logits = jnp.zeros(4)
    for options, count in (
        ({"top_k": 3}, 3),
        ({"top_p": 0.4}, 2),
        ({"top_p": 0.5}, 2),
        ({"top_p": 1e-30}, 1),
        ({"top_p": 1.0}, 4),
        ({"top_k": 9}, 4),
    ):
        kept = truncated_logits(logits, **options) == 0
        np.testing.assert_array_equal(kept, np.arange(4) < count)


def test_top_p_one_keeps_all_and_temperature_zero_is_finite():
    logits = jnp.where(jnp.arange(2000) == 0, 0.0, -18.0)
    assert (truncated_logits(logits, top_p=1.0) > -jnp.inf).all()
    cold = truncated_logits(jnp.array([3.0, 1e6, -1e6]), 0.0)
    np.testing.assert_array_equal(jax.nn.softmax(cold), [0, 1, 0])


@pytest.mark.parametrize(
    ("make", "options"),
    [(NETWORKS["PixelSNAIL"], {}), *((gated, options) for options in CUTS.values())],
    ids=["PixelSNAIL", *CUTS],
)
def test_probabilities_of_all_maps_add_up_to_one(make, options):
    code_map = distribution(make((2, 2), 3, num_blocks=1), **options)
    maps = jnp.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2)
    log_prob = jax.jit(lambda code_map, maps: code_map.log_prob(maps))(code_map, maps)
    assert log_prob.shape == (81,)
    assert jnp.exp(log_prob).sum() == pytest.approx(1, abs=1e-5)
    assert jnp.isneginf(log_prob).any() == ("top_k" in options or "top_p" in options)


@cuts
def test_log_prob_is_of_renormalised_probabilities(options):
    network = gated((2, 2), 4, num_blocks=1)
    code_map = distribution(network, **options)
    maps = code_map.sample(seed=KEY, sample_shape=3)
    logits = distribution(network).logits(maps)
    expected = np.zeros(3)
    for row, i, j in np.ndindex(3, 2, 2):
        expected[row] += np.log(renormalised(logits[row, i, j], **options)[maps[row, i, j]])
    np.testing.assert_allclose(code_map.log_prob(maps), expected, rtol=1e-4)


@every
@pytest.mark.parametrize("kind", ["none", "maps"])
def test_samples_equal_those_of_full_passes(make, kind):
    network = make(num_blocks=1)
    code_map = distribution(network, context_of(kind, 2), temperature=0.8, top_k=4)
    batch = () if kind == "none" else (2,)
    samples, log_prob = code_map.sample_and_log_prob(seed=KEY, sample_shape=3)
    assert samples.shape == (3, *batch, 3, 4)
    keys = jax.random.split(KEY, (3, 4))
    naive = jnp.zeros(samples.shape, jnp.int32)
    logits = jax.jit(lambda maps: code_map.logits(maps))
    for i, j in np.ndindex(3, 4):
        rows = logits(naive)[..., i, j, :].reshape(-1, 5)
        drawn = jax.random.categorical(keys[i, j], rows)
        naive = naive.at[..., i, j].set(drawn.reshape((3, *batch)))
    np.testing.assert_array_equal(samples, naive)
    np.testing.assert_allclose(log_prob, code_map.log_prob(naive), rtol=1e-4)
    assert len(np.unique(samples)) > 1


def test_temperature_zero_is_greedy():
    code_map = distribution(gated((2, 2), num_blocks=1), temperature=0.0)
    samples, log_prob = code_map.sample_and_log_prob(seed=KEY, sample_shape=3)
    np.testing.assert_array_equal(samples, jnp.argmax(code_map.logits(samples), axis=-1))
    np.testing.assert_array_equal(samples[0], samples[1])
    np.testing.assert_array_equal(log_prob, 0)


def test_code_out_of_range_has_probability_zero():
    network = gated(num_blocks=1)
    code_map, maps = distribution(network), maps_of(network, 4)
    for bad in (-1, 5):
        log_prob = code_map.log_prob(maps.at[1, 2, 0].set(bad))
        np.testing.assert_array_equal(jnp.isneginf(log_prob), [False, True, False, False])
        np.testing.assert_allclose(log_prob[2:], code_map.log_prob(maps)[2:], rtol=1e-5)


def test_jit_argument_compiles_once():
    code_map, traces = distribution(gated((2, 2), num_blocks=1), top_k=3), []

    @jax.jit
    def both(code_map, key):
        traces.append(None)
        return code_map.sample_and_log_prob(seed=key, sample_shape=2)

    with jax.check_tracer_leaks():
        samples, log_prob = both(code_map, KEY)
    both(jax.tree.map(lambda leaf: leaf + 0, code_map), KEY)
    assert len(traces) == 1
    np.testing.assert_array_equal(samples, code_map.sample(seed=KEY, sample_shape=2))
    np.testing.assert_allclose(log_prob, code_map.log_prob(samples), rtol=1e-4)


def test_vmap_over_keys_and_contexts_gives_each_its_own():
    context = context_of("vectors", 3)
    code_map = distribution(gated((2, 2), num_blocks=1), context)
    keys = jax.random.split(KEY, 3)

    def draw(key, context):
        return distribution(gated((2, 2), num_blocks=1), context).sample(seed=key, sample_shape=2)

    together = jax.vmap(draw, in_axes=(0, None))(keys, context)
    for key, samples in zip(keys, together, strict=True):
        np.testing.assert_array_equal(samples, code_map.sample(seed=key, sample_shape=2))


def test_values_broadcast_against_the_contexts():
    network, context = gated(num_blocks=1), context_of("vectors", 3)
    code_map, maps = distribution(network, context), maps_of(network, 2)
    log_prob = code_map.log_prob(maps[:, None])
    assert log_prob.shape == (2, 3)
    np.testing.assert_allclose(code_map.log_prob(maps[1]), log_prob[1], rtol=1e-5)


def test_bfloat16_networks_have_float32_probabilities_that_add_up():
    code_map = distribution(gated((1, 2), 3, num_blocks=1, dtype=jnp.bfloat16))
    maps = jnp.array(list(itertools.product(range(3), repeat=2))).reshape(-1, 1, 2)
    log_prob = code_map.log_prob(maps)
    assert log_prob.dtype == jnp.float32
    assert jnp.exp(log_prob).sum() == pytest.approx(1, abs=1e-5)
    _, of_samples = code_map.sample_and_log_prob(seed=KEY, sample_shape=2)
    assert of_samples.dtype == jnp.float32


def test_wrong_arguments_raise():
    network = gated(num_blocks=1)
    conditioner = Conditioner(network, initialised(network), None, 2)
    code_map = distributions.CodeMaps(conditioner)
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(2, 4, 3\)"):
        code_map.log_prob(jnp.zeros((2, 4, 3), jnp.int32))
    with pytest.raises(ValueError, match="integers, got float32"):
        code_map.log_prob(jnp.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        distributions.CodeMaps(conditioner, top_k=0)
    for top_p in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"top_p .* got {top_p}"):
            distributions.CodeMaps(conditioner, top_p=top_p)
    with pytest.raises(ValueError, match="event_ndims=1"):
        distributions.CodeMaps(Conditioner(network, {}, None, 1))
