"""Each kind of quantizer against exact references."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vaeflow as vf
from vaeflow.quantizers import (
    FiniteScalarQuantizer,
    GroupedQuantizer,
    GumbelQuantizer,
    LookupFreeQuantizer,
    MovingAverage,
    ResidualQuantizer,
    VectorQuantizer,
    rotation_trick,
)

KEY = jax.random.key(2)
FIXED = MovingAverage(restart_below=0)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_residuals_are_quantised_stage_by_stage():
    features = numbers(6, 5, 3)
    quantizer = ResidualQuantizer(4, num_stages=3, average=None)

    @jax.jit
    def evaluate(features):
        variables = quantizer.init(KEY, features)
        result = quantizer.apply(variables, features)
        stages = [result.indices[..., : stage + 1] for stage in range(3)]
        few = [quantizer.apply(variables, indices, method="lookup") for indices in stages]
        return variables["params"]["codebook"], result, few

    codes, result, few = jax.device_get(evaluate(features))
    assert codes.shape == (3, 4, 3)
    left, losses, errors = features, 0.0, []
    for stage in range(3):
        squares = np.sum((left[..., None, :] - codes[stage]) ** 2, axis=-1)
        index = np.argmin(squares, axis=-1)
        np.testing.assert_array_equal(result.indices[..., stage], index)
        left = left - codes[stage][index]
        losses += np.mean(np.min(squares, axis=-1), axis=1)
        np.testing.assert_allclose(few[stage], features - left, rtol=1e-5, atol=1e-5)
        errors.append(np.mean((few[stage] - features) ** 2))
    for name in ("commitment", "codebook"):
        np.testing.assert_allclose(result.losses[name], losses, rtol=1e-5)
    # What enters later stages was clustered too: each explains some of what is left.
    assert errors[0] > errors[1] > errors[2]


def test_dropout_leaves_out_later_stages():
    features = numbers(64, 2, 3)
    quantizer = ResidualQuantizer(4, num_stages=3, average=None, dropout=True)

    @jax.jit
    def evaluate(features):
        variables = quantizer.init(KEY, features)
        whole = quantizer.apply(variables, features)
        result = quantizer.apply(variables, features, jax.random.key(1), train=True)
        first = quantizer.apply(variables, whole.indices[..., :1], method="lookup")
        return whole, result, first

    whole, result, first = jax.device_get(evaluate(features))
    used = result.indices >= 0
    numbers_used = used.sum(-1)
    assert np.all(numbers_used == numbers_used[:, :1])
    assert np.all(np.bincount(numbers_used[:, 0], minlength=4)[1:] > 8)
    np.testing.assert_array_equal(used, np.arange(3) < numbers_used[..., None])
    np.testing.assert_array_equal(result.indices, np.where(used, whole.indices, -1))
    np.testing.assert_array_equal(result.counts.sum(-1), used.sum((0, 1)))
    one = numbers_used[:, 0] == 1
    np.testing.assert_allclose(result.values[one], first[one], rtol=1e-6)
    error = np.mean(np.sum((features - first) ** 2, axis=-1), axis=1)
    for name in ("commitment", "codebook"):
        np.testing.assert_allclose(result.losses[name][one], error[one], rtol=1e-5)


def test_a_stage_left_out_learns_nothing():
    features = numbers(8, 2, 3)
    quantizer = ResidualQuantizer(
        4, num_stages=3, average=MovingAverage(0.5, restart_below=0), dropout=True
    )

    @jax.jit
    def learn(features):
        before = quantizer.init(KEY, features)
        key = jax.random.key(1)
        result, after = quantizer.apply(before, features, key, train=True, mutable=["codebook"])
        return before["codebook"]["counts"], result, after["codebook"]["counts"]

    before, result, after = jax.device_get(learn(features))
    np.testing.assert_allclose(after, 0.5 * before + 0.5 * result.counts, rtol=1e-6)
    assert np.any(result.indices == -1)


def test_groups_are_quantizers_of_their_channels():
    features = numbers(6, 5, 4)
    one = VectorQuantizer(3, average=FIXED)
    grouped = GroupedQuantizer(one, num_groups=2)

    def learn(quantizer, variables, features):
        return quantizer.apply(variables, features, train=True, mutable=["codebook"])

    @jax.jit
    def evaluate(features):
        variables = grouped.init(KEY, features)
        apart = []
        for group, channels in enumerate(jnp.split(features, 2, axis=-1)):
            own = jax.tree.map(lambda leaf, g=group: leaf[g], variables["codebook"]["quantizer"])
            apart.append(learn(one, {"codebook": own}, channels))
        return learn(grouped, variables, features), apart

    (result, state), apart = jax.device_get(evaluate(features))
    for group, (alone, after) in enumerate(apart):
        np.testing.assert_allclose(result.values[..., 2 * group : 2 * group + 2], alone.values)
        np.testing.assert_array_equal(result.indices[..., group], alone.indices)
        np.testing.assert_array_equal(result.counts[group], alone.counts)
        jax.tree.map(
            lambda leaf, expected, g=group: np.testing.assert_allclose(
                leaf[g], expected, rtol=1e-6
            ),
            state["codebook"]["quantizer"],
            after["codebook"],
        )
    losses = sum(alone.losses["commitment"] for alone, _ in apart)
    np.testing.assert_allclose(result.losses["commitment"], losses, rtol=1e-5)


def test_groups_sample_with_their_own_keys():
    grouped = GroupedQuantizer(GumbelQuantizer(8), num_groups=2)

    @jax.jit
    def sample(features):
        variables = grouped.init(KEY, features)
        return grouped.apply(variables, features, KEY, train=True, temperature=0.5).indices

    indices = np.asarray(sample(np.zeros((50, 4), np.float32)))
    assert np.mean(indices[:, 0] == indices[:, 1]) < 0.4


@pytest.mark.parametrize("levels", [(2,), (3,), (5, 2, 4), (8, 7)])
def test_levels_are_reached_numbered_and_even(levels):
    quantizer = FiniteScalarQuantizer(levels)
    axes = [np.linspace(-9, 9, 181)] * len(levels)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)[None].astype(np.float32)
    if len(levels) == 3:
        grid = grid[:, ::6, ::6, ::6]

    @jax.jit
    def evaluate(grid):
        codes = quantizer.apply({}, jnp.arange(quantizer.num_codes), method="lookup")
        zero = quantizer.apply({}, jnp.zeros((1, len(levels)))).values
        return quantizer.apply({}, grid), codes, zero

    result, codes, zero = jax.device_get(evaluate(grid))
    assert quantizer.num_codes == np.prod(levels)
    assert np.all(result.counts > 0)
    expected = []
    for digits in itertools.product(*(range(count) for count in reversed(levels))):
        expected.append(
            [
                (digit - count // 2) / (count // 2)
                for digit, count in zip(reversed(digits), levels, strict=True)
            ]
        )
    np.testing.assert_allclose(codes, expected, rtol=1e-6)
    assert result.losses == {}
    np.testing.assert_array_equal(zero, 0)
    # A level takes the features whose bounded value rounds to it.
    x = np.asarray(grid[0, ..., 0], np.float64)
    half = 1.001 * (levels[0] - 1) / 2
    below = 0.5 * (levels[0] % 2 == 0)
    shift = 0 if levels[0] == 2 else np.arctanh(below / half)
    bounded = half * np.tanh(x + shift) - below
    clear = np.abs(bounded - np.floor(bounded) - 0.5) > 1e-4
    values = np.asarray(result.values[0, ..., 0]) * (levels[0] // 2)
    np.testing.assert_allclose(values[clear], np.round(bounded)[clear], atol=1e-6)


def test_every_number_of_levels_is_centered_used_evenly_and_passes_gradients():
    quantizer = FiniteScalarQuantizer((2,))
    # Quantiles of a standard normal, in the middle of equal shares of it.
    shares = (np.arange(4000) + 0.5) / 4000
    normal = scipy.stats.norm.ppf(shares).astype(np.float32).reshape(1, -1, 1)

    @jax.jit
    def all_numbers(features):
        def run(levels):
            def values(x):
                result = quantizer.clone(levels=(levels,)).apply({}, x)
                return jnp.sum(result.values), result

            slope, result = jax.grad(values, has_aux=True)(features)
            return result.counts, result.values[0, :, 0], slope[0, :, 0]

        return {levels: run(levels) for levels in range(2, 18)}

    for levels, (counts, values, slopes) in jax.device_get(all_numbers(normal)).items():
        use = levels * counts / len(shares)
        assert 0.4 < use.min() <= use.max() < 1.6, levels
        # Half of the features on each side of the center: of a level, or between the two.
        middle = np.searchsorted(np.cumsum(counts) / len(shares), 0.5)
        assert middle == (0 if levels == 2 else levels // 2), levels
        if levels % 2 or levels == 2:
            np.testing.assert_allclose(counts, counts[::-1], atol=2)
        assert abs(np.mean(values) - (-0.5 if levels == 2 else 0)) < 0.15, levels
        assert slopes.min() >= 0
        assert slopes[len(slopes) // 2] > 0.5, levels
        assert slopes.mean() > 0.3, levels


def entropies(features, bits, temperature):
    """E[H(q(c | x))] - H(E[q(c | x)]), over every corner."""
    corners = 2.0 * (np.arange(2**bits)[:, None] >> np.arange(bits) & 1) - 1
    square = jnp.sum((features[..., None, :] - corners) ** 2, axis=-1)
    q = jax.nn.softmax(-square / temperature, axis=-1).reshape(-1, 2**bits)
    average = jnp.mean(q, axis=0)
    return -jnp.mean(jnp.sum(q * jnp.log(q), axis=-1)) + jnp.sum(average * jnp.log(average))


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_entropies_are_those_over_every_corner(bits):
    features = numbers(6, 4, bits)
    quantizer = LookupFreeQuantizer(bits, 3.0)

    def losses(features):
        return quantizer.apply({}, features).losses["entropy"]

    @jax.jit
    def evaluate(features):
        ours = jax.value_and_grad(lambda x: jnp.mean(losses(x)))(features)
        theirs = jax.value_and_grad(entropies)(features, bits, 3.0)
        bad = losses(features.at[2].set(jnp.nan))
        return ours, theirs, bad, entropies(jnp.delete(features, 2, axis=0), bits, 3.0)

    result, expected, bad, of_others = jax.device_get(evaluate(features))
    for ours, theirs in zip(result, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.nanmean(bad), of_others, rtol=1e-4)


def test_entropy_gradient_of_a_divided_batch_is_that_of_the_full_batch():
    features = numbers(6, 2, 3)
    quantizer = LookupFreeQuantizer(3, 3.0)
    axis = vf.Axis("data")

    def mean(features, axis):
        return jnp.mean(quantizer.apply({}, features, axis=axis).losses["entropy"])

    @jax.jit
    def gradients(features):
        whole = jax.grad(lambda x: mean(x, vf.LOCAL))(features)
        # Training averages the gradients of parts.
        gradient = jax.vmap(jax.grad(lambda x: mean(x, axis)), axis_name="data")
        return whole, gradient(features.reshape(3, 2, 2, 3)).reshape(6, 2, 3) / 3

    whole, parts = gradients(features)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-7)


def test_signs_are_bits():
    features = np.float32([[-0.5, 0.0, 2.0], [1e-30, -1.0, -1.0]])
    result = jax.jit(LookupFreeQuantizer(3).apply)({}, features)
    np.testing.assert_array_equal(result.indices, [4, 1])
    np.testing.assert_array_equal(result.values, [[-1, -1, 1], [1, -1, -1]])
    expected = [0.25 + 1 + 1, 1]
    np.testing.assert_allclose(result.losses["commitment"], expected, rtol=1e-6)


def test_eighteen_bits_take_little_memory():
    quantizer = LookupFreeQuantizer(18)
    features = jax.ShapeDtypeStruct((1024, 18), jnp.float32)
    compiled = jax.jit(lambda x: quantizer.apply({}, x).losses).lower(features).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1024 * 2**18 * 4 / 20


def test_codes_are_sampled_with_their_probabilities():
    features = np.broadcast_to(numbers(3), (4000, 5, 3))
    quantizer = GumbelQuantizer(4)

    @jax.jit
    def evaluate(features):
        variables = quantizer.init(KEY, features)
        best = quantizer.apply(variables, features[:1]).indices
        return variables, quantizer.apply(variables, features, KEY, train=True), best

    variables, result, best = jax.device_get(evaluate(features))
    kernel = np.float64(variables["params"]["logits"]["kernel"])
    logits = features[0, 0] @ kernel
    probability = np.exp(logits) / np.exp(logits).sum()
    error = np.sqrt(probability * (1 - probability) / 20_000)
    assert np.all(np.abs(result.counts / 20_000 - probability) < 4.5 * error)
    kl = np.sum(probability * np.log(4 * probability))
    np.testing.assert_allclose(result.losses["kl"], 5 * kl, rtol=1e-4)
    np.testing.assert_array_equal(best, np.argmax(logits))


def test_relaxed_samples_approach_their_codes():
    quantizers = {"hard": GumbelQuantizer(4), "relaxed": GumbelQuantizer(4, hard=False)}

    @jax.jit
    def evaluate(features, temperature):
        variables = quantizers["hard"].init(KEY, features)

        def values(features, name):
            options = {"train": True, "temperature": temperature}
            return quantizers[name].apply(variables, features, KEY, **options).values

        codes = values(features, "hard")
        # In training the gradient of the code is that of the relaxed sample.
        own = jax.grad(lambda x: jnp.sum(values(x, "hard") ** 3))
        expected = jax.grad(lambda x: jnp.sum(3 * codes**2 * values(x, "relaxed")))
        return codes, values(features, "relaxed"), own(features), expected(features)

    features = numbers(40, 3)
    codes = np.asarray(evaluate(features, 1.0)[0])

    def distance(temperature):
        return np.mean(np.abs(np.asarray(evaluate(features, temperature)[1]) - codes))

    assert distance(1.0) > 3 * distance(0.1) > 0
    assert distance(1e-4) < 1e-3
    _, _, own, expected = evaluate(features, 0.7)
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5)


def test_rotations_are_defined_at_opposite_and_zero_vectors():
    x = np.float32([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0], [1e-30, 0.0], [1.0, 1e-4]])
    codes = np.float32([[-0.5, -1.0], [1.0, 0.0], [0.0, 0.0], [2.0, 1.0], [-1.0, 0.0]])
    cotangent = np.ones_like(x)

    @jax.jit
    def rotate(x):
        values, pull = jax.vjp(lambda x: rotation_trick(x, codes), x)
        return values, pull(cotangent)[0]

    values, gradient = jax.device_get(rotate(x))
    np.testing.assert_array_equal(values, codes)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[1:3], cotangent[1:3])
    lengths = np.linalg.norm(np.asarray(gradient, np.float64), axis=1) / np.sqrt(2)
    expected = [0.5, 1, 1, np.sqrt(5) * 1e30, 1]
    np.testing.assert_allclose(lengths, expected, rtol=1e-3)


BATCH = numbers(5, 4)


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (VectorQuantizer(0), "codes must be in 1..16777216, got 0"),
        (VectorQuantizer(6), "a latent for each of the 6 codes, got 5 latents"),
        (ResidualQuantizer(6, num_stages=2), "a latent for each of the 6 codes, got 5 latents"),
        (ResidualQuantizer(3, num_stages=0), "stages must be at least 1, got 0"),
        (GroupedQuantizer(VectorQuantizer(3), num_groups=3), r"got 3 groups for shape \(5, 4\)"),
        (GroupedQuantizer(VectorQuantizer(3), num_groups=0), r"got 0 groups for shape \(5, 4\)"),
        (FiniteScalarQuantizer((3, 3, 3, 1)), r"got \(3, 3, 3, 1\)"),
        (FiniteScalarQuantizer((99, 99, 99, 99)), r"at most 16777216, got \(99, 99, 99, 99\)"),
        (LookupFreeQuantizer(25), "bits must be in 1..24, got 25"),
        (LookupFreeQuantizer(4, 0.0), "temperature must be above 0, got 0.0"),
        (GumbelQuantizer(0), "codes must be in 1..16777216, got 0"),
    ],
    ids=str,
)
def test_fields_out_of_range_raise(quantizer, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(quantizer.init, KEY, BATCH)


def evaluate_shapes(quantizer, *rng, **options):
    def evaluate():
        variables = quantizer.init(KEY, BATCH)
        return quantizer.apply(variables, BATCH, *rng, mutable=["codebook"], **options)

    jax.eval_shape(evaluate)


def test_missing_rng_raises():
    dropped = ResidualQuantizer(3, num_stages=2, average=None, dropout=True)
    for quantizer, message in (
        (VectorQuantizer(3), "VectorQuantizer: rng must be given for restarts of codes, got None"),
        (ResidualQuantizer(3, num_stages=2), "rng must be given for restarts of codes"),
        (dropped, "rng must be given for dropout, got None"),
        (GumbelQuantizer(3), "rng must be given for samples in training"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_shapes(quantizer, train=True)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        evaluate_shapes(GumbelQuantizer(3), KEY, temperature=0)
    for field, value in (("decay", 1.0), ("restart_below", -0.1), ("epsilon", 0.0)):
        with pytest.raises(ValueError, match=f"MovingAverage: {field} must be .*, got {value}"):
            MovingAverage(**{field: value})
