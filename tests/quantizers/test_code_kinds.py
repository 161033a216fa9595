"""Each kind of quantizer against exact references."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaeflow as vf
from tests.quantizers.quantizer_registry import numbers
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


def test_residuals_are_quantised_stage_by_stage():
    features = numbers(6, 5, 3)
    quantizer = ResidualQuantizer(4, num_stages=3, average=None)
    variables = jax.jit(quantizer.init)(KEY, features)
    codes = variables["params"]["codebook"]
    assert codes.shape == (3, 4, 3)
    result = quantizer.apply(variables, features)
    left, losses = features, 0.0
    for stage in range(3):
        squares = jnp.sum((left[..., None, :] - codes[stage]) ** 2, axis=-1)
        index = jnp.argmin(squares, axis=-1)
        np.testing.assert_array_equal(result.indices[..., stage], index)
        left = left - codes[stage][index]
        losses += jnp.mean(jnp.min(squares, axis=-1), axis=1)
        few = quantizer.apply(variables, result.indices[..., : stage + 1], method="lookup")
        np.testing.assert_allclose(few, features - left, rtol=1e-5, atol=1e-5)
    for name in ("commitment", "codebook"):
        np.testing.assert_allclose(result.losses[name], losses, rtol=1e-5)
    # What enters later stages was clustered too: each explains some of what is left.
    errors = [
        float(
            jnp.mean(
                (quantizer.apply(variables, result.indices[..., :n], method="lookup") - features)
                ** 2
            )
        )
        for n in (1, 2, 3)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_dropout_leaves_out_later_stages():
    features = numbers(64, 2, 3)
    quantizer = ResidualQuantizer(4, num_stages=3, average=None, dropout=True)
    variables = jax.jit(quantizer.init)(KEY, features)
    whole = quantizer.apply(variables, features)
    result = quantizer.apply(variables, features, jax.random.key(1), train=True)
    used = result.indices >= 0
    numbers_used = used.sum(-1)
    assert np.all(numbers_used == numbers_used[:, :1])
    assert np.all(np.bincount(numbers_used[:, 0], minlength=4)[1:] > 8)
    np.testing.assert_array_equal(used, np.arange(3) < numbers_used[..., None])
    np.testing.assert_array_equal(result.indices, np.where(used, whole.indices, -1))
    np.testing.assert_array_equal(result.counts.sum(-1), used.sum((0, 1)))
    first = quantizer.apply(variables, whole.indices[..., :1], method="lookup")
    one = numbers_used[:, 0] == 1
    np.testing.assert_allclose(result.values[one], first[one], rtol=1e-6)
    error = jnp.mean(jnp.sum((features - first) ** 2, axis=-1), axis=1)
    for name in ("commitment", "codebook"):
        np.testing.assert_allclose(result.losses[name][one], error[one], rtol=1e-5)
    with pytest.raises(ValueError, match="rng must be given for dropout, got None"):
        quantizer.apply(variables, features, train=True)


def test_a_stage_left_out_learns_nothing():
    features = numbers(8, 2, 3)
    quantizer = ResidualQuantizer(
        4, num_stages=3, average=MovingAverage(0.5, restart_below=0), dropout=True
    )
    variables = jax.jit(quantizer.init)(KEY, features)
    result, state = quantizer.apply(
        variables, features, jax.random.key(1), train=True, mutable=["codebook"]
    )
    expected = 0.5 * variables["codebook"]["counts"] + 0.5 * result.counts
    np.testing.assert_allclose(state["codebook"]["counts"], expected, rtol=1e-6)
    assert np.any(result.indices == -1)


def test_groups_are_quantizers_of_their_channels():
    features = numbers(6, 5, 4)
    one = VectorQuantizer(3, average=FIXED)
    grouped = GroupedQuantizer(one, num_groups=2)
    variables = jax.jit(grouped.init)(KEY, features)
    result, state = grouped.apply(variables, features, train=True, mutable=["codebook"])
    losses = 0.0
    for group in range(2):
        own = jax.tree.map(lambda leaf, g=group: leaf[g], variables["codebook"]["quantizer"])
        channels = features[..., 2 * group : 2 * group + 2]
        alone, after = one.apply({"codebook": own}, channels, train=True, mutable=["codebook"])
        np.testing.assert_allclose(result.values[..., 2 * group : 2 * group + 2], alone.values)
        np.testing.assert_array_equal(result.indices[..., group], alone.indices)
        np.testing.assert_array_equal(result.counts[group], alone.counts)
        losses += alone.losses["commitment"]
        jax.tree.map(
            lambda leaf, expected, g=group: np.testing.assert_allclose(
                leaf[g], expected, rtol=1e-6
            ),
            state["codebook"]["quantizer"],
            after["codebook"],
        )
    np.testing.assert_allclose(result.losses["commitment"], losses, rtol=1e-5)


def test_groups_sample_with_their_own_keys():
    features = jnp.zeros((50, 4))
    grouped = GroupedQuantizer(GumbelQuantizer(8), num_groups=2)
    variables = jax.jit(grouped.init)(KEY, features)
    indices = grouped.apply(variables, features, KEY, train=True, temperature=0.5).indices
    assert np.mean(indices[:, 0] == indices[:, 1]) < 0.4


@pytest.mark.parametrize("levels", [(2,), (3,), (5, 2, 4), (8, 7)])
def test_levels_are_reached_numbered_and_even(levels):
    quantizer = FiniteScalarQuantizer(levels)
    axes = [np.linspace(-9, 9, 181)] * len(levels)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)[None].astype(np.float32)
    if len(levels) == 3:
        grid = grid[:, ::6, ::6, ::6]
    result = jax.jit(quantizer.apply)({}, grid)
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
    codes = quantizer.apply({}, jnp.arange(quantizer.num_codes), method="lookup")
    np.testing.assert_allclose(codes, expected, rtol=1e-6)
    assert result.losses == {}
    np.testing.assert_array_equal(quantizer.apply({}, jnp.zeros((1, len(levels)))).values, 0)
    # A level takes the features whose bounded value rounds to it.
    x = np.asarray(grid[0, ..., 0], np.float64)
    half = 1.001 * (levels[0] - 1) / 2
    below = 0.5 * (levels[0] % 2 == 0)
    bounded = half * np.tanh(x + np.arctanh(below / half)) - below
    clear = np.abs(bounded - np.floor(bounded) - 0.5) > 1e-4
    values = np.asarray(result.values[0, ..., 0]) * (levels[0] // 2)
    np.testing.assert_allclose(values[clear], np.round(bounded)[clear], atol=1e-6)


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

    def mean(features):
        return jnp.mean(quantizer.apply({}, features).losses["entropy"])

    result = jax.jit(jax.value_and_grad(mean))(features)
    expected = jax.jit(jax.value_and_grad(entropies), static_argnums=(1, 2))(features, bits, 3.0)
    for ours, theirs in zip(result, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    bad = quantizer.apply({}, features.at[2].set(jnp.nan)).losses["entropy"]
    others = jnp.delete(features, 2, axis=0)
    np.testing.assert_allclose(jnp.nanmean(bad), entropies(others, bits, 3.0), rtol=1e-4)


def test_entropy_gradient_of_a_divided_batch_is_that_of_the_full_batch():
    features = numbers(6, 2, 3)
    quantizer = LookupFreeQuantizer(3, 3.0)
    axis = vf.Axis("data")

    def mean(features, axis):
        return jnp.mean(quantizer.apply({}, features, axis=axis).losses["entropy"])

    whole = jax.jit(jax.grad(lambda x: mean(x, vf.LOCAL)))(features)
    # Training averages the gradients of parts.
    gradient = jax.vmap(jax.grad(lambda x: mean(x, axis)), axis_name="data")
    parts = jax.jit(gradient)(features.reshape(3, 2, 2, 3))
    np.testing.assert_allclose(parts.reshape(6, 2, 3) / 3, whole, rtol=1e-4, atol=1e-7)


def test_signs_are_bits():
    features = jnp.array([[-0.5, 0.0, 2.0], [1e-30, -1.0, -1.0]])
    result = LookupFreeQuantizer(3).apply({}, features)
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
    features = jnp.broadcast_to(numbers(3), (4000, 5, 3))
    quantizer = GumbelQuantizer(4)
    variables = jax.jit(quantizer.init)(KEY, features)
    logits = np.asarray(features[0, 0] @ variables["params"]["logits"]["kernel"], np.float64)
    probability = np.exp(logits) / np.exp(logits).sum()
    result = jax.jit(lambda *a: quantizer.apply(*a, train=True))(variables, features, KEY)
    error = np.sqrt(probability * (1 - probability) / 20_000)
    assert np.all(np.abs(result.counts / 20_000 - probability) < 4.5 * error)
    kl = np.sum(probability * np.log(4 * probability))
    np.testing.assert_allclose(result.losses["kl"], 5 * kl, rtol=1e-4)
    best = quantizer.apply(variables, features[:1]).indices
    np.testing.assert_array_equal(best, np.argmax(logits))


def test_relaxed_samples_approach_their_codes():
    features = numbers(40, 3)
    hard, relaxed = GumbelQuantizer(4), GumbelQuantizer(4, hard=False)
    variables = jax.jit(hard.init)(KEY, features)

    def values(quantizer, temperature):
        call = jax.jit(functools.partial(quantizer.apply, train=True))
        return call(variables, features, KEY, temperature=temperature).values

    def distance(temperature):
        return float(jnp.mean(jnp.abs(values(relaxed, temperature) - values(hard, 1.0))))

    assert distance(1.0) > 3 * distance(0.1) > 0
    assert distance(1e-4) < 1e-3

    # In training the gradient of the code is that of the relaxed sample.
    def total(features, quantizer):
        return jnp.sum(
            quantizer.apply(variables, features, KEY, train=True, temperature=0.7).values ** 3
        )

    def of_relaxed(features):
        soft = relaxed.apply(variables, features, KEY, train=True, temperature=0.7).values
        return jnp.sum(3 * values(hard, 0.7) ** 2 * soft)

    np.testing.assert_allclose(
        jax.grad(total)(features, hard), jax.grad(of_relaxed)(features), rtol=1e-4, atol=1e-5
    )


def test_rotations_are_defined_at_opposite_and_zero_vectors():
    x = jnp.array([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0], [1e-30, 0.0], [1.0, 1e-4]])
    codes = jnp.array([[-0.5, -1.0], [1.0, 0.0], [0.0, 0.0], [2.0, 1.0], [-1.0, 0.0]])
    values, pull = jax.vjp(lambda x: rotation_trick(x, codes), x)
    np.testing.assert_array_equal(values, codes)
    cotangent = jnp.ones_like(x)
    gradient = pull(cotangent)[0]
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
        quantizer.init(KEY, BATCH)


def test_missing_rng_raises():
    for quantizer, message in (
        (VectorQuantizer(3), "VectorQuantizer: rng must be given for restarts of codes, got None"),
        (ResidualQuantizer(3, num_stages=2), "rng must be given for restarts of codes"),
        (GumbelQuantizer(3), "rng must be given for samples in training"),
    ):
        variables = jax.jit(quantizer.init)(KEY, BATCH)
        with pytest.raises(ValueError, match=message):
            quantizer.apply(variables, BATCH, train=True, mutable=["codebook"])
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        quantizer.apply(variables, BATCH, KEY, temperature=0)
    for field, value in (("decay", 1.0), ("restart_below", -0.1), ("epsilon", 0.0)):
        with pytest.raises(ValueError, match=f"MovingAverage: {field} must be .*, got {value}"):
            MovingAverage(**{field: value})
