"""NumPy archives: reading, and errors of invalid archives."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from vaeflow import data

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 5, 4), dtype=np.uint8)
LABELS = np.arange(40) % 4


class Trap:
    """Fails the test if it is ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.fixture
def open_arrays(tmp_path):
    def open_arrays(fold: int = 0, **arrays) -> data.Dataset:
        np.savez(tmp_path / "data.npz", **arrays)
        return data.open_dataset(data.DataConfig(f"npz:{tmp_path}/data.npz", fold=fold))

    return open_arrays


def test_one_array_is_split_and_keeps_its_labels(open_arrays):
    dataset = open_arrays(image=IMAGES, label=LABELS)
    assert dataset.shape == (5, 4, 1)
    assert dataset.num_classes == 4
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [32, 4, 4]
    seen = []
    for split in (dataset.train, dataset.validation, dataset.test):
        batch = data.stack(split)
        np.testing.assert_array_equal(batch["image"][..., 0], IMAGES[batch["index"]])
        np.testing.assert_array_equal(batch["label"], LABELS[batch["index"]])
        seen.extend(batch["index"].tolist())
    assert sorted(seen) == list(range(40))


def test_given_test_set_is_exactly_the_test_split(open_arrays):
    arrays = {
        "train_image": IMAGES[:30],
        "train_label": LABELS[:30],
        "test_image": IMAGES[30:],
        "test_label": LABELS[30:],
    }
    dataset = open_arrays(**arrays)
    test = data.stack(dataset.test)
    np.testing.assert_array_equal(test["image"][..., 0], IMAGES[30:])
    np.testing.assert_array_equal(test["label"], LABELS[30:])
    assert [len(dataset.train), len(dataset.validation)] == [27, 3]
    held_out = [data.stack(open_arrays(fold, **arrays).validation)["index"] for fold in range(10)]
    assert sorted(np.concatenate(held_out)) == list(range(30))


def test_three_given_splits_are_taken_as_they_are(open_arrays):
    dataset = open_arrays(
        train_image=IMAGES[:20], validation_image=IMAGES[20:25], test_image=IMAGES[25:]
    )
    stacked = [data.stack(split) for split in (dataset.train, dataset.validation, dataset.test)]
    np.testing.assert_array_equal(np.concatenate([s["image"][..., 0] for s in stacked]), IMAGES)
    np.testing.assert_array_equal(np.concatenate([s["index"] for s in stacked]), np.arange(40))
    assert dataset.num_classes is None
    assert "label" not in stacked[0]


def test_colour_and_whole_numbers_of_other_types(open_arrays):
    colour = np.repeat(IMAGES[..., np.newaxis], 3, axis=-1)
    dataset = open_arrays(image=colour.astype(np.float32), label=LABELS.astype(np.uint8))
    assert dataset.shape == (5, 4, 3)
    batch = data.stack(dataset.train)
    assert batch["image"].dtype == np.uint8
    np.testing.assert_array_equal(batch["image"], colour[batch["index"]])


NOT_FINITE = IMAGES.astype(np.float32)
NOT_FINITE[3, 2, 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"image": IMAGES / 255},
            "image: values must be uint8 pixels.* got fractions of dtype float64",
        ),
        ({"image": NOT_FINITE}, "image: values must be .* got 1 that aren't finite"),
        ({"image": IMAGES.astype(int) + 1}, "image: values must be .* got 1 to 256"),
        ({"image": IMAGES.astype(int) - 1}, "image: values must be .* got -1 to 254"),
        (
            {"image": IMAGES.astype(complex)},
            "image: values must be uint8 pixels, 0 to 255, got dtype complex128",
        ),
        ({"image": IMAGES.astype(str)}, "image: values must be .*, got dtype <U3"),
        ({"image": IMAGES.reshape(40, 20)}, r"image: shape must be .*, got \(40, 20\)"),
        ({"image": IMAGES[..., None, None]}, r"image: shape must be .*, got \(40, 5, 4, 1, 1\)"),
        ({"image": IMAGES[:, :0]}, r"image: shape must be .*, got \(40, 0, 4\)"),
        ({"image": IMAGES[:9]}, "9 training examples are too few"),
        (
            {"image": np.array([Trap()] * 40)},
            "image must be a plain .* got Python objects, .* never unpickled",
        ),
        (
            {"image": IMAGES, "label": np.array([Trap()] * 40)},
            "label must be a plain .* got Python objects",
        ),
        ({"image": IMAGES, "label": LABELS[:39]}, r"label: shape must be \(40,\) .*, got \(39,\)"),
        ({"image": IMAGES, "label": LABELS[:, None]}, r"label: shape must be .*, got \(40, 1\)"),
        ({"image": IMAGES, "label": LABELS - 1}, "label: values must be classes .* got -1 to 2"),
        (
            {"image": IMAGES, "label": LABELS / 2},
            "label: values must be .* got fractions of dtype float64",
        ),
        ({"pixels": IMAGES}, r"arrays must be image .*, got \['pixels'\]"),
        ({"image": IMAGES, "train_image": IMAGES}, "arrays must be image .*, got .*train_image"),
        ({"test_image": IMAGES}, r"arrays must be .* got \['test_image'\]"),
        (
            {"train_image": IMAGES, "test_image": IMAGES[:, :4]},
            r"images of different shapes: .*\(5, 4, 1\).*\(4, 4, 1\)",
        ),
        (
            {"train_image": IMAGES, "train_label": LABELS, "test_image": IMAGES},
            r"labels must be there for all of .* got \['train'\]",
        ),
        ({"train_image": IMAGES, "test_image": IMAGES[:0]}, "its test split is empty"),
    ],
)
def test_bad_arrays_raise_one_line(open_arrays, arrays, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_arrays(**arrays)
    assert "\n" not in str(caught.value)
    assert "data.npz" in str(caught.value)


def test_devices_and_archives_of_two_arrays_of_one_name_raise(tmp_path):
    with pytest.raises(ValueError, match="/dev/zero isn't a regular file"):
        data.open_dataset(data.DataConfig("npz:/dev/zero"))
    np.savez(tmp_path / "data.npz", image=IMAGES)
    with (
        zipfile.ZipFile(tmp_path / "data.npz", "a") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr("image.npy", b"")
    with pytest.raises(ValueError, match=r"holds more than one file named 'image.npy'"):
        data.open_dataset(data.DataConfig(f"npz:{tmp_path}/data.npz"))


def test_a_shape_beyond_the_content_raises_before_it_is_allocated(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,)}"
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("image.npy", b"\x93NUMPY\1\0" + bytes([len(header), 0]) + header)
    with pytest.raises(ValueError, match=r"declares an array \(1000000000000,\) of uint8, but 0"):
        data.open_dataset(data.DataConfig(f"npz:{tmp_path}/data.npz"))


@pytest.mark.parametrize("content", [None, b"", b"not an archive", "npy", "cut", "flipped"])
def test_files_that_are_no_archives_raise(tmp_path, content):
    path = tmp_path / "data.npz"
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, IMAGES)
    elif content in ("cut", "flipped"):
        np.savez_compressed(path, image=IMAGES)
        whole = path.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        path.write_bytes(whole[:middle] if content == "cut" else flipped)
    elif content is not None:
        path.write_bytes(content)
    expected = {None: "there is no such file", "flipped": "image can't be read"}
    with pytest.raises(ValueError, match=expected.get(content, "not an .npz archive")) as caught:
        data.open_dataset(data.DataConfig(f"npz:{path}"))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
