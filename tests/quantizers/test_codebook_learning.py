"""Moving averages, restarts and clusters against slow ones in numpy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow._util.arrays import Axis
from vaeflow.quantizers import MovingAverage, ResidualQuantizer, VectorQuantizer

CODES, ROWS, POSITIONS, CHANNELS = 7, 5, 4, 3


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def codes_by_hand(average, counts, sums):
    total = counts.sum()
    smooth = (counts + average.epsilon) / (total + len(counts) * average.epsilon) * total
    return sums / smooth[:, None]


@jax.jit
def keys_of(step):
    return jax.random.split(jax.random.key(step), ROWS)


@jax.jit
def bits_of(keys):
    return jax.vmap(lambda key: jax.random.bits(key, (POSITIONS,)))(keys)


def noise_of(keys):
    return np.asarray(bits_of(keys)).reshape(-1).astype(np.int64)


def search(vectors, codes):
    return [int(np.argmin(np.sum((codes - x) ** 2, axis=1))) for x in vectors]


def train(quantizer):
    """From variables, features and keys to the result and new averages."""
    return jax.jit(functools.partial(quantizer.apply, train=True, mutable=["codebook"]))


class Reference:
    """The averages of one codebook, one latent and one code at a time."""

    def __init__(self, average, state):
        self.average = average
        self.counts, self.sums = (np.asarray(state[name], np.float64) for name in state)
        self.restarts = []

    @property
    def codes(self):
        return codes_by_hand(self.average, self.counts, self.sums)

    def update(self, vectors, indices, candidates):
        decay = self.average.decay
        self.counts *= decay
        self.sums *= decay
        for x, index in zip(vectors, indices, strict=True):
            self.counts[index] += 1 - decay
            self.sums[index] += (1 - decay) * x
        even = self.counts.sum() / len(self.counts)
        candidates = list(candidates)
        for code in np.flatnonzero(self.counts < self.average.restart_below * even):
            if candidates:
                self.sums[code] = even * candidates.pop(0)
                self.counts[code] = even
                self.restarts.append(code)


def batches(count, seed=1):
    """Features whose distribution moves, so that codes die, the second with bad latents."""
    for step in range(count):
        features = numbers(ROWS, POSITIONS, CHANNELS, seed=seed + step)
        features[..., 0] += 3.0 * step
        if step == 1:
            features[1, 2, 0], features[3] = np.nan, np.inf
        yield features, keys_of(100 + step)


def usable(features, keys):
    """The finite vectors, and those at which codes restart, in turn."""
    vectors = np.asarray(features, np.float64).reshape(-1, CHANNELS)
    finite = np.isfinite(vectors).all(axis=1)
    order = np.argsort(-noise_of(keys))
    return vectors, finite, [place for place in order if finite[place]]


@pytest.mark.parametrize("average", [MovingAverage(0.5, 1e-3, 0.4), MovingAverage(0.8, 1e-5, 0.0)])
def test_averages_and_restarts_are_those_of_the_formulas(average):
    quantizer = VectorQuantizer(CODES, average=average)
    variables = jax.jit(quantizer.init)(jax.random.key(0), next(batches(1))[0])
    reference = Reference(average, variables["codebook"])
    np.testing.assert_array_equal(reference.counts, 1)
    step = train(quantizer)
    for features, keys in batches(6):
        vectors, finite, order = usable(features, keys)
        indices = search(vectors[finite], reference.codes)
        found, variables = step(variables, features, keys)
        np.testing.assert_array_equal(found.indices.reshape(-1)[finite], indices)
        reference.update(vectors[finite], indices, vectors[order])
        np.testing.assert_allclose(variables["codebook"]["counts"], reference.counts, rtol=1e-5)
        np.testing.assert_allclose(
            variables["codebook"]["sums"], reference.sums, rtol=1e-5, atol=1e-5
        )
    assert (len(reference.restarts) > 3) == (average.restart_below > 0)


@jax.jit
def restart(sums, features, keys):
    """Counts and codes after a step in which every code that no latent uses restarts."""
    quantizer = VectorQuantizer(CODES, average=MovingAverage(0.9, restart_below=0.99))
    variables = {"codebook": {"counts": jnp.ones(CODES), "sums": sums}}
    _, variables = train(quantizer)(variables, features, keys)
    codes = quantizer.apply(variables, jnp.arange(CODES), method="lookup")
    return variables["codebook"]["counts"], codes


def far_codes(first):
    """Codes that are all far off, and so unused, but for the first."""
    codes = np.full((CODES, CHANNELS), 1e3, np.float32)
    codes[0] = first
    return codes


def test_a_restarted_code_is_a_vector_of_the_batch():
    features, keys = next(batches(1))
    counts, codes = jax.device_get(restart(far_codes(features[0, 0]), features, keys))
    vectors, _, order = usable(features, keys)
    np.testing.assert_allclose(codes[1:], vectors[order[: CODES - 1]], rtol=1e-5)
    np.testing.assert_allclose(counts[1:], 0.1 * 20 / 7 + 0.9, rtol=1e-5)


def test_more_dead_codes_than_latents_restart_as_far_as_these_go():
    features, keys = next(batches(1))
    features[2:] = features[:, 2:] = np.nan
    _, codes = jax.device_get(restart(far_codes(0), features, keys))
    assert np.all(np.isfinite(codes))
    np.testing.assert_allclose(
        np.sort(codes[1:5], axis=0),
        np.sort(features[:2, :2].reshape(4, CHANNELS), axis=0),
        rtol=1e-4,
    )
    np.testing.assert_allclose(codes[5:], 1e3, rtol=1e-4)


@jax.jit
def start(features):
    """Codes before the first iteration of clustering and after the third."""
    quantizers = (
        VectorQuantizer(CODES, average=None, k_means_iterations=iterations) for iterations in (0, 3)
    )
    return [
        quantizer.init(jax.random.key(0), features)["params"]["codebook"]
        for quantizer in quantizers
    ]


def test_codes_start_at_distinct_rows_and_become_means_of_clusters():
    features = numbers(ROWS, POSITIONS, CHANNELS)
    features[0, 0] = np.nan
    vectors = np.asarray(features, np.float64).reshape(-1, CHANNELS)[1:]
    means, found = (np.asarray(codes, np.float64) for codes in start(features))
    rows = [int(np.flatnonzero(np.all(np.float32(vectors) == row, axis=1))[0]) for row in means]
    assert len(set(rows)) == CODES
    for _ in range(3):
        indices = np.array(search(vectors, means))
        means = np.stack(
            [
                vectors[indices == code].mean(0) if np.any(indices == code) else means[code]
                for code in range(CODES)
            ]
        )
    np.testing.assert_allclose(found, means, rtol=1e-5, atol=1e-6)


def test_rows_that_count_are_taken_again_where_others_do_not():
    features = numbers(ROWS, POSITIONS, CHANNELS)
    features[1:] = np.nan
    codes = np.asarray(start(features)[0])
    assert {tuple(row) for row in codes} == {tuple(row) for row in features[0]}


def test_directions_are_clustered_on_the_sphere():
    features = np.exp(numbers(ROWS, POSITIONS, 1)) * numbers(ROWS, POSITIONS, CHANNELS, seed=1)
    quantizer = VectorQuantizer(CODES, average=MovingAverage(0.5), cosine=True)

    @jax.jit
    def evaluate(features):
        variables = quantizer.init(jax.random.key(0), features)
        codes = quantizer.apply(variables, jnp.arange(CODES), method="lookup")
        return variables["codebook"]["sums"], codes, quantizer.apply(variables, features)

    sums, codes, found = jax.device_get(evaluate(features))
    np.testing.assert_allclose(np.linalg.norm(sums, axis=1), 1, rtol=1e-5)
    direction = features / np.linalg.norm(features, axis=-1, keepdims=True)
    np.testing.assert_array_equal(found.indices, np.argmax(direction @ codes.T, axis=-1))
    expected = np.mean(2 - 2 * np.sum(found.values * direction, axis=-1), axis=1)
    np.testing.assert_allclose(found.losses["commitment"], expected, rtol=1e-4, atol=1e-6)


def test_losses_are_squared_distances_of_each_example():
    features = numbers(ROWS, 2, 2, CHANNELS)
    quantizer = VectorQuantizer(3, average=None)

    @jax.jit
    def evaluate(features):
        variables = quantizer.init(jax.random.key(0), features)

        def total(variables, features, name):
            return jnp.sum(quantizer.apply(variables, features).losses[name])

        gradients = {
            name: jax.grad(total, (0, 1))(variables, features, name)
            for name in ("commitment", "codebook")
        }
        return variables, quantizer.apply(variables, features), gradients

    variables, found, gradients = jax.device_get(evaluate(features))
    difference = features - variables["params"]["codebook"][found.indices]
    expected = np.mean(np.sum(np.square(difference), axis=-1), axis=(1, 2))
    for name in ("commitment", "codebook"):
        np.testing.assert_allclose(found.losses[name], expected, rtol=1e-5)
    gradient, features_gradient = gradients["commitment"]
    np.testing.assert_allclose(features_gradient, 2 * difference / 4, rtol=1e-4, atol=1e-6)
    assert not np.any(gradient["params"]["codebook"])
    gradient, features_gradient = gradients["codebook"]
    assert not np.any(features_gradient)
    by_code = np.zeros((3, CHANNELS))
    np.add.at(by_code, found.indices, -2 * difference / 4)
    np.testing.assert_allclose(gradient["params"]["codebook"], by_code, rtol=1e-4, atol=1e-5)


def test_shared_codes_learn_from_all_stages():
    average, stages = MovingAverage(0.5, 1e-3, 0.9), 3
    quantizer = ResidualQuantizer(CODES, num_stages=stages, average=average, shared=True)
    variables = jax.jit(quantizer.init)(jax.random.key(0), next(batches(1))[0])
    reference, step = Reference(average, variables["codebook"]), train(quantizer)
    for features, keys in batches(3):
        vectors, finite, order = usable(features, keys)
        codes, entering, indices = reference.codes, [], []
        left = np.where(finite[:, None], vectors, 0)
        for _ in range(stages):
            entering.append(left)
            indices.append(search(left, codes))
            left = left - codes[indices[-1]]
        _, variables = step(variables, features, keys)
        candidates = [entering[turn % stages][place] for turn, place in enumerate(order)]
        reference.update(
            np.concatenate([part[finite] for part in entering]),
            np.concatenate([np.array(part)[finite] for part in indices]),
            candidates[:CODES],
        )
        np.testing.assert_allclose(variables["codebook"]["counts"], reference.counts, rtol=1e-5)
        np.testing.assert_allclose(
            variables["codebook"]["sums"], reference.sums, rtol=1e-4, atol=1e-4
        )
    assert len(reference.restarts) > 2 * stages


def test_training_uses_codes_that_would_have_died():
    """Two far clusters, all codes at one of them: restarts reach the other."""
    features = np.where(np.arange(ROWS)[:, None, None] < 2, np.float32(5), np.float32(-5))
    features = features + 0.1 * numbers(ROWS, POSITIONS, CHANNELS)
    sums = np.full((4, CHANNELS), 5.0, np.float32)
    sums[1:] += 100.0
    used = {}
    for share in (0.0, 0.2):
        step = train(VectorQuantizer(4, average=MovingAverage(0.5, restart_below=share)))
        variables = {"codebook": {"counts": np.ones(4, np.float32), "sums": sums}}
        for count in range(8):
            found, variables = step(variables, features, jax.random.key(count))
        used[share] = int(np.sum(np.asarray(found.counts) > 0))
    assert used == {0.0: 1, 0.2: 4}


@pytest.mark.parametrize(
    "quantizer",
    [VectorQuantizer(CODES), ResidualQuantizer(CODES, num_stages=2, average=None)],
    ids=["one", "stages"],
)
def test_codes_start_from_all_of_a_divided_batch(quantizer):
    @jax.jit
    def initial(features):
        key = jax.random.key(0)
        init = functools.partial(quantizer.init, axis=Axis("data"))
        parts = features.reshape(2, 2, POSITIONS, CHANNELS)
        divided = jax.vmap(init, (None, 0), axis_name="data")(key, parts)
        return divided, quantizer.init(key, features)

    divided, whole = jax.device_get(initial(numbers(4, POSITIONS, CHANNELS)))
    for index in range(2):
        jax.tree.map(
            lambda leaf, expected, i=index: np.testing.assert_allclose(leaf[i], expected),
            divided,
            whole,
        )
