"""Coloured digits are rendered as their digits and styles say."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from scipy import stats

from vaeflow import data
from vaeflow.data.colored_digits import INKS, TEXTURES

COLORED = data.ColoredDigits()
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    return data.open_dataset(data.DataConfig("embedded:drawings"))


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    source = data.open_dataset(data.DataConfig("embedded:digits")).test
    return data.stack(source, 40)["image"]


def styles(count: int, ink=0, texture=0, shade=0.0, paper=0.0) -> data.DigitStyles:
    """The same style for all digits, but for the entries that are given as arrays."""
    return data.DigitStyles(
        *(np.broadcast_to(entry, count) for entry in (ink, texture, shade, paper))
    )


def disc(radius: float) -> np.ndarray:
    """A white disc about the middle of a black digit, anti-aliased."""
    away = np.hypot(*(np.indices((28, 28)) - 13.5))
    return np.round(255 * np.clip(radius - away + 0.5, 0, 1)).astype(np.uint8)[None, ..., None]


def strength(image: np.ndarray) -> np.ndarray:
    """How much of each pixel is ink, by its green, for red ink on paper of the opposite hue."""
    return (255 - image[..., 1].astype(float)) / (255 - 12.75)


@pytest.mark.slow
def test_images_are_the_digits_rendered_in_their_styles(dataset):
    digits = data.open_dataset(data.DataConfig("embedded:digits"))
    assert dataset.truth == COLORED
    assert digits.truth is None
    for split in SPLITS:
        batch = data.stack(getattr(dataset, split), 300)
        other = data.stack(getattr(digits, split), 300)
        np.testing.assert_array_equal(batch["index"], other["index"])
        np.testing.assert_array_equal(batch["label"], other["label"])
        own = COLORED.styles(batch["index"])
        np.testing.assert_array_equal(COLORED.classes(own), batch["style"])
        assert batch["style"].dtype == np.int32
        np.testing.assert_array_equal(COLORED.render(other["image"], own), batch["image"])


def test_folds_are_those_of_the_digits(monkeypatch):
    def blank(self, digits, styles):  # for drawing takes seconds
        return np.zeros((len(digits), 28, 28, 3), np.uint8)

    monkeypatch.setattr(data.ColoredDigits, "render", blank)
    drawn = data.open_dataset(data.DataConfig("embedded:drawings", fold=3))
    digits = data.open_dataset(data.DataConfig("embedded:digits", fold=3))
    for split in SPLITS:
        np.testing.assert_array_equal(getattr(drawn, split).rows, getattr(digits, split).rows)


def test_styles_are_the_same_every_time():
    # Written down: other styles would quietly make every published figure a different one.
    first = COLORED.styles(np.arange(6))
    assert first.ink.tolist() == [3, 4, 3, 3, 2, 3]
    assert COLORED.classes(first).tolist() == [10, 12, 9, 10, 6, 11]
    np.testing.assert_array_equal(COLORED.styles(np.array([5, 2])).paper, first.paper[[5, 2]])


def test_styles_are_uniform_and_independent_of_each_other_and_of_the_digits(dataset):
    batch = data.stack(dataset.train)
    own = COLORED.styles(batch["index"])
    tenths = [np.floor(10 * entry).astype(int) for entry in (own.shade / 2 + 0.5, own.paper)]
    entries = [batch["label"], own.ink, own.texture, *tenths]
    for first in range(len(entries)):
        if first:
            assert stats.chisquare(np.bincount(entries[first])).pvalue > 0.001
        for second in range(first):
            table = np.zeros((entries[first].max() + 1, entries[second].max() + 1))
            np.add.at(table, (entries[first], entries[second]), 1)
            assert stats.chi2_contingency(table).pvalue > 0.001
    assert set(batch["style"].tolist()) == set(range(COLORED.num_styles))
    assert COLORED.num_styles == 18


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_random_styles_cover_their_ranges(make):
    drawn = COLORED.random_styles(3000, make(1))
    assert set(drawn.ink.tolist()) == set(range(6))
    assert set(drawn.texture.tolist()) == set(range(3))
    assert drawn.shade.min() < -0.99 < 0.99 < drawn.shade.max() < 1
    assert 0 <= drawn.paper.min() < 0.01 < 0.99 < drawn.paper.max() < 1
    again = COLORED.random_styles(3000, make(1))
    assert all((one == two).all() for one, two in zip(drawn, again, strict=True))
    assert COLORED.random_styles(0, make(1)).ink.shape == (0,)


@pytest.mark.parametrize("ink", range(len(INKS)))
@pytest.mark.parametrize("texture", range(len(TEXTURES)))
def test_the_darkest_pixels_have_the_hue_of_the_ink(digits, ink, texture):
    for shade in (-1.0, 0.0, 0.8):
        given = styles(len(digits), ink, texture, shade, np.linspace(0, 1, len(digits)))
        for image in COLORED.render(digits, given):
            flat = image.reshape(-1, 3)
            pixel = flat[flat.sum(-1).argmin()] / 255
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            away = (hue - (ink / 6 + shade / 40) + 0.5) % 1 - 0.5
            assert abs(away) < 0.01
            assert saturation > 0.85
            assert value == pytest.approx(0.5, abs=0.02)


def test_the_paper_is_a_pastel_of_its_hue(digits):
    given = styles(len(digits), paper=np.linspace(0, 1, len(digits)))
    for image, paper in zip(COLORED.render(digits, given), given.paper, strict=True):
        expected = 255 * np.array(colorsys.hsv_to_rgb(paper, 0.3, 1))
        np.testing.assert_allclose(image[0, 0], expected, atol=0.5 + 1e-9)


def test_textures_of_a_disc_are_as_wide_as_they_say():
    radius = 8.0
    away = np.hypot(*(np.indices((28, 28)) - 13.5))
    plain, filled, rings = (
        strength(COLORED.render(disc(radius), styles(1, 0, texture, 0.0, 0.5))[0])
        for texture in range(3)
    )
    outline = 2 * np.pi * (radius + 0.5)
    assert plain.sum() == pytest.approx(1.1 * outline, rel=0.06)  # cells are a third of a pixel
    assert (plain * away).sum() / plain.sum() == pytest.approx(radius + 0.5, abs=0.1)
    # The inside but for the line's inner half, which is darker already.
    inside = np.pi * (radius + 0.5 - 0.55) ** 2
    assert (filled - plain).sum() == pytest.approx(0.5 * inside, rel=0.03)
    assert filled[13, 13] == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(filled[away > radius + 1], plain[away > radius + 1], atol=0.01)
    first = np.abs(away - radius - 0.5 - 2.75) < 1
    echo = 2 * np.pi * (radius + 0.5 + 2.75)
    assert (rings - plain)[first].sum() == pytest.approx(0.5 * 0.8 * echo, rel=0.05)
    np.testing.assert_allclose(rings[away < radius + 1], plain[away < radius + 1], atol=0.01)
    assert rings[0, 0] == pytest.approx(0.3, abs=0.2)  # up to the corners
    assert plain[0, 0] == pytest.approx(0, abs=0.01)


def test_textures_of_a_digit_differ(digits):
    together = [COLORED.render(digits, styles(len(digits), texture=t)) for t in range(3)]
    for first in range(3):
        for second in range(first):
            away = np.abs(together[first].astype(int) - together[second]).max(-1)
            assert (away > 40).sum((1, 2)).min() >= 20


def test_a_moved_digit_has_a_moved_pattern(digits):
    frame = np.ones((28, 28, 1), bool)
    frame[4:-4, 4:-4] = False
    within = digits[~(digits * frame).any((1, 2, 3))]
    assert len(within) > 5
    given = styles(len(within), texture=2)
    moved = COLORED.render(np.roll(within, (1, -2), (1, 2)), given)
    expected = np.roll(COLORED.render(within, given), (1, -2), (1, 2))
    np.testing.assert_array_equal(moved[:, 2:-2, 3:-3], expected[:, 2:-2, 3:-3])


def test_without_an_outline_there_is_no_line():
    for value, texture, expected in ((0, 0, 0), (0, 1, 0), (0, 2, 0), (255, 1, 0.5), (255, 2, 0)):
        digit = np.full((1, 28, 28, 1), value, np.uint8)
        drawn = strength(COLORED.render(digit, styles(1, 0, texture, 0.0, 0.5))[0])
        np.testing.assert_allclose(drawn, expected, atol=0.01)


def test_rendering_in_pieces_changes_nothing(digits):
    many = np.concatenate([digits] * 8)
    given = COLORED.random_styles(len(many), np.random.RandomState(2))
    together = COLORED.render(many, given)
    for row in (0, 255, 256, len(many) - 1):
        alone = COLORED.render(many[[row]], data.DigitStyles(*(entry[[row]] for entry in given)))
        np.testing.assert_array_equal(alone[0], together[row])
    assert COLORED.render(many[:0], styles(0)).shape == (0, 28, 28, 3)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 28, 28), "uint8"), ((2, 28, 28, 3), "uint8"), ((2, 28, 28, 1), "float32")],
)
def test_digits_of_another_kind_raise(shape, dtype):
    with pytest.raises(ValueError, match=rf"digits must be uint8 .*, got {dtype} of shape \(2, 28"):
        COLORED.render(np.zeros(shape, dtype), styles(2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ink": np.array([0, 6])}, "styles: ink must be whole .* 0 to 5, got"),
        ({"ink": np.array([0.0, 1.0])}, "styles: ink must be whole numbers .* got float64"),
        ({"texture": np.array([-1, 0])}, "styles: texture .* 0 to 2"),
        ({"shade": np.array([0, 1.1])}, "styles: shade must be numbers from -1 to 1, got"),
        ({"paper": np.array([np.nan, 0])}, "styles: paper must be numbers from 0 to 1, got"),
        (
            {"paper": np.zeros(3)},
            r"styles must have fields of one shape .* got \[\(2,\), .*\(3,\)\]",
        ),
    ],
)
def test_styles_out_of_range_raise(changes, message):
    given = styles(2)._replace(**changes)
    for use in (
        COLORED.classes,
        lambda bad: COLORED.render(np.zeros((2, 28, 28, 1), "u1"), bad),
    ):
        with pytest.raises(ValueError, match=message):
            use(given)


def test_mismatched_counts_raise():
    with pytest.raises(ValueError, match="styles must be one for each of 3 digits, got 2"):
        COLORED.render(np.zeros((3, 28, 28, 1), np.uint8), styles(2))
    for bad in ([5000], [-1], [0.5]):
        with pytest.raises(ValueError, match=r"index must be whole numbers from 0 to 4999, got"):
            COLORED.styles(np.array(bad))
    with pytest.raises(ValueError, match="count must be at least 0, got -1"):
        COLORED.random_styles(-1, np.random.RandomState(0))
