"""Edges are where faces change, in the order of the faces."""

from __future__ import annotations

import numpy as np
import pytest

from vaeflow import data
from vaeflow.data.embedded import draw_edges

SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("fold", [0, 4])
def test_edges_are_those_of_the_faces_with_the_same_index(fold):
    faces = data.open_dataset(data.DataConfig("embedded:faces", fold=fold))
    edges = data.open_dataset(data.DataConfig("embedded:face-edges", fold=fold))
    for split in SPLITS:
        batch = data.stack(getattr(edges, split))
        other = data.stack(getattr(faces, split))
        np.testing.assert_array_equal(batch["index"], other["index"])
        np.testing.assert_array_equal(batch["image"], draw_edges(other["image"]))


def test_faces_become_lines_on_white():
    edges = data.open_dataset(data.DataConfig("embedded:face-edges"))
    images = np.concatenate([data.stack(getattr(edges, split))["image"] for split in SPLITS])
    dark, white = (images < 64).mean((1, 2, 3)), (images > 191).mean((1, 2, 3))
    assert dark.min() > 0.03
    assert dark.max() < 0.2
    assert white.min() > 0.65
    assert (images == 0).any((1, 2, 3)).all()


def test_a_step_becomes_a_line_of_two_pixels():
    steps = np.zeros((2, 24, 24, 1), np.uint8)
    steps[0, :, 10:] = 200
    steps[1, 10:] = 40  # a faint one, the other way
    drawn = draw_edges(steps)[..., 0]
    for image in (drawn[0], drawn[1].T):
        assert (image[:, 9:11] == 0).all()
        assert (np.delete(image, [9, 10], axis=1) > 200).all()


def test_plain_and_nearly_plain_images_are_white():
    slope = np.arange(24, dtype=np.uint8) // 4
    images = np.stack([np.full((24, 24), 90, np.uint8), np.tile(slope, (24, 1))])[..., np.newaxis]
    assert (draw_edges(images) == 255).all()
