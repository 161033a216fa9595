"""Outlines of MNIST digits in random colours and textures, whose content and style are known."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from vaeflow.data.dataset import Dataset, arrays_part, make_splits
from vaeflow.data.embedded import read_digits
from vaeflow.data.images import interpolation

INKS = ("red", "yellow", "green", "cyan", "blue", "magenta")

TEXTURES = ("plain", "filled", "rings")

_COUNT = 5000

_SIZE = 28

_ENLARGEMENT = 3

_ROWS_AT_ONCE = 256

_INK_SATURATION, _INK_VALUE = 0.9, 0.5

_PAPER_SATURATION, _PAPER_VALUE = 0.3, 1.0

_LARGEST_SHIFT = 1 / 40  # of an ink's hue, which are 1/6 apart

_MARGIN = 0.5  # pixels from level 1/2 out to the outline, or thin strokes had no inside

_LINE, _RING = 0.55, 0.4  # half the width of a line, in pixels

_RING_DISTANCE = 2.75

_FAINT = 0.5  # the strength of fillings and rings


class DigitStyles(NamedTuple):
    """Styles of a batch of coloured digits.

    Attributes:
      ink: The number of the hue in `INKS`, shape [batch].
      texture: The number of the texture in `TEXTURES`, shape [batch].
      shade: How far the ink is from its hue, -1 to 1 for 1/40 of the circle of hues either way,
        shape [batch].
      paper: The hue of the paper, 0 to 1 for a full turn of the circle of hues from red,
        shape [batch].
    """

    ink: Int[np.ndarray, " batch"]
    texture: Int[np.ndarray, " batch"]
    shade: Float[np.ndarray, " batch"]
    paper: Float[np.ndarray, " batch"]


@dataclasses.dataclass(frozen=True)
class ColoredDigits:
    """The ground truth of ``embedded:drawings``: contents, styles and the rendering.

    The content of an image is a digit's outline, half a pixel outside of the level 1/2 of its
    grey image. With d the signed distance from it in pixels, positive outside, ink covers
    ``|d|`` < 0.55. Texture ``plain`` has nothing else, ``filled`` the inside, d < 0, in half the
    strength, ``rings`` echoes of the outline at d = 2.75, 5.5, ..., 0.8 pixels wide, in half the
    strength. Colours are of hue, saturation and value (h, 0.9, 0.5) for ink and (h, 0.3, 1) for
    paper. A pattern follows its outline alone, wherever that is in the image.

    The *class* of a style is ink x 3 + texture, one of 18.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the factors of a style: the fields of `DigitStyles`."""
        return DigitStyles._fields

    @property
    def num_styles(self) -> int:
        """Number of classes of styles."""
        return len(INKS) * len(TEXTURES)

    def classes(self, styles: DigitStyles) -> Int[np.ndarray, " batch"]:
        """Returns the classes of `styles`, int32, shape [batch].

        Raises:
          ValueError: `styles` are out of range or of different lengths.
        """
        styles = _check_styles(styles)
        return (styles.ink * len(TEXTURES) + styles.texture).astype(np.int32)

    def styles(self, index: Int[np.ndarray, " batch"]) -> DigitStyles:
        """Returns the styles of the images that `index` numbers.

        Raises:
          ValueError: An index is out of range.
        """
        index = np.asarray(index)
        if index.dtype.kind not in "iu" or ((index < 0) | (index >= _COUNT)).any():
            raise ValueError(
                f"index must be whole numbers from 0 to {_COUNT - 1}, got {index.dtype} from"
                f" {index.min(initial=0)} to {index.max(initial=0)}"
            )
        # RandomState's stream is frozen for ever; Generator's may change between NumPy releases.
        styles = self.random_styles(_COUNT, np.random.RandomState(0))
        return DigitStyles(*(values[index] for values in styles))

    def random_styles(
        self, count: int, rng: np.random.RandomState | np.random.Generator
    ) -> DigitStyles:
        """Samples styles: every field uniform and independent of the others.

        Raises:
          ValueError: `count` is less than 0.
        """
        if count < 0:
            raise ValueError(f"count must be at least 0, got {count}")
        return DigitStyles(
            ink=np.floor(len(INKS) * rng.random(count)).astype(np.int32),
            texture=np.floor(len(TEXTURES) * rng.random(count)).astype(np.int32),
            shade=2 * rng.random(count) - 1,
            paper=rng.random(count),
        )

    def render(
        self, digits: UInt8[np.ndarray, "batch 28 28 1"], styles: DigitStyles
    ) -> UInt8[np.ndarray, "batch 28 28 3"]:
        """Renders `digits`, white on black, in `styles`.

        Raises:
          ValueError: `digits` are of another shape or dtype, or `styles` don't fit them.
        """
        digits = np.asarray(digits)
        if digits.shape[1:] != (_SIZE, _SIZE, 1) or digits.dtype != np.uint8:
            raise ValueError(
                f"digits must be uint8 of shape (batch, {_SIZE}, {_SIZE}, 1), got {digits.dtype} of"
                f" shape {digits.shape}"
            )
        styles = _check_styles(styles)
        if len(styles.ink) != len(digits):
            raise ValueError(
                f"styles must be one for each of {len(digits)} digits, got {len(styles.ink)}"
            )
        images = np.empty((len(digits), _SIZE, _SIZE, 3), np.uint8)
        for start in range(0, len(digits), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            images[rows] = _render(
                digits[rows, ..., 0], DigitStyles(*(values[rows] for values in styles))
            )
        return images


def _render(digits: np.ndarray, styles: DigitStyles) -> np.ndarray:
    strength = _strength(_signed_distance(digits), styles.texture)
    batch, size = len(digits), (_SIZE, _ENLARGEMENT)
    strength = strength.reshape(batch, *size, *size).mean((2, 4))[..., np.newaxis]
    hue = styles.ink / len(INKS) + _LARGEST_SHIFT * styles.shade
    ink = _colors(hue, _INK_SATURATION, _INK_VALUE)[:, np.newaxis, np.newaxis]
    paper = _colors(styles.paper, _PAPER_SATURATION, _PAPER_VALUE)[:, np.newaxis, np.newaxis]
    return np.round(255 * (paper + strength * (ink - paper))).astype(np.uint8)


def _signed_distance(digits: np.ndarray) -> Float[np.ndarray, "batch fine_height fine_width"]:
    """Distances from the outline in pixels, positive outside, on a finer grid."""
    from scipy import ndimage

    finer = interpolation(_SIZE, _ENLARGEMENT * _SIZE)
    inside = finer @ digits @ finer.T > 255 / 2
    distance = np.empty(inside.shape, np.float32)
    for row, mask in enumerate(inside):
        if mask.any() and not mask.all():
            # To the nearest centre on the other side, half a cell beyond the level.
            outwards = ndimage.distance_transform_edt(~mask)
            inwards = ndimage.distance_transform_edt(mask)
            distance[row] = outwards - inwards - np.where(mask, -0.5, 0.5)
        else:  # there is no outline
            distance[row] = -np.inf if mask.all() else np.inf
    return distance / _ENLARGEMENT - _MARGIN


def _strength(distance: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Returns the coverage of each cell by ink, 0 to 1."""
    strength = _line(distance, _LINE)
    filled, rings = (texture == TEXTURES.index(name) for name in ("filled", "rings"))
    inside = _FAINT * (distance[filled] < 0)
    strength[filled] = np.maximum(strength[filled], inside)
    outside = np.where(np.isfinite(distance[rings]), distance[rings], 0)
    number = np.maximum(np.round(outside / _RING_DISTANCE), 1)
    echo = _FAINT * _line(outside - number * _RING_DISTANCE, _RING)
    strength[rings] = np.maximum(strength[rings], echo)
    return strength


def _line(distance: np.ndarray, half_width: float) -> np.ndarray:
    """The share of each cell within `half_width` pixels of where `distance` is 0."""
    return np.clip((half_width - np.abs(distance)) * _ENLARGEMENT + 0.5, 0, 1)


def _colors(hue: np.ndarray, saturation: float, value: float) -> Float[np.ndarray, "batch 3"]:
    """Returns red, green and blue, 0 to 1, of hues, 1 being a full turn of the circle."""
    sector = (np.array([5, 3, 1]) + 6 * np.asarray(hue)[:, np.newaxis]) % 6
    return value * (1 - saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1))


def _check_styles(styles: DigitStyles) -> DigitStyles:
    styles = DigitStyles(*map(np.asarray, styles))
    shapes = {field.shape for field in styles}
    if len(shapes) > 1 or styles.ink.ndim != 1:
        raise ValueError(
            "styles must have fields of one shape (batch,), got"
            f" {[field.shape for field in styles]}"
        )
    ranges = {"ink": (0, len(INKS) - 1), "texture": (0, len(TEXTURES) - 1)}
    for name, (low, high) in {**ranges, "shade": (-1, 1), "paper": (0, 1)}.items():
        values = getattr(styles, name)
        valid_type = name not in ranges or values.dtype.kind in "iu"
        if not valid_type or not ((values >= low) & (values <= high)).all():
            kind = "whole numbers" if name in ranges else "numbers"
            raise ValueError(
                f"styles: {name} must be {kind} from {low} to {high}, got {values.dtype} from"
                f" {values.min()} to {values.max()}"
            )
    return styles


def open_drawings(name: str, fold: int) -> Dataset:
    """Renders the digits of ``embedded:digits``, 28 by 28 by 3, in their order and folds.

    A batch has ``label``, the digit, and ``style``, the class of the style.
    """
    digits, labels = read_digits(name)
    colored = ColoredDigits()
    styles = colored.styles(np.arange(len(digits)))
    images = colored.render(digits, styles)
    part = arrays_part({"image": images, "label": labels, "style": colored.classes(styles)})
    splits = make_splits({"train": part}, fold, name=name)
    return Dataset(name=name, shape=images.shape[1:], num_classes=10, truth=colored, **splits)
