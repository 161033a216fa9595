"""Nearest neighbours in pixel space."""

import numpy as np
import pytest

from vaeflow import metrics


def test_matches_all_distances(monkeypatch):
    monkeypatch.setattr("vaeflow.metrics.samples._BLOCK", 7 * 12)
    generator = np.random.default_rng(0)
    queries = generator.integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    references = generator.integers(0, 256, (20, 2, 2, 3), dtype=np.uint8)
    indices, distances = metrics.nearest_neighbors(queries, references, num_neighbors=5)
    differences = queries[:, None].astype(float) - references[None]
    expected = np.sqrt(np.sum(differences**2, axis=(2, 3, 4)))
    np.testing.assert_array_equal(indices, np.argsort(expected, axis=1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :5])


def test_an_image_is_its_own_neighbor_and_ties_keep_their_order():
    references = np.array([[3.0], [1.0], [1.0]])
    indices, distances = metrics.nearest_neighbors(np.array([[1.0]]), references, num_neighbors=3)
    np.testing.assert_array_equal(indices, [[1, 2, 0]])
    np.testing.assert_array_equal(distances, [[0.0, 0.0, 2.0]])


def test_close_neighbors_of_large_values_keep_their_digits():
    queries = np.array([[1e8]])
    indices, distances = metrics.nearest_neighbors(
        queries, np.array([[1e8 + 0.3], [1e8 + 0.1], [1e8 + 0.2]])
    )
    assert indices.item() == 1
    assert distances.item() == pytest.approx(0.1, rel=1e-6)


def test_different_shapes_and_too_many_neighbors_raise():
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(4, 3\)"):
        metrics.nearest_neighbors(np.zeros((1, 2)), np.zeros((4, 3)))
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"from 1 to 4.*got {count}"):
            metrics.nearest_neighbors(np.zeros((1, 3)), np.zeros((4, 3)), num_neighbors=count)
