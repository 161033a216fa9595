"""Images prepared by TensorFlow Datasets (``tfds:NAME``), read without TensorFlow."""

from __future__ import annotations

import numpy as np

from vaeflow._util.files import missing_package
from vaeflow._util.messages import listed, shown
from vaeflow.data.dataset import SPLITS, Dataset, Part, make_splits
from vaeflow.data.images import Crop, check_crop, crop_and_resize, cropped_size


def open_prepared(
    name: str,
    dataset: str,
    fold: int,
    image_size: int | None,
    crop: Crop,
    data_dir: str | None,
) -> Dataset:
    """Opens `dataset`, such as ``mnist``, ``celeb_a`` or ``celeb_a_hq/256``, from disk.

    It must have been prepared as array_record, once, with TensorFlow installed::

        pip install tensorflow
        tfds build mnist --file_format=array_record

    Nothing is downloaded here, and TensorFlow isn't needed any more. The feature ``image`` is
    read and, where there is one, the class label ``label``; splits are those named ``train``,
    ``validation`` and ``test``, and missing ones are carved out of train.

    CelebA comes from Google Drive, whose quota often makes the download fail with
    NonMatchingChecksumError. Then fetch ``img_align_celeba.zip``, ``list_eval_partition.txt``,
    ``list_attr_celeba.txt``, ``list_landmarks_align_celeba.txt`` and ``identity_CelebA.txt`` in a
    browser, put all five into one folder and run ``tfds build celeb_a --file_format=array_record
    --manual_dir=FOLDER``. Or do without TensorFlow Datasets: unzip the images, put
    ``list_eval_partition.txt`` next to the folder that comes out and open all of it as
    ``folder:PATH``. Published bits/dim are about ``crop="celeba"`` with ``image_size=64``.

    Args:
      name: The source string.
      dataset: Name, with ``/config`` and ``:version`` where wanted.
      fold: Which fold to hold out, where splits are carved.
      image_size: Height and width to bring images to, or None to leave them.
      crop: Cropping before resizing; see `vaeflow.data.images.crop_and_resize`.
      data_dir: Where prepared data lie, or None for TensorFlow Datasets' default.

    Raises:
      ValueError: The package is missing, the data set is unknown, not prepared or not as
        array_record, or isn't one of uint8 images.
    """
    builder = _find(name, dataset, data_dir)
    features = dict(builder.info.features.items())
    feature = features.get("image")
    if feature is None or len(feature.shape or ()) != 3:
        raise ValueError(
            f"source='{shown(name)}': no feature 'image' of shape (height, width, channel) among"
            f" [{listed(sorted(features))}]"
        )
    if np.dtype(feature.np_dtype) != np.uint8:
        raise ValueError(
            f"source='{shown(name)}': images must be uint8, got {np.dtype(feature.np_dtype)}"
        )
    shape = _shape(name, feature.shape, image_size, crop)
    classes = getattr(features.get("label"), "num_classes", None)
    parts = {
        split: _part(builder.as_data_source(split=split), image_size, crop, classes is not None)
        for split in SPLITS
        if split in builder.info.splits
    }
    if "train" not in parts:
        raise ValueError(
            f"source='{shown(name)}': has splits [{listed(sorted(builder.info.splits))}]; a train"
            " split is needed"
        )
    splits = make_splits(parts, fold, name=name)
    return Dataset(name=name, shape=shape, num_classes=classes, **splits)


def _find(name: str, dataset: str, data_dir: str | None):
    """Returns the builder of prepared files, which neither fetches nor writes anything."""
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import read_only_builder
    except ImportError as error:
        raise missing_package(f"source='{shown(name)}'", "tensorflow-datasets") from error
    place = {} if data_dir is None else {"data_dir": data_dir}
    try:
        builder = read_only_builder.builder_from_files(dataset, **place)
    except tfds.core.DatasetNotFoundError:
        where = shown(data_dir, 80) if data_dir else "TensorFlow Datasets' default folder"
        if not _is_known(dataset):
            raise ValueError(
                f"source='{shown(name)}': TensorFlow Datasets knows no data set"
                f" '{shown(dataset, 80)}', and none is prepared in {where}"
            ) from None
        option = "" if data_dir is None else f" --data_dir={shown(data_dir, 80)}"
        raise ValueError(
            f"source='{shown(name, 80)}': not prepared in {where}; with TensorFlow installed run:"
            f" tfds build {shown(dataset, 80)} --file_format=array_record{option} (and"
            " --manual_dir=FOLDER for files fetched by hand), or give the images themselves as"
            " folder:PATH"
        ) from None
    except ValueError as error:
        raise ValueError(
            f"source='{shown(name)}': the name of a data set must be NAME, NAME/CONFIG or"
            f" NAME:VERSION, got '{shown(dataset, 80)}'"
        ) from error
    if builder.info.file_format.value != "array_record":
        raise ValueError(
            f"source='{shown(name)}': must be prepared as array_record, got"
            f" {builder.info.file_format.value}, which can't be read at random: tfds build"
            f" {shown(dataset, 80)} --file_format=array_record --overwrite"
        )
    return builder


def _is_known(dataset: str) -> bool:
    import tensorflow_datasets as tfds

    try:
        tfds.builder_cls(dataset.partition("/")[0].partition(":")[0])
    except (tfds.core.DatasetNotFoundError, ValueError):
        return False
    return True


def _shape(
    name: str, shape: tuple[int | None, ...], image_size: int | None, crop: Crop
) -> tuple[int, int, int]:
    height, width, channel = shape
    if channel is None:
        raise ValueError(
            f"source='{shown(name)}': images of shape {shape}; the channels must be fixed"
        )
    check_crop(shape, crop, name=f"source='{shown(name)}'")
    if image_size is not None:
        return image_size, image_size, channel
    if height is None or width is None:
        raise ValueError(f"source='{shown(name)}': images of different sizes; give image_size")
    return (*cropped_size(height, width, crop), channel)


def _part(examples, image_size: int | None, crop: Crop, labelled: bool) -> Part:
    def read(rows):
        records = examples.__getitems__([int(row) for row in rows])
        images = [crop_and_resize(record["image"], image_size, crop) for record in records]
        batch = {"image": np.stack(images)}
        if labelled:
            batch["label"] = np.array([record["label"] for record in records], np.int32)
        return batch

    return Part(read, len(examples))
