"""Data sets of other libraries, example by example: Hugging Face's, and PyTorch's map-style ones.

Neither library is imported: all that is needed is ``len(dataset)`` and ``dataset[number]``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vaeflow._util.messages import listed, shown
from vaeflow.data.dataset import SPLITS, Dataset, Part, make_splits
from vaeflow.data.folder import decode_image, upright_pixels
from vaeflow.data.images import Crop, crop_and_resize

SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
"""Names of splits, and ours."""


def from_huggingface(
    dataset: Any,
    *,
    image: str = "image",
    label: str | None = "label",
    image_size: int | None = None,
    crop: Crop = "center",
    fold: int = 0,
    name: str = "huggingface",
) -> Dataset:
    """Makes a data set of images of one of Hugging Face `datasets`, read when they are needed.

    Args:
      dataset: A `datasets.Dataset`, from which splits are carved, or a `datasets.DatasetDict` with
        ``train`` and, if it has them, ``validation`` (or ``valid``, ``val``) and ``test``; its
        other splits are ignored.
      image: The column of images: `datasets.Image`, or arrays as `from_pytorch` takes them.
      label: The column of labels, ignored if it isn't there; None for no labels. Its classes are
        those of its `datasets.ClassLabel`, or as many as its largest number asks for.
      image_size: Height and width in pixels that images are brought to; None leaves them.
      crop: Cropping before resizing; see `vaeflow.data.DataConfig`.
      fold: Which of ten folds to hold out, 0 to 9, where splits are carved.
      name: Name of the data set, for its summary and for errors.

    Raises:
      ValueError: There is no ``train``, a column is missing, or the first image isn't one. What is
        wrong with another image, such as its size, is raised when it is read.
    """
    given = dataset if isinstance(dataset, Mapping) else {"train": dataset}
    known = [key for key in given if key in SPLIT_NAMES]
    parts = {split: given[key] for split in SPLITS for key in known if SPLIT_NAMES[key] == split}
    if "train" not in parts or len(parts) < len(known):
        raise ValueError(
            f"source='{shown(name)}': must have a split train, and each split once, got"
            f" [{listed(given)}]"
        )
    columns = list(parts["train"].column_names)
    if image not in columns:
        raise ValueError(f"source='{shown(name)}': no column '{image}' among [{listed(columns)}]")
    has_labels = label is not None and label in columns
    num_classes = None
    if has_labels:
        num_classes = getattr(parts["train"].features[label], "num_classes", None)
        if num_classes is None:
            num_classes = 1 + max(int(np.max(rows[label])) for rows in parts.values())

    def split(example: Mapping[str, Any]) -> tuple[Any, Any]:
        return example[image], example[label] if has_labels else None

    return _make_dataset(parts, split, num_classes, image_size, crop, fold, name)


def from_pytorch(
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    crop: Crop = "center",
    fold: int = 0,
    name: str = "pytorch",
) -> Dataset:
    """Makes a data set of images of PyTorch's map-style data sets, read when they are needed.

    An example is an image, or a tuple of an image and a label, as of `torchvision.datasets`. An
    image is one of Pillow, or an array or tensor of shape [height, width], [height, width, channel]
    or [channel, height, width], of 1 or 3 channels: uint8, or floats that are multiples of 1/255,
    as ``ToTensor`` makes them. Transforms that draw at random belong into the loss, not here: a run
    that is resumed reads examples in another order of calls.

    Args:
      train: Anything with ``len(train)`` and ``train[number]``.
      validation: The same, or None to carve examples out of `train`.
      test: The same, or None to carve examples out of `train`.
      num_classes: Number of classes of the labels; None for the length of ``train.classes``, if
        there is that.
      image_size: Height and width in pixels that images are brought to; None leaves them.
      crop: Cropping before resizing; see `vaeflow.data.DataConfig`.
      fold: Which of ten folds to hold out, 0 to 9, where splits are carved.
      name: Name of the data set, for its summary and for errors.

    Raises:
      ValueError: The first image isn't one, or there are labels, but no number of classes. What is
        wrong with another image, such as its size, is raised when it is read.
    """
    given = {"train": train, "validation": validation, "test": test}
    parts = {split: examples for split, examples in given.items() if examples is not None}

    def split(example: Any) -> tuple[Any, Any]:
        if isinstance(example, tuple | list):
            return example[0], example[1] if len(example) > 1 else None
        return example, None

    if len(train) and split(train[0])[1] is not None and num_classes is None:
        classes = getattr(train, "classes", None)
        if classes is None:
            raise ValueError(f"source='{shown(name)}': num_classes must be given for labels")
        num_classes = len(classes)
    return _make_dataset(parts, split, num_classes, image_size, crop, fold, name)


def _make_dataset(
    given: Mapping[str, Any],
    split: Any,
    num_classes: int | None,
    image_size: int | None,
    crop: Crop,
    fold: int,
    name: str,
) -> Dataset:
    """Makes a data set of examples that `split` divides into images and labels."""
    if not len(given["train"]):
        raise ValueError(f"source='{shown(name)}': its train split is empty")

    def read_image(part: str, row: int) -> tuple[UInt8[np.ndarray, "..."], Any]:
        label = f"source='{shown(name)}', {part} {row}"
        image, own = split(given[part][row])
        return crop_and_resize(to_pixels(image, label), image_size, crop), own

    shape = read_image("train", 0)[0].shape

    def make_read(part: str):
        def read(rows: np.ndarray) -> dict[str, np.ndarray]:
            images = np.empty((len(rows), *shape), np.uint8)
            labels = np.empty(len(rows), np.int32)
            for place, row in enumerate(rows.tolist()):
                image, own = read_image(part, row)
                label = f"source='{shown(name)}', {part} {row}"
                if image.shape[:2] != shape[:2] or image.shape[2] not in (1, shape[2]):
                    raise ValueError(
                        f"{label}: images must be of one shape, {shape} of the first, got"
                        f" {image.shape}; give image_size if sizes differ"
                    )
                images[place] = image
                if num_classes is not None:
                    if own is None or not 0 <= int(own) < num_classes:
                        raise ValueError(f"{label}: label must be below {num_classes}, got {own}")
                    labels[place] = int(own)
            return {"image": images} | ({} if num_classes is None else {"label": labels})

        return read

    parts = {part: Part(make_read(part), len(examples)) for part, examples in given.items()}
    splits = make_splits(parts, fold, name=name)
    return Dataset(name=name, shape=shape, num_classes=num_classes, **splits)


_LEVELS = 255

_ROUNDING = 1e-3
"""By which a float may differ from a level, in units of levels."""


def to_pixels(image: Any, label: str) -> UInt8[np.ndarray, "height width channel"]:
    """Turns an image, as `from_pytorch` takes it, or a dict of its file's bytes, into pixels.

    Args:
      image: The image.
      label: What it is, for errors.

    Raises:
      ValueError: It isn't one.
    """
    if isinstance(image, Mapping):
        content = image.get("bytes")
        if not isinstance(content, bytes):
            raise ValueError(f"{label}: must have an image file embedded, got none")
        try:
            return decode_image(io.BytesIO(content), len(content))
        except ValueError as error:
            raise ValueError(f"{label}: can't be read as an image: {error}") from error
    if hasattr(image, "getpalette"):
        try:
            return upright_pixels(image)
        except ValueError as error:
            raise ValueError(f"{label}: can't be read as an image: {error}") from error
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim == 3 and array.shape[2] not in (1, 3) and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        raise ValueError(
            f"{label}: an image must have the shape [height, width], or another axis of 1 or 3"
            f" channels, got {shown(np.shape(image), 80)}"
        )
    if array.dtype.kind == "f":
        levels = array.astype(np.float64) * _LEVELS
        array = np.round(levels)
        if not np.abs(array - levels).max() <= _ROUNDING:
            raise ValueError(
                f"{label}: pixels must be uint8, or multiples of 1/255 as ToTensor makes them, got"
                f" other {np.asarray(image).dtype}, {np.min(image):.4g} to {np.max(image):.4g}"
            )
    elif array.dtype != np.uint8:
        raise ValueError(f"{label}: pixels must be uint8 or floats, got {array.dtype}")
    if array.min() < 0 or array.max() > _LEVELS:
        raise ValueError(f"{label}: pixels must be in 0..255, got {array.min()} to {array.max()}")
    return array.astype(np.uint8)
