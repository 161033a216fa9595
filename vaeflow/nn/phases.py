"""Maps of twice the size, computed as the four phases of squares of 2x2 pixels."""

from __future__ import annotations

from jaxtyping import Array, Float


def doubled_size(shape: tuple[int, ...], size: tuple[int, int] | None) -> tuple[int, int]:
    """The height and width to keep of maps of twice the size of those of a shape.

    Args:
      shape: That of the maps before, [batch, height, width, channel].
      size: What is asked for, or None for all.

    Raises:
      ValueError: If the size is larger than twice that of the maps.
    """
    whole = (2 * shape[1], 2 * shape[2])
    height, width = size or whole
    if height > whole[0] or width > whole[1]:
        raise ValueError(f"size must be at most {whole} for x of shape {shape}, got {size}")
    return height, width


def depth_to_space(
    squares: Float[Array, "batch height width phases_and_features"],
) -> Float[Array, "batch doubled_height doubled_width feature"]:
    """Lays four phases out, upper left, upper right, lower left, lower right, each features."""
    batch, rows, columns, channels = squares.shape
    squares = squares.reshape(batch, rows, columns, 2, 2, channels // 4)
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * rows, 2 * columns, -1)
