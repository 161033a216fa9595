"""Contrasts, and colours as readers with and without a colour vision deficiency see them."""

import numpy as np

# Machado, Oliveira & Fernandes 2009, "A physiologically-based model for simulation of color vision
# deficiency", table 1 at severity 1; on linear sRGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}

# CIE XYZ of the primaries of sRGB, IEC 61966-2-1.
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def rgb(*colors: str) -> np.ndarray:
    """Red, green and blue of "#rrggbb", from 0 to 1, [colour, 3]."""
    return np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in colors])


def linear(colors: np.ndarray) -> np.ndarray:
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def contrasts(colors: np.ndarray, background: str) -> np.ndarray:
    """Contrast ratios of the Web Content Accessibility Guidelines 2.1, from 1 to 21."""
    shades = [linear(part) @ XYZ[1] + 0.05 for part in (colors, rgb(background)[0])]
    return np.maximum(shades[0] / shades[1], shades[1] / shades[0])


def lab(colors: np.ndarray, vision: str = "normal") -> np.ndarray:
    """CIELAB under D65 of what a reader sees."""
    seen = np.clip(linear(colors) @ VISIONS[vision].T, 0, 1)
    relative = seen @ XYZ.T / XYZ.sum(axis=1)
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * 841 / 108 + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def smallest_distance(colors: np.ndarray, vision: str) -> float:
    """Smallest distance of two of the colours in CIELAB."""
    seen = lab(colors, vision)
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1)
    return float(apart[np.triu_indices(len(colors), 1)].min())
