"""Folders of image files, made of any mix."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vaeflow import data
from vaeflow.data import folder
from vaeflow.data.folder import read_image
from vaeflow.data.images import crop_and_resize

RANDOM = np.random.default_rng(0)


def save(path, pixels, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **options)


def grey(height: int = 12, width: int = 10) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width), dtype=np.uint8)


def colour(height: int = 12, width: int = 10) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)


def open_folder(path, **options) -> data.Dataset:
    return data.open_dataset(data.DataConfig(f"folder:{path}", **options))


def by_name(dataset: data.Dataset, names: list[str]) -> dict[str, np.ndarray]:
    """Images of all splits under the names of their files, which are numbered in order."""
    images = {}
    for split in (dataset.train, dataset.validation, dataset.test):
        batch = data.stack(split)
        for image, index in zip(batch["image"], batch["index"], strict=True):
            images[sorted(names)[index]] = image
    assert len(images) == len(names)
    return images


def fill(path, count: int = 20) -> dict[str, np.ndarray]:
    pixels = {f"{number:02d}.png": grey() for number in range(count)}
    for name, image in pixels.items():
        save(path / name, image)
    return pixels


@pytest.mark.parametrize("in_memory", [True, False])
def test_grey_and_colour_together(tmp_path, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(folder, "_IN_MEMORY_BYTES", 3000)  # the first few, then no more
    pixels = fill(tmp_path)
    pixels["10x.png"] = colour()
    save(tmp_path / "10x.png", pixels["10x.png"])
    for name, image in by_name(open_folder(tmp_path), list(pixels)).items():
        expected = pixels[name] if name == "10x.png" else np.stack([pixels[name]] * 3, axis=-1)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("in_memory", [True, False])
def test_lossless_files_come_back_as_they_are(tmp_path, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(folder, "_IN_MEMORY_BYTES", 0)
    pixels = {f"{'ab'[number % 2]}/deep/{number:02d}.png": grey() for number in range(20)}
    for name, image in pixels.items():
        save(tmp_path / name, image)
    save(tmp_path / ".hidden.png", grey())
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = open_folder(tmp_path)
    assert dataset.shape == (12, 10, 1)
    assert dataset.skipped == ()
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [16, 2, 2]
    for name, image in by_name(dataset, list(pixels)).items():
        np.testing.assert_array_equal(image[..., 0], pixels[name])
    (batch,) = [next(data.training_batches(dataset.train, 4, 0))]
    assert batch["image"].shape == (4, 12, 10, 1)


def test_any_mix_of_formats_and_modes(tmp_path):
    flat = np.full((12, 10), 80, np.uint8)
    fill(tmp_path)
    for name in ("a.BMP", "a.gif", "a.jpg", "a.jpeg", "a.pgm", "a.tiff", "a.webp"):
        save(tmp_path / name, flat)
    save(tmp_path / "deep.png", flat.astype(np.uint16) * 257)
    Image.fromarray(np.full((12, 10, 3), 80, np.uint8)).quantize(4).save(tmp_path / "palette.png")
    Image.new("CMYK", (10, 12), (175, 175, 175, 0)).save(tmp_path / "print.jpg")
    Image.new("RGBA", (10, 12), (0, 0, 0, 175)).save(tmp_path / "veil.png")
    Image.new("1", (10, 12), 1).save(tmp_path / "bit.png")
    dataset = open_folder(tmp_path)
    assert dataset.shape == (12, 10, 3)  # for some are colour
    names = [file.name for file in tmp_path.iterdir()]
    images = by_name(dataset, names)
    for name in names:
        if not name[:2].isdigit():
            expected = 255 if name == "bit.png" else 80
            assert images[name].shape == (12, 10, 3)
            assert np.abs(images[name].astype(int) - expected).max() <= 2, name


def test_colours_of_one_palette_make_three_channels(tmp_path):
    fill(tmp_path)
    red = Image.new("RGB", (10, 12), (200, 10, 10)).quantize(2)
    red.save(tmp_path / "red.png")
    dataset = open_folder(tmp_path)
    assert dataset.shape == (12, 10, 3)
    images = by_name(dataset, [file.name for file in tmp_path.iterdir()])
    assert (images["red.png"] == [200, 10, 10]).all()


def test_all_grey_files_make_one_channel(tmp_path):
    fill(tmp_path)
    save(tmp_path / "deep.png", np.full((12, 10), 65535, np.uint16))
    Image.fromarray(grey()).convert("LA").save(tmp_path / "alpha.png")
    Image.fromarray(grey()).convert("P").save(tmp_path / "palette.png")
    assert open_folder(tmp_path).shape == (12, 10, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_exif(tmp_path, orientation):
    upright = np.zeros((12, 10), np.uint8)
    upright[:6, :5] = 255  # bright in the upper left
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number in range(10):
        save(tmp_path / f"{number}.png", turns[orientation], exif=exif)
    save(tmp_path / "plain.png", upright)  # all have one size, once they are upright
    dataset = open_folder(tmp_path)
    assert dataset.shape == (12, 10, 1)
    np.testing.assert_array_equal(data.stack(dataset.test)["image"][0, ..., 0], upright)


def test_mixed_sizes_need_image_size(tmp_path):
    fill(tmp_path)
    save(tmp_path / "large.png", grey(40, 30))
    with pytest.raises(
        ValueError, match=r"different sizes, 00.png 12x10 and large.png 40x30; give"
    ):
        open_folder(tmp_path)
    dataset = open_folder(tmp_path, image_size=8)
    assert dataset.shape == (8, 8, 1)
    assert data.stack(dataset.train)["image"].shape == (16, 8, 8, 1)


def test_centre_crop_takes_the_middle_square():
    image = np.zeros((20, 10, 1), np.uint8)
    image[5:15] = 200
    assert (crop_and_resize(image, 5, "center") == 200).all()
    wide = image.transpose(1, 0, 2)
    assert (crop_and_resize(wide, 5, "center") == 200).all()
    square = image[5:15]
    assert crop_and_resize(square, 10, "center") is square


@pytest.mark.parametrize("width", [24, 25])
@pytest.mark.parametrize("crop", ["left", "right"])
def test_halves_are_cropped_like_full_images(width, crop):
    image = colour(10, width)
    half = image[:, :12] if crop == "left" else image[:, width - 12 :]
    np.testing.assert_array_equal(crop_and_resize(image, None, crop), half)
    for size in (5, 10):
        expected = crop_and_resize(half, size, "center")
        np.testing.assert_array_equal(crop_and_resize(image, size, crop), expected)


@pytest.mark.parametrize("in_memory", [True, False])
def test_files_of_two_images_side_by_side(tmp_path, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(folder, "_IN_MEMORY_BYTES", 0)
    both = {f"{number:02d}.png": colour(8, 16) for number in range(20)}
    for name, image in both.items():
        save(tmp_path / name, image)
    for crop, columns in (("left", slice(0, 8)), ("right", slice(8, 16))):
        dataset = open_folder(tmp_path, crop=crop)
        assert dataset.shape == (8, 8, 3)
        for name, image in by_name(dataset, list(both)).items():
            np.testing.assert_array_equal(image, both[name][:, columns])
        assert open_folder(tmp_path, crop=crop, image_size=4).shape == (4, 4, 3)


def test_half_of_a_column_raises(tmp_path):
    fill(tmp_path)
    save(tmp_path / "line.png", grey(12, 1))
    with pytest.raises(
        ValueError, match=r"crop='left': .*line.png must have 2 columns or more, .* got 1"
    ):
        open_folder(tmp_path, image_size=8, crop="left")
    with pytest.raises(ValueError, match="crop='right': the image must have 2 columns or more"):
        crop_and_resize(grey(12, 1)[..., np.newaxis], None, "right")


def test_shrinking_does_not_alias():
    stripes = np.tile(np.array([[0, 255]], np.uint8), (64, 32))[..., np.newaxis]
    small = crop_and_resize(stripes, 16, "center").astype(int)
    assert np.abs(small - 127.5).max() < 20


def test_celeba_crop_is_that_of_the_protocol():
    image = np.zeros((218, 178, 3), np.uint8)
    image[40:188, 15:163] = 200
    assert (crop_and_resize(image, 64, "celeba") == 200).all()
    outside = 255 - image  # nothing of the frame may show, and nothing of the crop be missing
    assert (crop_and_resize(outside, 64, "celeba") == 55).all()
    for row, column in ((40, 15), (187, 162)):
        corner = np.zeros_like(image)
        corner[row, column] = 255
        assert crop_and_resize(corner, None, "celeba").sum() == 3 * 255
    assert crop_and_resize(image, None, "celeba").shape == (148, 148, 3)


def test_celeba_resize_interpolates_the_four_nearest():
    image = RANDOM.integers(0, 256, (218, 178, 3), dtype=np.uint8)
    small = crop_and_resize(image, 64, "celeba")
    cropped = image[40:188, 15:163].astype(float)
    for row, column in ((0, 0), (10, 33), (63, 63)):
        y, x = ((place + 0.5) * 148 / 64 - 0.5 for place in (row, column))
        top, left = int(y), int(x)
        down, right = y - top, x - left
        expected = (
            cropped[top, left] * (1 - down) * (1 - right)
            + cropped[top + 1, left] * down * (1 - right)
            + cropped[top, left + 1] * (1 - down) * right
            + cropped[top + 1, left + 1] * down * right
        )
        np.testing.assert_allclose(small[row, column], expected, atol=0.5 + 1e-9)


def test_celeba_from_its_own_files(tmp_path):
    lines = []
    for number in range(6):
        save(tmp_path / "img_align_celeba" / f"00000{number}.jpg", colour(218, 178))
        lines.append(f"00000{number}.jpg {number // 2}\n")
    (tmp_path / "list_eval_partition.txt").write_text("".join(lines))
    dataset = open_folder(tmp_path, image_size=64, crop="celeba")
    assert dataset.shape == (64, 64, 3)
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [data.stack(split)["index"].tolist() for split in splits] == [[0, 1], [2, 3], [4, 5]]
    assert open_folder(tmp_path, crop="celeba").shape == (148, 148, 3)

    save(tmp_path / "img_align_celeba" / "extra.jpg", colour(218, 178))
    with pytest.raises(ValueError, match=r"extra.jpg. aren.t listed in list_eval_partition.txt"):
        open_folder(tmp_path, image_size=64, crop="celeba")
    (tmp_path / "list_eval_partition.txt").write_text("000000.jpg 3\n")
    with pytest.raises(ValueError, match="lines other than NAME"):
        open_folder(tmp_path, image_size=64, crop="celeba")


def test_celeba_crop_of_other_images_raises(tmp_path):
    fill(tmp_path)
    with pytest.raises(
        ValueError, match=r"crop='celeba': .*00.png must be an aligned .* got 12x10"
    ):
        open_folder(tmp_path, image_size=8, crop="celeba")


def test_folders_named_after_splits_are_the_splits(tmp_path):
    for split, count in (("train", 12), ("val", 3), ("test", 4)):
        for number in range(count):
            save(tmp_path / split / f"{number:02d}.png", np.full((4, 4), len(split), np.uint8))
    dataset = open_folder(tmp_path)
    for split, count, value in (("train", 12, 5), ("validation", 3, 3), ("test", 4, 4)):
        images = data.stack(getattr(dataset, split))["image"]
        assert len(images) == count
        assert (images == value).all()
    save(tmp_path / "stray.png", grey(4, 4))
    with pytest.raises(ValueError, match=r"stray.png. lie outside the folders of the splits"):
        open_folder(tmp_path)


@pytest.mark.parametrize("names", [("Train", "TEST"), ("TRAIN", "Val")])
def test_folders_of_splits_are_known_in_any_case(tmp_path, names):
    for value, split in enumerate(names):
        for number in range(12):
            save(tmp_path / split / f"{number:02d}.png", np.full((4, 4), value, np.uint8))
    dataset = open_folder(tmp_path)
    given = dataset.test if names[1] == "TEST" else dataset.validation
    assert (data.stack(dataset.train)["image"] == 0).all()
    assert (data.stack(given)["image"] == 1).all()
    assert len(given) == 12


def test_odd_names_are_shown_escaped(tmp_path):
    root = tmp_path / "line\nbreak"
    fill(root, 60)
    (root / "\x1b[31m00.png").write_bytes(b"nothing like an image")
    with pytest.warns(
        UserWarning, match=r"line\\nbreak: skipped .*\\x1b\[31m00.png \(no image"
    ) as caught:
        dataset = open_folder(root)
    assert "\n" not in f"{caught[0].message}{dataset}"
    save(root / "\u202elarge.png", grey(40, 30))
    with pytest.raises(ValueError, match=r"12x10 and \\u202elarge.png 40x30"):
        open_folder(root)


def test_a_small_file_of_many_pixels_is_broken(tmp_path):
    save(tmp_path / "a.png", np.zeros((3000, 3000), np.uint16))
    with pytest.raises(ValueError, match=r"3000x3000 pixels in \d+ bytes: too many"):
        read_image(tmp_path / "a.png")
    save(tmp_path / "b.png", np.zeros((3000, 3000), np.uint8))
    assert read_image(tmp_path / "b.png").shape == (3000, 3000, 1)
    (tmp_path / "c.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(ValueError, match="no image of a known format"):
        read_image(tmp_path / "c.png")


def test_a_damaged_list_of_splits_raises(tmp_path):
    fill(tmp_path)
    partition = tmp_path / "list_eval_partition.txt"
    for content, message in (
        (b"00.png 0\n00.png 1\n", "lists a file twice"),
        (b"\xff", "list_eval_partition.txt can't be read: .* can't decode"),
    ):
        partition.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_folder(tmp_path)
    partition.unlink()
    partition.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="isn't a regular file"):
        open_folder(tmp_path)


def damage(path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def test_broken_files_are_named_and_skipped(tmp_path):
    pixels = fill(tmp_path, 60)
    (tmp_path / "00.png").write_bytes(b"nothing like an image")
    save(tmp_path / "59.png", np.tile(grey(60, 50), (3, 3)))  # whole header, half the pixels
    damage(tmp_path / "59.png")
    save(tmp_path / "30.jpg", grey())
    damage(tmp_path / "30.jpg")
    with pytest.warns(UserWarning, match=r"skipped 3 of 61 files .*00.png \(.*30.jpg \(.*59.png"):
        dataset = open_folder(tmp_path, image_size=8)
    assert dataset.skipped == ("00.png", "30.jpg", "59.png")
    assert "3 unreadable files skipped" in str(dataset)
    good = [name for name in pixels if name not in dataset.skipped]
    for name, image in by_name(dataset, good).items():
        expected = crop_and_resize(pixels[name][..., np.newaxis], 8, "center")
        np.testing.assert_array_equal(image, expected)


def test_too_many_broken_files_raise(tmp_path):
    fill(tmp_path)
    (tmp_path / "03.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped 1 of 20"):  # one in twenty is still allowed
        open_folder(tmp_path)
    damage(tmp_path / "07.png")
    with pytest.raises(
        ValueError, match=r"at most 5% of the files .* got 2 of 20: 03.png .*07.png"
    ):
        open_folder(tmp_path)


def test_file_that_breaks_later_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_IN_MEMORY_BYTES", 0)
    fill(tmp_path)
    dataset = open_folder(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"\d\d.png can't be read any more"):
        next(data.training_batches(dataset.train, 4, 0))


def test_floating_point_pixels_raise(tmp_path):
    save(tmp_path / "a.tiff", np.full((4, 4), 0.5, np.float32))
    with pytest.raises(ValueError, match="floating-point pixels"):
        read_image(tmp_path / "a.tiff")


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        open_folder(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(ValueError, match=r"holds no image files \(.bmp, .*.webp\)"):
        open_folder(tmp_path)


def test_missing_pillow_is_named_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ValueError, match=r"needs the package pillow; pip install 'vaeflow\[exper"):
        open_folder(tmp_path)
