"""TensorFlow Datasets, prepared as array_record by a small builder, without TensorFlow."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from vaeflow import data
from vaeflow.data.images import crop_and_resize

LABELLED = {
    "image": tfds.features.Image(shape=(None, None, 3)),
    "label": tfds.features.ClassLabel(num_classes=4),
}


def pixels(number: int, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(number)
    return generator.integers(0, 256, shape, dtype=np.uint8)


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, features, counts, shapes, **options):
        self._made_of = (features, counts, shapes)
        super().__init__(**options)

    def _info(self):
        features = tfds.features.FeaturesDict(self._made_of[0])
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, download_manager):
        return {name: self._generate_examples(name) for name in self._made_of[1]}

    def _generate_examples(self, split):
        from PIL import Image

        features, counts, shapes = self._made_of
        for number in range(counts[split]):
            image = Image.fromarray(pixels(number, shapes[number % len(shapes)]))
            example = {"image": image, "label": number % 4, "text": "x", "identity": number}
            yield number, {key: example[key] for key in features}


class Sixes(_Builder, skip_registration=True):
    """One fixed shape."""


@pytest.fixture
def prepare(tmp_path):
    def prepare(
        features=None,
        counts=None,
        shapes=((6, 6, 3), (9, 7, 3)),
        file_format="array_record",
    ) -> None:
        builder = Sixes(
            features or LABELLED,
            counts or {"train": 20, "test": 5},
            shapes,
            data_dir=str(tmp_path),
            file_format=file_format,
        )
        builder.download_and_prepare()

    return prepare


def open_prepared(tmp_path, name: str = "sixes", **options) -> data.Dataset:
    return data.open_dataset(data.DataConfig(f"tfds:{name}", data_dir=str(tmp_path), **options))


def test_prepared_examples_with_labels(prepare, tmp_path):
    prepare({**LABELLED, "identity": tfds.features.Scalar(np.int64)})
    dataset = open_prepared(tmp_path, image_size=5)
    assert dataset.shape == (5, 5, 3)
    assert dataset.num_classes == 4
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [18, 2, 5]
    expected = {
        crop_and_resize(pixels(number, shape), 5, "center").tobytes(): number % 4
        for number in range(20)
        for shape in [((6, 6, 3), (9, 7, 3))[number % 2]]
    }
    seen = []
    for split in (dataset.train, dataset.validation):
        batch = data.stack(split)
        for image, label in zip(batch["image"], batch["label"], strict=True):
            assert expected[image.tobytes()] == label
            seen.append(image.tobytes())
        for position in range(len(split)):
            np.testing.assert_array_equal(split[position]["image"], batch["image"][position])
    assert len(set(seen)) == 20
    assert data.stack(dataset.test)["index"].tolist() == [20, 21, 22, 23, 24]
    batch = next(data.training_batches(dataset.train, 6, 0, flip=True))
    assert batch["image"].shape == (6, 5, 5, 3)
    assert batch["label"].dtype == np.int32


def test_fixed_shape_needs_no_image_size(prepare, tmp_path):
    prepare(
        {"image": tfds.features.Image(shape=(6, 6, 1))},
        {"train": 12, "validation": 3, "test": 4},
        [(6, 6)],
    )
    dataset = open_prepared(tmp_path, name="sixes:1.0.0")
    assert dataset.shape == (6, 6, 1)
    assert dataset.num_classes is None
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [12, 3, 4]
    assert "label" not in data.stack(dataset.train)
    originals = {pixels(number, (6, 6)).tobytes() for number in range(12)}
    assert {image.tobytes() for image in data.stack(dataset.train)["image"]} == originals


def test_celeba_shape_and_crop(prepare, tmp_path):
    prepare({"image": tfds.features.Image(shape=(218, 178, 3))}, {"train": 10}, [(218, 178, 3)])
    dataset = open_prepared(tmp_path, image_size=64, crop="celeba")
    assert dataset.shape == (64, 64, 3)
    expected = {
        crop_and_resize(pixels(number, (218, 178, 3)), 64, "celeba").tobytes()
        for number in range(10)
    }
    assert data.stack(dataset.test)["image"][0].tobytes() in expected
    assert open_prepared(tmp_path, crop="celeba").shape == (148, 148, 3)


@pytest.mark.parametrize(("crop", "columns"), [("left", slice(0, 6)), ("right", slice(7, 13))])
def test_halves_of_prepared_images(prepare, tmp_path, crop, columns):
    prepare({"image": tfds.features.Image(shape=(6, 13, 3))}, {"train": 10}, [(6, 13, 3)])
    dataset = open_prepared(tmp_path, crop=crop)
    assert dataset.shape == (6, 6, 3)
    originals = {pixels(number, (6, 13, 3))[:, columns].tobytes() for number in range(10)}
    batch = data.stack(dataset.train)
    assert batch["image"].shape == (8, 6, 6, 3)
    assert {image.tobytes() for image in batch["image"]} < originals
    assert open_prepared(tmp_path, crop=crop, image_size=4).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("prepared", "options", "message"),
    [
        ({}, {}, "'tfds:sixes': images of different sizes; give image_size"),
        (
            {},
            {"crop": "celeba"},
            "crop='celeba': .*'tfds:sixes' must be an aligned .* got of varying size",
        ),
        ({"counts": {"test": 5}}, {"image_size": 4}, r"has splits \['test'\]; a train split"),
        ({"counts": {"train": 5}}, {"image_size": 4}, "5 training examples are too few"),
        (
            {"features": {"text": tfds.features.Text()}},
            {},
            r"no feature 'image' of shape .* among \['text'\]",
        ),
        (
            {
                "features": {"image": tfds.features.Image(shape=(6, 6, 1), dtype=np.uint16)},
                "shapes": [(6, 6)],
            },
            {},
            "images must be uint8, got uint16",
        ),
    ],
)
def test_unfit_data_raise_one_line(prepare, tmp_path, prepared, options, message):
    prepare(**prepared)
    with pytest.raises(ValueError, match=message) as caught:
        open_prepared(tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_other_file_formats_raise(prepare, tmp_path):
    prepare()
    info = tmp_path / "sixes" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=r"must be prepared as array_record, got tfrecord, which"):
        open_prepared(tmp_path, image_size=4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "celeb_a",
            "not prepared in .*: tfds build celeb_a --file_format=array_record --data_dir=",
        ),
        ("celeb_a_hq/256", "not prepared in .*; .* --manual_dir=FOLDER .* folder:PATH"),
        ("no_such_data", "knows no data set 'no_such_data', and none is prepared"),
        ("no such data", "the name of a data set must be NAME, NAME/CONFIG .* got 'no such data'"),
    ],
)
def test_unprepared_and_unknown_names(tmp_path, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_prepared(tmp_path, name=name)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())  # asking leaves no trace


@pytest.mark.parametrize(
    ("module", "package", "use"),
    [
        (
            "tensorflow_datasets",
            "tensorflow-datasets",
            lambda dataset: data.open_dataset(data.DataConfig("tfds:mnist")),
        ),
        ("grain", "grain", lambda dataset: data.training_batches(dataset.train, 4, 0)),
    ],
)
def test_missing_packages_are_named_with_the_extra(monkeypatch, module, package, use):
    dataset = data.open_dataset(data.DataConfig())
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"needs the package {package}; .*vaeflow\[experiments\]"):
        use(dataset)


@pytest.mark.slow
def test_importing_and_reading_load_only_the_packages_needed(prepare, tmp_path):
    prepare()
    program = f"""
import sys
from vaeflow import data
heavy = ["PIL", "grain", "tensorflow_datasets", "skimage", "mlxtend", "tensorflow"]
loaded = [name for name in heavy if name in sys.modules]
for source in ("faces", "face-edges", "digits", "drawings", "sprites"):
    data.stack(data.open_dataset(data.DataConfig("embedded:" + source)).test, 2)
loaded += [name for name in heavy if name in sys.modules]
config = data.DataConfig("tfds:sixes", image_size=4, data_dir={str(tmp_path)!r})
data.stack(data.open_dataset(config).test)
loaded += [name for name in heavy if name in sys.modules and name != "PIL"]
print(loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "['tensorflow_datasets']"
