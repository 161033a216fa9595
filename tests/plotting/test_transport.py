"""Figures and animations of the transport from noise to data."""

import re

import numpy as np
import PIL.Image
import pytest

from tests.colorimetry import lab
from vaeflow import plotting
from vaeflow.plotting.plane import noise_colors, undo_axis_swaps

NOISE = np.random.default_rng(0).normal(size=(40, 2))


def test_colours_tell_the_angle_and_the_distance():
    # The radii within which lie 1/4 and 4/5 of the noise, and almost all of it.
    quarter, most = np.sqrt(-2 * np.log([0.75, 0.2]))
    places = np.array([[0, 0], [quarter, 0], [0, most], [-most, 0], [9, 0.0]])
    near, right, up, left, far = lab(noise_colors(places))
    np.testing.assert_allclose(near, [55, 0, 0], atol=0.1)
    np.testing.assert_allclose(right, [49.5, 25, 0], atol=0.1)
    np.testing.assert_allclose(up, [55, 0, 50 * 0.8**0.5], atol=0.1)
    assert left[0] > 60 > 0 > left[1]
    np.testing.assert_allclose(far, [44, 50, 0], atol=0.1)
    colors = noise_colors(np.array([[1e6, -1e6], [1e-30, 0]]))
    assert ((colors >= 0) & (colors <= 1)).all()


def test_axis_swaps_are_undone_from_the_end():
    flat = NOISE * [3, 0.2] + [5, 1]
    states = np.stack([flat[:, ::-1], flat + 0.1, flat[:, ::-1] + 0.2, flat + 0.3])
    result = undo_axis_swaps(states)
    np.testing.assert_allclose(result, np.stack([flat, flat + 0.1, flat + 0.2, flat + 0.3]))
    np.testing.assert_array_equal(states[0], flat[:, ::-1])  # the argument stays
    # The last state is the data, which stay as they are.
    np.testing.assert_array_equal(undo_axis_swaps(states[:3])[-1], states[2])


def test_samples_are_drawn_where_they_are_in_their_colours():
    colors = noise_colors(NOISE)
    panels = [[plotting.Samples(NOISE, colors, "here"), plotting.Samples(NOISE)]]
    first, second = plotting.plane_table(panels, 2.0).axes
    np.testing.assert_allclose(first.collections[0].get_offsets(), NOISE)
    np.testing.assert_allclose(first.collections[0].get_facecolors()[:, :3], colors)
    assert [text.get_text() for text in first.texts] == ["here"]
    assert len(np.unique(second.collections[0].get_facecolors(), axis=0)) == 1
    for axes in (first, second):
        assert axes.get_xlim() == axes.get_ylim() == (-2, 2)
        assert axes.get_aspect() == 1


def middle_of(frame, panel=0):
    """Mean place of what isn't white in the inside of a panel of a single row, from 0 to 1."""
    ink = frame.min(-1) < 240
    # The frames of panels are the only long lines.
    rows, columns = (np.flatnonzero(ink.mean(axis=axis) > 0.5) for axis in (1, 0))
    sides = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    left, right = sides[2 * panel].max() + 2, sides[2 * panel + 1].min() - 1
    inside = ink[rows.min() + 3 : rows.max() - 2, left:right]
    down, across = np.nonzero(inside)
    return across.mean() / inside.shape[1], down.mean() / inside.shape[0]


def test_frames_go_from_state_to_state():
    point = np.zeros((50, 2))
    path = np.stack([point, point + np.array([2, 0]), point + np.array([2, 2])])
    frames = plotting.transport_frames([path, path[::-1]], 4.0, ["there", "back"], between=4)
    assert frames.dtype == np.uint8
    assert frames.shape[0] == 2 * 4 + 1
    places = np.array([middle_of(frame) for frame in frames])
    across, down = places.T
    assert across[0] == pytest.approx(0.5, abs=0.05)
    assert (np.diff(across[:5]) > 0).all()
    np.testing.assert_allclose(across[4:], across[4], atol=0.02)
    np.testing.assert_allclose(down[:5], down[0], atol=0.02)
    assert (np.diff(down[4:]) < 0).all()  # upwards
    # Slow at the states, halfway in the middle frame.
    assert across[1] - across[0] < across[2] - across[1]
    assert across[2] == pytest.approx((across[0] + across[4]) / 2, abs=0.02)
    back = middle_of(frames[0], 1)
    np.testing.assert_allclose(back, middle_of(frames[-1]), atol=0.05)


WRONG = {
    "none": (([], 4.0, []), "got lengths [], 0 paths, 0 titles"),
    "lengths": (([np.zeros((2, 5, 2)), np.zeros((3, 5, 2))], 4.0, ["a", "b"]), "lengths [2, 3]"),
    "titles": (([np.zeros((2, 5, 2))], 4.0, []), "1 paths, 0 titles"),
    "bound": (([np.zeros((2, 5, 2))], -4.0, ["a"]), "bound must be above 0 and finite, got -4.0"),
    "between": (([np.zeros((2, 5, 2))], 4.0, ["a"], 0), "1 titles and 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_paths_raise(case):
    arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        plotting.transport_frames(*arguments)


def a_film():
    frames = np.full((5, 20, 30, 3), 255, np.uint8)
    for number, frame in enumerate(frames):
        frame[:, : 5 * number + 5] = [200, 40, 20]
    return frames


def test_animations_are_saved_into_new_folders_with_their_times(tmp_path):
    path = tmp_path / "figures" / "film.gif"
    plotting.save_animation(path, a_film(), [1, 0.05, 0.05, 0.05, 2])
    assert [file.name for file in path.parent.iterdir()] == ["film.gif"]
    with PIL.Image.open(path) as image:
        assert image.n_frames == 5
        assert image.info["loop"] == 0
        times = []
        for number, frame in enumerate(a_film()):
            image.seek(number)
            times.append(image.info["duration"])
            np.testing.assert_allclose(np.asarray(image.convert("RGB")), frame, atol=12)
    assert times == [1000, 50, 50, 50, 2000]


WRONG_FILMS = {
    "suffix": (("film.png", a_film()), "must end in .gif, got"),
    "floats": (("film.gif", a_film() / 255), "got float64 (5, 20, 30, 3)"),
    "grey": (("film.gif", a_film()[..., 0]), "got uint8 (5, 20, 30)"),
    "none": (("film.gif", a_film()[:0]), "got uint8 (0, 20, 30, 3)"),
    "seconds": (("film.gif", a_film(), [1, 2]), "5, one a frame, got (2,)"),
}


@pytest.mark.parametrize("case", WRONG_FILMS)
def test_wrong_animations_raise(case, tmp_path):
    (name, *arguments), message = WRONG_FILMS[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        plotting.save_animation(tmp_path / name, *arguments)
