"""Distances in feature maps, against the definition written out position by position."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import metrics

SHAPES = ((4, 6, 3), (2, 3, 5))


def random_maps(*batch, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(*batch, *shape)) for shape in SHAPES]


def slow_distance(first, second):
    """The equation, for maps of one image each."""
    total = 0.0
    for u, v in zip(first, second, strict=True):
        squares = []
        for place in np.ndindex(u.shape[:2]):
            one, other = u[place], v[place]
            one, other = one / np.sqrt(one @ one), other / np.sqrt(other @ other)
            squares.append(sum((one - other) ** 2))
        total += sum(squares) / len(squares)
    return total


def test_distances_are_those_of_the_equation():
    first, second = random_maps(2, 3), random_maps(2, 3, seed=1)
    result = metrics.perceptual_distance(first, second)
    assert result.shape == (2, 3)
    for place in np.ndindex(2, 3):
        one, other = ([layer[place] for layer in maps] for maps in (first, second))
        expected = slow_distance(one, other)
        assert result[place] == pytest.approx(expected, rel=1e-12)
        assert metrics.perceptual_distance(one, other) == pytest.approx(expected, rel=1e-12)


def test_diversity_is_the_mean_over_pairs():
    maps = random_maps(3, 4)
    pairs = [
        slow_distance([layer[place, i] for layer in maps], [layer[place, j] for layer in maps])
        for place in range(3)
        for i, j in itertools.combinations(range(4), 2)
    ]
    assert metrics.diversity(maps) == pytest.approx(np.mean(pairs), rel=1e-12)
    pair = [layer[:, :2] for layer in maps]
    distances = metrics.perceptual_distance(*([layer[:, k] for layer in pair] for k in (0, 1)))
    assert metrics.diversity(pair) == pytest.approx(distances.mean(), rel=1e-12)


def test_worked_values():
    # At one of two positions a right angle, 2, at the other the same direction, 0: their mean.
    first = np.array([[[3.0, 0.0], [1.0, 1.0]]])
    second = np.array([[[0.0, 0.5], [7.0, 7.0]]])
    assert metrics.perceptual_distance([first], [second]) == pytest.approx(1, rel=1e-15)
    assert metrics.perceptual_distance([first, first], [second, second]) == pytest.approx(2)
    assert metrics.perceptual_distance([first], [-first]) == pytest.approx(4, rel=1e-15)
    # Of three samples of one input two are alike: 2 of 3 pairs have a distance of 1.
    assert metrics.diversity([np.stack([first, second, first])[None]]) == pytest.approx(2 / 3)


def test_lengths_of_vectors_make_no_difference():
    maps, others = random_maps(2), random_maps(2, seed=1)
    expected = metrics.perceptual_distance(maps, others)
    lengths = [np.exp(np.random.default_rng(2).normal(size=(*m.shape[:-1], 1))) for m in maps]
    scaled = [layer * length for layer, length in zip(maps, lengths, strict=True)]
    for factor in (1e-300, 1.0, 1e300):
        result = metrics.perceptual_distance([layer * factor for layer in scaled], others)
        np.testing.assert_allclose(result, expected, rtol=1e-12)
    np.testing.assert_allclose(metrics.perceptual_distance(others, maps), expected, rtol=1e-15)


def test_vectors_of_zeros_stay_zeros():
    one = np.ones((1, 1, 4))
    assert metrics.perceptual_distance([0 * one], [0 * one]) == 0
    assert metrics.perceptual_distance([0 * one], [one]) == 1
    # The smallest number there is isn't zero.
    tiny = 5e-324 * np.eye(4)[:1, None]
    assert metrics.perceptual_distance([tiny], [np.eye(4)[:1, None]]) == 0


def test_equal_samples_have_no_diversity():
    alike = [np.repeat(layer[:, None], 7, axis=1) for layer in random_maps(3)]
    assert metrics.diversity(alike) == 0


def test_single_precision_loses_nothing_more():
    maps = [layer.astype(np.float32) for layer in random_maps(2, 3)]
    exact = metrics.diversity([layer.astype(np.float64) for layer in maps])
    assert metrics.diversity(maps) == exact
    assert metrics.diversity(list(map(jnp.asarray, maps))) == exact


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (random_maps(2), random_maps(3), r"the same shapes, got \[\[\(2, 4, 6, 3\), "),
        (random_maps(2), random_maps(2)[:1], "the same shapes"),
        ([], [], r"first must have one layer or more, .*, got \[\]"),
        ([np.ones((2, 2))], [np.ones((2, 2))], r"width, feature\], none empty, got \[\(2, 2\)\]"),
        ([np.ones((2, 0, 3))], [np.ones((2, 0, 3))], r"none empty, got \[\(2, 0, 3\)\]"),
        ([np.ones((2, 1, 1, 1)), np.ones((1, 1, 1))], random_maps(2), "of the same images"),
        (np.ones((2, 1, 1, 1)), np.ones((2, 1, 1, 1)), r"a sequence of layers, got one array of"),
        (
            random_maps(1),
            [layer * np.inf for layer in random_maps(1)],
            "second must be finite, got",
        ),
    ],
)
def test_wrong_maps_raise(first, second, message):
    with pytest.raises(ValueError, match=message):
        metrics.perceptual_distance(first, second)


def test_diversity_is_of_several_samples():
    for batch in ((), (3,), (3, 1), (1, 3, 2)):
        with pytest.raises(
            ValueError, match=r"maps must have shapes \[input, sample, .* 2 samples"
        ):
            metrics.diversity(random_maps(*batch))
    with pytest.raises(ValueError, match="maps must be finite, got 1 that aren't"):
        metrics.diversity([np.full((1, 2, 1, 1, 1), [[[[np.nan]]], [[[1.0]]]])])
