"""Sprites: images rendered from five independent factors, whose ground truth is known.

In the manner of dSprites (Matthey et al. 2017), rendered here, with two differences that keep the
ground truth well defined. No shape has a rotational symmetry, and rotations stop short of a full
turn, so that different factors give different images. Edges are anti-aliased, so that a position
between two pixels shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from vaeflow.data.dataset import Dataset, Part, make_splits

SHAPES = ("heart", "triangle", "half_disc")
_DEFAULT_SIZE = 64
_SMALLEST_SIZE = 16
_ROWS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Sprites:
    """The ground truth of ``embedded:sprites``: five factors, and the rendering.

    The data set is the full grid: 3 shapes x 6 scales x 40 rotations x 32 x-positions x 32
    y-positions = 737,280 images. A *code* is a row of five integers, one a factor, in the order of
    `names`; ``index`` of a batch numbers the codes, the last factor running fastest.

    Attributes:
      image_size: Height and width of the images.
    """

    image_size: int = _DEFAULT_SIZE

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the factors."""
        return "shape", "scale", "rotation", "x", "y"

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each factor takes."""
        return len(SHAPES), 6, 40, 32, 32

    @property
    def values(self) -> tuple[Float[np.ndarray, " size"], ...]:
        """The values behind the codes of each factor.

        Shape: its number in `SHAPES`. Scale: relative to the largest, 0.5 to 1. Rotation:
        radians, counter-clockwise, 0 to 39/40 of a turn. x (to the right) and y (downwards): 0 to
        1 over the range where every sprite stays inside the image.
        """
        return (
            np.arange(len(SHAPES), dtype=np.float64),
            np.linspace(0.5, 1, 6),
            np.arange(40) * 2 * np.pi / 40,
            np.linspace(0, 1, 32),
            np.linspace(0, 1, 32),
        )

    def __len__(self) -> int:
        return int(np.prod(self.sizes))

    def codes(self, index: Int[np.ndarray, " batch"]) -> Int[np.ndarray, "batch 5"]:
        """Returns the codes of the images that `index` numbers."""
        return np.stack(np.unravel_index(np.asarray(index), self.sizes), axis=-1)

    def index(self, codes: Int[np.ndarray, "batch 5"]) -> Int[np.ndarray, " batch"]:
        """Returns the numbers of the images with the given codes, the inverse of `codes`."""
        return np.ravel_multi_index(tuple(np.moveaxis(self._check_codes(codes), -1, 0)), self.sizes)

    def render(
        self, codes: Int[np.ndarray, "batch 5"]
    ) -> UInt8[np.ndarray, "batch height width 1"]:
        """Renders the sprites with the given codes, white on black.

        A pixel's value is the share of it that the sprite covers, taken as the distance of the
        pixel's centre from the outline, in pixels, clipped to half a pixel on either side.

        Raises:
          ValueError: A code is out of its factor's range.
        """
        codes = self._check_codes(codes)
        parts = [
            self._render(codes[start : start + _ROWS_AT_ONCE])
            for start in range(0, len(codes), _ROWS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else self._render(codes)

    def _render(self, codes: np.ndarray) -> np.ndarray:
        shape = codes[:, 0]
        scale, rotation, x, y = (
            value[code].astype(np.float32)[:, np.newaxis, np.newaxis]
            for value, code in zip(self.values[1:], codes.T[1:], strict=True)
        )
        # The largest sprite has a radius of a sixth of the image, and no edge touches its border.
        radius = scale * self.image_size / 6
        margin = self.image_size / 6 + 1.5
        span = self.image_size - 2 * margin
        centers = np.arange(self.image_size, dtype=np.float32) + 0.5
        right = centers[np.newaxis, np.newaxis, :] - (margin + span * x)
        up = (margin + span * y) - centers[np.newaxis, :, np.newaxis]
        cosine, sine = np.cos(rotation), np.sin(rotation)
        u = (cosine * right + sine * up) / radius
        v = (cosine * up - sine * right) / radius
        distance = np.empty(u.shape, np.float32)
        for number, outline in enumerate((_heart, _triangle, _half_disc)):
            chosen = shape == number
            distance[chosen] = outline(u[chosen], v[chosen])
        coverage = np.clip(0.5 - distance * radius, 0, 1)
        return np.round(255 * coverage).astype(np.uint8)[..., np.newaxis]

    def _check_codes(self, codes: Sequence | np.ndarray) -> np.ndarray:
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] != 5:
            raise ValueError(f"codes must have shape (batch, 5), got {codes.shape}")
        if ((codes < 0) | (codes >= self.sizes)).any():
            raise ValueError(
                f"codes must be from 0 up to, not including, {self.sizes}, got"
                f" {codes.min(axis=0).tolist()} to {codes.max(axis=0).tolist()}"
            )
        return codes


# Signed distances to outlines inside the unit circle, negative within. u points right, v up.


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A square on its corner with a disc on each of its two upper sides."""
    half = 0.55  # half the square's side, and the discs' radius
    lobe = half / np.sqrt(2)
    v = v + 0.18
    along, across = (u + v) / np.sqrt(2), (u - v) / np.sqrt(2)
    beyond_along, beyond_across = np.abs(along) - half, np.abs(across) - half
    square = np.hypot(np.maximum(beyond_along, 0), np.maximum(beyond_across, 0))
    square = square + np.minimum(np.maximum(beyond_along, beyond_across), 0)
    discs = np.hypot(np.abs(u) - lobe, v - lobe) - half
    return np.minimum(square, discs)


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """An isosceles triangle, higher than wide, pointing up."""
    tip, base, half_width = 0.9, -0.65, 0.65
    length = np.hypot(tip - base, half_width)
    side = ((tip - base) * np.abs(u) + half_width * (v - tip)) / length
    return np.maximum(side, base - v)


def _half_disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The upper half of a disc, moved down so that it turns about its centre."""
    v = v + 0.4
    return np.maximum(np.hypot(u, v) - 0.9, -v)


def open_sprites(name: str, fold: int, image_size: int | None) -> Dataset:
    """Opens the sprites at 64 by 64 by 1, or another size; images are rendered when they are read.

    Raises:
      ValueError: `image_size` is too small to tell the sprites apart.
    """
    if image_size is not None and image_size < _SMALLEST_SIZE:
        raise ValueError(
            f"image_size={image_size}: {name} needs at least {_SMALLEST_SIZE} to show its sprites"
        )
    sprites = Sprites(_DEFAULT_SIZE if image_size is None else image_size)
    part = Part(lambda rows: {"image": sprites.render(sprites.codes(rows))}, len(sprites))
    splits = make_splits({"train": part}, fold, name=name)
    shape = (sprites.image_size, sprites.image_size, 1)
    return Dataset(name=name, shape=shape, num_classes=None, truth=sprites, **splits)
