"""Images of noise, and figures read back as pixels."""

import io

import numpy as np
import PIL.Image


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def render(figure) -> np.ndarray:
    """The figure as saved, uint8 of shape [height, width, 3]."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    return np.asarray(PIL.Image.open(buffer).convert("RGB"))


def occurrences(canvas: np.ndarray, image: np.ndarray, scale: int) -> list[tuple[int, int]]:
    """Where (top, left) an image, enlarged by a whole factor, is on a canvas pixel by pixel."""
    enlarged = np.broadcast_to(image, (*image.shape[:2], 3)).repeat(scale, 0).repeat(scale, 1)
    height, width, _ = enlarged.shape
    corners = np.argwhere(np.all(canvas == enlarged[0, 0], axis=-1))
    return [
        (top, left)
        for top, left in corners.tolist()
        if np.array_equal(canvas[top : top + height, left : left + width], enlarged)
    ]
