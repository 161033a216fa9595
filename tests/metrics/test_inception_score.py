"""Scores of classified samples: worked examples, and the definition written out."""

import numpy as np
import pytest

from vaeflow import metrics


def divergence(rows):
    """The mean of KL(row || mean of the rows), as it is defined."""
    return np.mean(np.sum(rows * np.log(rows / rows.mean(axis=0)), axis=1))


def random_rows(*shape):
    rows = np.random.default_rng(0).gamma(0.5, size=shape) + 1e-9
    return rows / rows.sum(axis=-1, keepdims=True)


def test_sure_and_even_samples_count_the_classes():
    sure = np.eye(5)[np.arange(20) % 4]  # one class never occurs
    assert metrics.inception_score(sure) == pytest.approx(4, rel=1e-12)
    assert metrics.inception_score(np.eye(3)[[1, 1, 1]]) == 1
    assert metrics.inception_score(np.full((6, 3), 1 / 3)) == pytest.approx(1, rel=1e-12)
    # Two sure of one class, one of another: exp(-2/3 log 2/3 - 1/3 log 1/3) = 3 / 2^(2/3).
    assert metrics.inception_score(np.eye(2)[[0, 0, 1]]) == pytest.approx(3 / 2 ** (2 / 3))


def test_each_input_has_its_own_marginal():
    # All samples of an input alike, though all inputs differ: nothing depends on the sample.
    probabilities = np.repeat(np.eye(4)[:, None], 3, axis=1)
    assert metrics.conditional_inception_score(probabilities) == pytest.approx(1, rel=1e-12)
    assert metrics.inception_score(probabilities.reshape(12, 4)) == pytest.approx(4, rel=1e-12)
    # Of one input two classes in even use, of the other a single one: exp((log 2 + 0) / 2).
    probabilities = np.eye(3)[[[0, 1, 0, 1], [2, 2, 2, 2]]]
    result = metrics.conditional_inception_score(probabilities)
    assert result == pytest.approx(np.sqrt(2), rel=1e-12)


def test_they_are_the_exponential_of_mean_divergences():
    rows = random_rows(6, 5, 7)
    expected = np.exp(np.mean([divergence(samples) for samples in rows]))
    assert metrics.conditional_inception_score(rows) == pytest.approx(expected, rel=1e-10)
    flat = rows.reshape(-1, 7)
    assert metrics.inception_score(flat) == pytest.approx(np.exp(divergence(flat)), rel=1e-10)
    assert metrics.inception_score(flat) > 1.05 * expected


def test_subnormal_numbers_and_float32_rounding_are_handled():
    tiny = 5e-324  # its half is 0: in a quotient by the mean the score would be infinite
    assert metrics.inception_score([[1.0, 0.0], [1.0, tiny]]) == 1
    single = np.float32(random_rows(40, 10))
    exact = metrics.inception_score(single / np.sum(np.float64(single), axis=1, keepdims=True))
    assert metrics.inception_score(single) == pytest.approx(exact, rel=1e-12)
    assert metrics.inception_score(single * np.float32(1.0005)) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.ones(3) / 3, r"shape \[sample, class\], none empty, got \(3,\)"),
        (np.ones((0, 3)), r"none empty, got \(0, 3\)"),
        (np.ones((1, 2, 2)) / 2, r"got \(1, 2, 2\)"),
        ([[0.5, 0.5], [1.5, -0.5]], "at least 0, got 1 that aren't"),
        ([[0.5, np.nan]], "at least 0, got 1 that aren't"),
        ([[0.5, 0.5], [0.5, 0.6]], r"must sum to 1 over classes, got a sum of 1\.1"),
        ([[0.5, np.inf]], "got a sum of inf"),
    ],
)
def test_wrong_probabilities_raise(probabilities, message):
    with pytest.raises(ValueError, match=message):
        metrics.inception_score(probabilities)


def test_samples_of_inputs_have_three_axes():
    with pytest.raises(ValueError, match=r"\[input, sample, class\], none empty, got \(2, 2\)"):
        metrics.conditional_inception_score(np.eye(2))
