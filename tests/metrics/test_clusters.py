"""Clusters against labels: worked examples, and all maps tried one by one."""

import itertools

import numpy as np
import pytest

from vaeflow import metrics


def test_permuted_labels_have_accuracy_one():
    labels = np.array([0, 1, 2, 2, 1, 0])
    assert metrics.cluster_accuracy(np.array([7, 0, 3, 3, 0, 7]), labels) == 1.0


def test_the_best_map_is_not_the_greedy_one():
    # Cluster 0 holds three of label 0 and two of label 1; cluster 1 holds two of label 0 alone.
    # Greedily 0 -> 0 gives 3 of 7; 0 -> 1 and 1 -> 0 give 4.
    assignments = np.array([0, 0, 0, 0, 0, 1, 1])
    labels = np.array([0, 0, 0, 1, 1, 0, 0])
    assert metrics.cluster_accuracy(assignments, labels) == pytest.approx(4 / 7)


def test_clusters_left_over_count_as_wrong():
    assignments = np.array([0, 0, 1, 1, 2, 2])
    assert metrics.cluster_accuracy(assignments, np.array([0, 0, 0, 0, 1, 1])) == pytest.approx(
        4 / 6
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_map_is_better(seed):
    generator = np.random.default_rng(seed)
    assignments, labels = generator.integers(0, 4, 60), generator.integers(0, 4, 60)
    shares = [np.mean(np.array(m)[assignments] == labels) for m in itertools.permutations(range(4))]
    assert metrics.cluster_accuracy(assignments, labels) == pytest.approx(max(shares))


@pytest.mark.parametrize(
    ("assignments", "labels", "message"),
    [
        (np.zeros(3, int), np.zeros(4, int), r"got shapes \(3,\) and \(4,\)"),
        (np.zeros(0, int), np.zeros(0, int), r"above 0, got shapes \(0,\)"),
        (np.zeros(3), np.zeros(3, int), "assignments must be integers from 0 up, got float64"),
        (np.zeros(3, int), np.array([0, -1, 2]), "labels must be integers .* got int64 from -1"),
    ],
)
def test_invalid_clusterings_raise(assignments, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.cluster_accuracy(assignments, labels)
