"""Two domains opened together, and errors of mismatched ones."""

from __future__ import annotations

import numpy as np
import pytest
import tyro
from PIL import Image

from vaeflow import data

SPLITS = ("train", "validation", "test")


def open_pair(*arguments: str) -> data.Pair:
    """Opens what a command line says."""
    return data.open_pair(tyro.cli(data.PairConfig, args=arguments))


def save(folder, name: str, count: int, shape: tuple[int, ...]) -> str:
    generator = np.random.default_rng(count)
    (folder / name).mkdir()
    for number in range(count):
        pixels = generator.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")
    return f"folder:{folder / name}"


def images(dataset: data.Dataset) -> np.ndarray:
    """All images in the order of their files."""
    batches = [data.stack(getattr(dataset, split)) for split in SPLITS]
    order = np.concatenate([batch["index"] for batch in batches]).argsort()
    return np.concatenate([batch["image"] for batch in batches])[order]


def test_digits_and_their_drawings_are_the_default(monkeypatch):
    def blank(self, digits, styles):  # for drawing takes seconds
        return np.zeros((len(digits), 28, 28, 3), np.uint8)

    monkeypatch.setattr(data.ColoredDigits, "render", blank)
    pair = open_pair()
    assert (pair.a.name, pair.b.name) == ("embedded:digits", "embedded:drawings")
    assert (pair.a.shape, pair.b.shape) == ((28, 28, 1), (28, 28, 3))
    assert tyro.cli(data.PairConfig, args=["--flip"]).flip


def test_faces_and_their_edges_in_a_fold():
    pair = open_pair("--a", "embedded:face-edges", "--b", "embedded:faces", "--fold", "2")
    assert pair.a.name == "embedded:face-edges"
    alone = data.open_dataset(data.DataConfig("embedded:faces", fold=2))
    for split in SPLITS:
        for dataset in pair:
            expected = data.stack(getattr(alone, split))["index"]
            np.testing.assert_array_equal(data.stack(getattr(dataset, split))["index"], expected)


def test_two_folders_are_brought_to_one_size(tmp_path):
    a = save(tmp_path, "a", 12, (9, 12))
    b = save(tmp_path, "b", 15, (20, 10, 3))
    pair = open_pair("--a", a, "--b", b, "--image-size", "8")
    assert (pair.a.shape, pair.b.shape) == ((8, 8, 1), (8, 8, 3))
    assert (len(images(pair.a)), len(images(pair.b))) == (12, 15)
    with pytest.raises(
        ValueError, match=r"a and b must have the same .*, got .*/a of 9x12x1 and .*/b of 20x10x3"
    ):
        open_pair("--a", a, "--b", b)


def test_two_halves_of_one_folder(tmp_path):
    both = save(tmp_path, "both", 12, (8, 16, 3))
    left, right = open_pair("--a", both, "--b", both, "--crop-a", "left", "--crop-b", "right")
    whole = images(data.open_dataset(data.DataConfig(both)))
    np.testing.assert_array_equal(images(left), whole[:, :, :8])
    np.testing.assert_array_equal(images(right), whole[:, :, 8:])


def test_size_goes_to_the_domain_that_takes_it(tmp_path):
    folder = save(tmp_path, "a", 12, (40, 30, 3))
    for order in (("--a", "--b"), ("--b", "--a")):
        pair = open_pair(order[0], "embedded:faces", order[1], folder, "--image-size", "24")
        assert {dataset.shape for dataset in pair} == {(24, 24, 1), (24, 24, 3)}
    pair = open_pair("--a", "embedded:sprites", "--b", folder, "--image-size", "16")
    assert pair.a.shape == (16, 16, 1)


def test_folder_of_prepared_data_goes_to_the_domain_that_takes_it(tmp_path):
    with pytest.raises(ValueError, match=rf"^b: source='tfds:mnist': not prepared in {tmp_path};"):
        open_pair("--b", "tfds:mnist", "--data-dir", str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"b": "embedded:faces"}, "got embedded:digits of 28x28x1 and embedded:faces of 24x24x1"),
        (
            {"image_size": 28},
            "image_size must be None, as neither a=embedded:digits nor b=embedded:draw.* got 28",
        ),
        ({"data_dir": "x"}, "data_dir must be None, as neither a=embedded:digits .* got 'x'"),
        (
            {"a": "embedded:cats"},
            "^a: source must be one of embedded:faces, .* got 'embedded:cats'",
        ),
        ({"b": "folder:/absent"}, "^b: source='folder:/absent': there is no such folder"),
        ({"crop_a": "left"}, "^a: crop must be 'center' for embedded:digits, got 'left'"),
        ({"crop_b": "left"}, "^b: crop must be 'center' for embedded:drawings, got 'left'"),
        ({"fold": 10}, "^a: fold must be from 0 to 9, got 10"),
        (
            {"a": "embedded:sprites", "image_size": 0},
            "^a: image_size must be None or at least 1, got 0",
        ),
    ],
)
def test_mismatched_options_raise_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.open_pair(data.PairConfig(**options))
    assert "\n" not in str(caught.value)
