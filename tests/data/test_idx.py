"""IDX files: reading, and errors of invalid files."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from vaeflow import data

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 5, 4), dtype=np.uint8)
LABELS = (np.arange(24) % 3).astype(np.uint8)
COUNT = 20
NAMES = {
    "train_image": "train-images-idx3-ubyte",
    "train_label": "train-labels-idx1-ubyte",
    "test_image": "t10k-images-idx3-ubyte",
    "test_label": "t10k-labels-idx1-ubyte",
}


def encoded(array: np.ndarray) -> bytes:
    """The bytes of a file, by its description."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


FILES = {
    "train_image": encoded(IMAGES[:COUNT]),
    "train_label": encoded(LABELS[:COUNT]),
    "test_image": encoded(IMAGES[COUNT:]),
    "test_label": encoded(LABELS[COUNT:]),
}


@pytest.fixture
def open_files(tmp_path):
    def open_files(fold: int = 0, rename=lambda name: name, **files) -> data.Dataset:
        for key, content in (FILES | files).items():
            name = rename(NAMES[key])
            if content is not None:
                written = gzip.compress(content) if name.endswith(".gz") else content
                (tmp_path / name).write_bytes(written)
        return data.open_dataset(data.DataConfig(f"idx:{tmp_path}", fold=fold))

    return open_files


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: f"{name}.gz",
        lambda name: name.replace("-idx", ".idx"),
        lambda name: f"{name.replace('-idx', '.idx')}.gz",
    ],
    ids=["plain", "gz", "dot", "dot and gz"],
)
def test_images_and_labels_come_with_their_splits(open_files, rename):
    dataset = open_files(rename=rename)
    assert (dataset.shape, dataset.num_classes) == ((5, 4, 1), 3)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [18, 2, 4]
    test = data.stack(dataset.test)
    np.testing.assert_array_equal(test["image"][..., 0], IMAGES[COUNT:])
    np.testing.assert_array_equal(test["label"], LABELS[COUNT:])
    assert test["label"].dtype == np.int32
    for split in (dataset.train, dataset.validation):
        batch = data.stack(split)
        np.testing.assert_array_equal(batch["image"][..., 0], IMAGES[batch["index"]])
        np.testing.assert_array_equal(batch["label"], LABELS[batch["index"]])


def test_folds_of_validation_tile_the_training_files(open_files):
    held_out = [data.stack(open_files(fold).validation)["index"] for fold in range(10)]
    assert sorted(np.concatenate(held_out)) == list(range(COUNT))


def test_many_axes_and_bytes_are_read_in_order(open_files):
    # More than 255 images, so that sizes take two bytes.
    images = np.arange(300 * 2 * 3, dtype=np.uint32).astype(np.uint8).reshape(300, 2, 3)
    labels = np.zeros(300, np.uint8)
    dataset = open_files(
        train_image=encoded(images),
        train_label=encoded(labels),
        test_image=encoded(images[::-1]),
        test_label=encoded(labels),
    )
    np.testing.assert_array_equal(data.stack(dataset.test)["image"][..., 0], images[::-1])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"test_label": None}, r"no file t10k-labels-idx1-ubyte, .*\.gz, .* or t10k-labels\.idx1"),
        (
            {"train_image": FILES["train_label"]},
            r"train-images-idx3-ubyte: must begin with the bytes 00 00 08 03, .* got 00 00 08 01",
        ),
        (
            {"train_label": encoded(LABELS[:COUNT, None])},
            "must begin with the bytes 00 00 08 01, .* got 00 00 08 02",
        ),
        (
            {"test_image": b"\0\0\x0d\x03" + FILES["test_image"][4:]},
            "t10k-images-idx3-ubyte: must begin .* got 00 00 0d 03",
        ),
        ({"test_image": b""}, "must begin with the bytes .* got none"),
        (
            {"test_image": FILES["test_image"][:9]},
            "must have a head of 16 bytes, got 9 bytes in all",
        ),
        (
            {"test_image": FILES["test_image"][:-1]},
            r"must hold 96 bytes for the shape \(4, 5, 4\) of its head, got 95",
        ),
        ({"test_label": FILES["test_label"] + b"\0"}, r"must hold 12 bytes .* \(4,\) .* got 13"),
        (
            {"train_label": encoded(LABELS[: COUNT - 1])},
            r"train-labels-idx1-ubyte: shape must be \(20,\) for 20 images, got \(19,\)",
        ),
        (
            {"test_image": encoded(IMAGES[COUNT:, :3])},
            r"images of different shapes: .*\(5, 4, 1\).*\(3, 4, 1\)",
        ),
        ({"test_image": encoded(IMAGES[:0]), "test_label": encoded(LABELS[:0])}, "test split is"),
        ({"train_image": encoded(IMAGES[:COUNT, :0])}, r"shape must be .*, got \(20, 0, 4\)"),
    ],
)
def test_bad_files_raise_one_line(open_files, tmp_path, files, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_files(**files)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"no" + content])
def test_damaged_compression_raises(open_files, tmp_path, damage):
    open_files(rename=lambda name: f"{name}.gz")
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz: can't be decompressed"):
        data.open_dataset(data.DataConfig(f"idx:{tmp_path}"))


def test_no_more_is_decompressed_than_the_head_declares(open_files, tmp_path):
    open_files(rename=lambda name: f"{name}.gz")
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    large = struct.pack(">HBBIII", 0, 8, 3, 2**10, 2**10, 2**10)
    for content, message in (
        (FILES["test_image"] + bytes(2**20), r"must hold 96 bytes for .* got more"),
        (large, r"\(1024, 1024, 1024\) of its head, got a file that holds 67108864 at most"),
    ):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(ValueError, match=message):
            data.open_dataset(data.DataConfig(f"idx:{tmp_path}"))


def test_a_missing_folder_and_options_that_do_not_fit_raise(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        data.open_dataset(data.DataConfig(f"idx:{tmp_path}/elsewhere"))
    with pytest.raises(ValueError, match="never resampled"):
        data.open_dataset(data.DataConfig(f"idx:{tmp_path}", image_size=8))
