"""Sprites are what their factors say."""

from __future__ import annotations

import numpy as np
import pytest

from vaeflow import data
from vaeflow.data.sprites import SHAPES, Sprites

SPRITES = Sprites(64)
MIDDLE = np.array([0, 5, 0, 16, 16])


def render(**changes) -> np.ndarray:
    """Images, shape [height, width], of the middle code with one factor replaced."""
    code = MIDDLE.copy()
    for name, value in changes.items():
        code[SPRITES.names.index(name)] = value
    return SPRITES.render(code[np.newaxis])[0, :, :, 0].astype(np.float64)


def center(image: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(image.shape)
    return np.array([(rows * image).sum(), (columns * image).sum()]) / image.sum()


def test_codes_and_index_are_inverse_and_the_last_factor_runs_fastest():
    assert len(SPRITES) == 3 * 6 * 40 * 32 * 32
    index = np.random.default_rng(0).integers(0, len(SPRITES), 500)
    np.testing.assert_array_equal(SPRITES.index(SPRITES.codes(index)), index)
    np.testing.assert_array_equal(SPRITES.codes(np.array([1])), [[0, 0, 0, 0, 1]])
    assert [len(values) for values in SPRITES.values] == list(SPRITES.sizes)


def test_index_of_a_batch_is_its_ground_truth():
    dataset = data.open_dataset(data.DataConfig("embedded:sprites", image_size=32))
    assert dataset.truth == Sprites(32)
    for split in (dataset.train, dataset.test):
        batch = data.stack(split, 20)
        codes = dataset.truth.codes(batch["index"])
        np.testing.assert_array_equal(dataset.truth.render(codes), batch["image"])


def test_rendering_in_pieces_changes_nothing():
    codes = SPRITES.codes(np.arange(0, len(SPRITES), 1031))
    together = SPRITES.render(codes)
    for row in (0, 255, 256, len(codes) - 1):
        np.testing.assert_array_equal(SPRITES.render(codes[row : row + 1])[0], together[row])
    assert SPRITES.render(codes[:0]).shape == (0, 64, 64, 1)


def test_position_moves_the_sprite_and_nothing_else():
    for shape in range(len(SHAPES)):
        # The range is 64 pixels less two radii and three pixels, in 31 steps.
        at = np.array(
            [center(render(shape=shape, y=y, x=x)) for y, x in ((3, 4), (20, 4), (3, 25))]
        )
        step = (64 - 2 * (64 / 6 + 1.5)) / 31
        np.testing.assert_allclose(at[1] - at[0], [17 * step, 0], atol=0.05)
        np.testing.assert_allclose(at[2] - at[0], [0, 21 * step], atol=0.05)


def test_scale_squares_the_area():
    for shape in range(len(SHAPES)):
        areas = [render(shape=shape, scale=scale).sum() for scale in range(6)]
        expected = SPRITES.values[1] ** 2
        np.testing.assert_allclose(areas / areas[-1], expected, rtol=0.02)


def test_area_is_that_of_the_shape():
    # Anti-aliasing is exact on average: the drawn area is the outline's own, in pixels.
    radius = 64 / 6
    half = 0.55
    expected = {
        "heart": (2 * half) ** 2 + np.pi * half**2,
        "triangle": 0.65 * 1.55,
        "half_disc": np.pi * 0.9**2 / 2,
    }
    for number, name in enumerate(SHAPES):
        area = render(shape=number).sum() / 255 / radius**2
        assert area == pytest.approx(expected[name], rel=0.01)


def test_quarter_turns_turn_counter_clockwise():
    # At 66 pixels the first position is 12.5 pixels from both borders, the middle of a pixel,
    # so that the 25 by 25 box around it turns into itself.
    sprites = Sprites(66)
    for shape in range(len(SHAPES)):
        codes = np.array([[shape, 5, rotation, 0, 0] for rotation in (0, 10, 20, 30)])
        images = sprites.render(codes)[..., 0].astype(int)
        boxes = images[:, :25, :25]
        assert boxes.sum() == images.sum()
        for quarter in range(1, 4):
            assert np.abs(np.rot90(boxes[0], quarter) - boxes[quarter]).max() <= 1
            assert np.abs(boxes[0] - boxes[quarter]).max() > 200


def test_every_sprite_stays_inside():
    grid = np.array(
        [[s, 5, r, x, y] for s in range(3) for r in range(40) for x in (0, 31) for y in (0, 31)]
    )
    for size in (16, 64):
        images = Sprites(size).render(grid)
        border = np.concatenate([images[:, [0, -1]].ravel(), images[:, :, [0, -1]].ravel()])
        assert border.max() == 0


def test_different_factors_give_different_images():
    # Including what coincides in dSprites: rotations of symmetric shapes, and a full turn.
    codes = np.array([[s, c, r, 7, 9] for s in range(3) for c in range(6) for r in range(40)])
    for size in (32, 64):
        images = Sprites(size).render(codes)
        assert len({image.tobytes() for image in images}) == len(codes)


@pytest.mark.parametrize("codes", [[[0, 0, 0, 0, 32]], [[-1, 0, 0, 0, 0]]])
def test_codes_out_of_range(codes):
    with pytest.raises(ValueError, match="codes must be from 0 up to"):
        SPRITES.render(np.array(codes))
    with pytest.raises(ValueError, match="codes must be from 0 up to"):
        SPRITES.index(np.array(codes))


def test_codes_of_wrong_shape():
    with pytest.raises(ValueError, match=r"codes must have shape \(batch, 5\), got \(2, 4\)"):
        SPRITES.render(np.zeros((2, 4), int))
