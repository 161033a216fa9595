"""Shares of images that keep their class."""

import numpy as np
import pytest

from vaeflow import metrics


def test_it_is_the_share_of_equal_classes():
    assert metrics.agreement([0, 1, 2, 3, 3], np.array([0, 1, 3, 3, 2], np.uint8)) == 3 / 5
    assert metrics.agreement([4], [4]) == 1
    assert metrics.agreement([4, -4], [3, 4]) == 0
    assert type(metrics.agreement([1], [1])) is float


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([1, 2], [1], r"vectors of one length above 0, got shapes \(2,\) and \(1,\)"),
        ([], [], r"above 0, got shapes \(0,\) and \(0,\)"),
        ([[1]], [[1]], r"got shapes \(1, 1\) and \(1, 1\)"),
        ([1.0], [1], "before must be integers, got float64"),
        ([1], [True], "after must be integers, got bool"),
    ],
)
def test_invalid_classes_raise(before, after, message):
    with pytest.raises(ValueError, match=message):
        metrics.agreement(before, after)
