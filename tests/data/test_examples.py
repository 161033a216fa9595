"""Data sets of Hugging Face, in memory and in folders, and map-style ones as PyTorch has."""

from __future__ import annotations

import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from vaeflow import data

PIXELS = np.random.RandomState(0).randint(0, 256, (30, 4, 5, 3), np.uint8)
GREY = PIXELS[..., :1]
LABELS = np.arange(30) % 3
FEATURES = datasets.Features(
    image=datasets.Image(),
    label=datasets.ClassLabel(names=["a", "b", "c"]),
    other=datasets.Value("string"),
)


@pytest.fixture(autouse=True)
def _no_bars():
    datasets.disable_progress_bars()


def hugging(rows=slice(None), pixels=PIXELS) -> datasets.Dataset:
    images = [Image.fromarray(np.squeeze(each)) for each in pixels[rows]]
    columns = {"image": images, "label": LABELS[rows].tolist(), "other": ["x"] * len(images)}
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def check(dataset, pixels=PIXELS, labels=LABELS):
    """Checks that the splits hold all images, each with its label."""
    parts = [data.stack(split) for split in (dataset.train, dataset.validation, dataset.test)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(whole["index"])
    np.testing.assert_array_equal(whole["image"][order], pixels)
    assert whole["image"].dtype == np.uint8
    if labels is None:
        assert "label" not in whole
        assert dataset.num_classes is None
    else:
        np.testing.assert_array_equal(whole["label"][order], labels)
        assert dataset.num_classes == 3


SPLITS = {"train": slice(0, 20), "valid": slice(20, 25), "test": slice(25, 30)}


def test_splits_are_carved_or_those_of_the_data_set():
    check(data.from_huggingface(hugging(), fold=2))
    splits = {name: hugging(rows) for name, rows in SPLITS.items()}
    dataset = data.from_huggingface(datasets.DatasetDict(splits, extra=hugging()))
    check(dataset)
    assert str(dataset) == (
        "huggingface: 4x5x3, uint8 0..255, 20 train / 5 validation / 5 test, 3 classes"
    )
    check(data.from_huggingface(hugging(pixels=GREY), label=None), GREY, None)
    check(data.from_huggingface(hugging().with_format("numpy")))
    plain = datasets.Dataset.from_dict({"x": PIXELS.tolist(), "y": LABELS.tolist()})
    found = data.from_huggingface(plain.with_format("numpy", dtype=np.uint8), image="x", label="y")
    check(found)


@pytest.mark.parametrize("layout", ["saved", "split", "hub"])
def test_folders_are_read(tmp_path, layout, recwarn):
    splits = datasets.DatasetDict({name: hugging(rows) for name, rows in SPLITS.items()})
    if layout == "saved":
        hugging().save_to_disk(tmp_path, num_shards=2)
    elif layout == "split":
        splits.save_to_disk(tmp_path)
    else:
        (tmp_path / "data").mkdir()
        for name, rows in splits.items():
            for place in range(2):
                file = tmp_path / "data" / f"{name}-0000{place}-of-00002.parquet"
                rows.shard(2, place, contiguous=True).to_parquet(file)
    check(data.open_dataset(data.DataConfig(f"hf:{tmp_path}")))
    small = data.open_dataset(data.DataConfig(f"hf:{tmp_path}", image_size=2))
    assert small.shape == (2, 2, 3)


class MapStyle:
    """A data set as PyTorch has it."""

    def __init__(self, examples, **attributes):
        self.examples = examples
        vars(self).update(attributes)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, number):
        return self.examples[number]


def pairs(images):
    return MapStyle(list(zip(images, LABELS, strict=True)), classes=["a", "b", "c"])


def test_map_style_data_sets_of_pixels_and_of_tensors():
    check(data.from_pytorch(pairs(PIXELS)))
    check(data.from_pytorch(pairs([Image.fromarray(each) for each in PIXELS])))
    tensors = np.moveaxis(PIXELS, 3, 1).astype(np.float32) / 255
    check(data.from_pytorch(pairs(tensors)))
    check(data.from_pytorch(MapStyle(GREY[..., 0])), GREY, None)
    check(data.from_pytorch(MapStyle([(each,) for each in GREY])), GREY, None)
    parts = [MapStyle(pairs(PIXELS)[rows]) for rows in SPLITS.values()]
    check(data.from_pytorch(*parts, num_classes=3))


def test_tensors_of_pytorch():
    torch = pytest.importorskip("torch")
    images = torch.tensor(np.moveaxis(PIXELS, 3, 1))
    check(
        data.from_pytorch(
            torch.utils.data.TensorDataset(images, torch.tensor(LABELS)), num_classes=3
        )
    )
    check(data.from_pytorch(torch.utils.data.TensorDataset(images / 255)), labels=None)


def changed(place, image=None, label=1):
    examples = list(pairs(PIXELS).examples)
    examples[place] = (PIXELS[place] if image is None else image, label)
    return MapStyle(examples, classes=["a", "b", "c"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (MapStyle(pairs(PIXELS).examples), "num_classes must be given for labels"),
        (MapStyle([]), "its train split is empty"),
        (changed(0, np.zeros((4, 5, 6, 1))), r"train 0: an image must have .*, got \(4, 5, 6, 1\)"),
        (changed(0, PIXELS[0] / 256), "train 0: pixels must be uint8, or multiples of 1/255"),
        (changed(0, np.full((4, 3), np.nan)), "train 0: pixels must be uint8, or multiples"),
        (changed(0, np.full((4, 5, 3), 257 / 255)), "train 0: pixels must be in 0..255, got"),
        (changed(0, PIXELS[0].astype(int)), "pixels must be uint8 or floats, got int64"),
        (changed(9, PIXELS[0, :3]), r"train 9: images must be of one shape, \(4, 5, 3\) of the"),
        (changed(9, label=3), "train 9: label must be below 3, got 3"),
        (changed(9, label=-1), "train 9: label must be below 3, got -1"),
        (changed(9, label=None), "train 9: label must be below 3, got None"),
    ],
)
def test_bad_examples_raise(source, message):
    def read():
        for split in ("train", "validation", "test"):
            data.stack(getattr(data.from_pytorch(source, name="mine"), split))

    with pytest.raises(ValueError, match=f"source='mine'.*{message}"):
        read()


def test_grey_images_among_coloured_ones_are_widened():
    source = data.from_pytorch(changed(9, GREY[9]))
    parts = [data.stack(split) for split in (source.train, source.validation, source.test)]
    images = {
        i: image for part in parts for i, image in zip(part["index"], part["image"], strict=True)
    }
    np.testing.assert_array_equal(images[9], np.repeat(GREY[9], 3, axis=2))


def truncate(path):
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "state.json").unlink(), "neither dataset_info.json nor Parquet"),
        (lambda root: (root / "state.json").write_text("[]"), "state.json must name the files"),
        (lambda root: (root / "state.json").write_text("{"), "can't be read: Expecting"),
        (
            lambda root: (root / "state.json").write_text(
                '{"_data_files": [{"filename": "../a.arrow"}]}'
            ),
            "state.json must name the files",
        ),
        (lambda root: truncate(next(root.glob("*.arrow"))), "can't be read"),
        (lambda root: next(root.glob("*.arrow")).write_bytes(b"no arrow" * 99), "can't be read"),
        (lambda root: next(root.glob("*.arrow")).unlink(), "can't be read: .*No such file"),
        (lambda root: (root / "dataset_dict.json").write_text("{}"), "must name the splits"),
        (
            lambda root: (root / "dataset_dict.json").write_text('{"splits": ["train"]}'),
            "can't be read: .*train",
        ),
    ],
)
def test_damaged_folders_raise_one_line_that_names_them(tmp_path, damage, message):
    root = tmp_path / "saved"
    hugging().save_to_disk(root)
    damage(root)
    with pytest.raises(ValueError, match=message) as caught:
        data.open_dataset(data.DataConfig(f"hf:{root}"))
    assert "saved" in str(caught.value)
    assert len(str(caught.value)) <= 500
    assert "\n" not in str(caught.value)


def test_places_outside_the_file_are_refused(tmp_path):
    rows = hugging().cast_column("image", datasets.Image(decode=False))
    rows.save_to_disk(tmp_path)
    sizes = [len(each["bytes"]) for each in rows["image"]]
    ends = np.cumsum([0, *sizes]).astype(np.int32)
    file = next(tmp_path.glob("*.arrow"))
    content = file.read_bytes()
    assert content.count(ends.tobytes()) == 1
    ends[3] = 2**30
    file.write_bytes(
        content.replace(np.cumsum([0, *sizes]).astype("<i4").tobytes(), ends.tobytes())
    )
    with pytest.raises(ValueError, match=r"can't be read: .*offset"):
        data.open_dataset(data.DataConfig(f"hf:{tmp_path}"))


def test_other_data_sets_and_missing_packages_raise(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no column 'picture' among"):
        data.from_huggingface(hugging(), image="picture")
    with pytest.raises(ValueError, match=r"must have a split train, .*, got \['other'\]"):
        data.from_huggingface(datasets.DatasetDict(other=hugging()))
    with pytest.raises(ValueError, match=r"each split once, got \['train', 'val', 'valid"):
        data.from_huggingface({name: hugging() for name in ("train", "val", "validation")})
    with pytest.raises(ValueError, match="there is no such folder"):
        data.open_dataset(data.DataConfig(f"hf:{tmp_path}/none"))
    datasets.Dataset.from_dict({"x": [1.0, 2.0]}).save_to_disk(tmp_path / "numbers")
    with pytest.raises(ValueError, match=r"must be a column image of images, got \['x'\]"):
        data.open_dataset(data.DataConfig(f"hf:{tmp_path}/numbers"))
    broken = hugging().cast_column("image", datasets.Image(decode=False))
    files = [{"bytes": b"no image", "path": None}, *list(broken["image"])[1:]]
    broken = broken.remove_columns("image").add_column("image", files)
    broken.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "broken")
    with pytest.raises(ValueError, match="train 0: can't be read as an image: no image of a known"):
        data.open_dataset(data.DataConfig(f"hf:{tmp_path}/broken"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs the package datasets; pip install 'vaeflow\[data"):
        data.open_dataset(data.DataConfig(f"hf:{tmp_path}"))
