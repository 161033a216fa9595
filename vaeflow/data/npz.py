"""Images in a NumPy archive."""

from __future__ import annotations

from vaeflow.data.archives import open_archive, read_array
from vaeflow.data.arrays import array_part
from vaeflow.data.checks import check_images, check_labels
from vaeflow.data.dataset import Dataset
from vaeflow.data.splits import SPLITS, make_splits

_KEYS = (
    "image (with or without label), or train_image (with or without validation_image and"
    " test_image, and train_label and so on)"
)


def open_npz(name: str, path: str, fold: int) -> Dataset:
    """Opens the archive at `path`, an ``.npz`` file.

    Arrays are ``image`` and, if wanted, ``label``, and the splits are carved out of them; or
    ``train_image``, ``validation_image``, ``test_image`` and ``train_label`` and so on, where
    validation and test are carved out of train only if they are missing. Images are uint8 of
    shape [count, height, width] or [count, height, width, channel]; labels are whole numbers of
    shape [count]. Arrays under other names are ignored. Nothing is ever unpickled.

    Raises:
      ValueError: The file is missing or isn't an archive, or an array is of the wrong name, type,
        rank, range or length.
    """
    with open_archive(name, path) as archive:
        prefixes = _prefixes(archive.files, name)
        images = {
            split: check_images(
                read_array(archive, f"{prefix}image", name), name=f"source={name!r}, {prefix}image"
            )
            for split, prefix in prefixes.items()
        }
        labels = {
            split: check_labels(
                read_array(archive, f"{prefix}label", name),
                len(images[split]),
                name=f"source={name!r}, {prefix}label",
            )
            for split, prefix in prefixes.items()
            if f"{prefix}label" in archive.files
        }

    shapes = {split: array.shape[1:] for split, array in images.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"source={name!r}: images of different shapes: {shapes}")
    if labels and len(labels) < len(images):
        raise ValueError(
            f"source={name!r}: labels for {sorted(labels)} alone; allowed are labels for all of"
            f" {sorted(images)} or none"
        )
    parts = {split: array_part(images[split], labels.get(split)) for split in images}
    splits = make_splits(parts, fold, name=name)
    classes = max(int(array.max(initial=0)) for array in labels.values()) + 1 if labels else None
    return Dataset(name=name, shape=shapes["train"], classes=classes, **splits)


def _prefixes(keys: list[str], name: str) -> dict[str, str]:
    """Maps each split that the archive holds to the prefix of its arrays' names."""
    if "image" in keys and "train_image" not in keys:
        return {"train": ""}
    if "train_image" in keys and "image" not in keys:
        return {split: f"{split}_" for split in SPLITS if f"{split}_image" in keys}
    raise ValueError(f"source={name!r}: holds arrays {sorted(keys)}; allowed are {_KEYS}")
