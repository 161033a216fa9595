"""Entropy of label frequencies: worked examples."""

import numpy as np
import pytest

from vaeflow import metrics


def test_entropy_is_in_nats_and_names_do_not_matter():
    assert metrics.label_entropy(np.array([7, 0, 3, 3, 0, 7])) == pytest.approx(np.log(3))
    # 1/2 1 + 1/4 2 + 2/8 3 = 1.75 bits
    labels = np.repeat([5, 2, 0, 9], [4, 2, 1, 1]).astype(np.int32)
    assert metrics.label_entropy(labels) == pytest.approx(1.75 * np.log(2), rel=1e-12)


def test_a_single_label_has_none():
    result = metrics.label_entropy([4, 4, 4])
    assert f"{result:g}" == "0"  # and not -0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(0, int), r"one or more, got int64 of shape \(0,\)"),
        (np.zeros((2, 2), int), r"\[example\], .*got int64 of shape \(2, 2\)"),
        (np.ones(3), "got float64"),
        (np.array([1, -1]), "the least -1"),
    ],
)
def test_wrong_labels_raise(labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.label_entropy(labels)
