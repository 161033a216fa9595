"""Use of codes: worked examples."""

import numpy as np
import pytest

from vaeflow import metrics


def test_even_use_counts_every_code_and_single_use_one():
    counts = np.array([[3, 3, 3, 3], [0, 12, 0, 0], [2, 0, 2, 0]], np.int32)
    np.testing.assert_allclose(metrics.code_perplexity(counts), [4, 1, 2], rtol=1e-12)
    np.testing.assert_array_equal(metrics.live_codes(counts), [1, 0.25, 0.5])


def test_perplexity_is_two_to_the_bits():
    shares = np.array([4, 2, 1, 1])  # 1/2 1 + 1/4 2 + 2/8 3 = 1.75 bits
    assert metrics.code_perplexity(shares) == pytest.approx(2**1.75, rel=1e-12)
    assert metrics.live_codes(shares) == 1


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.ones(3), "integers from 0 up, .*, got float64"),
        (np.array([1, -1]), "the least -1"),
        (np.array(3), r"of shape \(\)"),
        (np.array([[1, 2], [0, 0]]), "above 0 for some code of each codebook, got none"),
    ],
)
def test_invalid_counts_raise(counts, message):
    for measure in (metrics.code_perplexity, metrics.live_codes):
        with pytest.raises(ValueError, match=message):
            measure(counts)
