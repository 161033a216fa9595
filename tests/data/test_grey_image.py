"""Images as numbers."""

import numpy as np
import pytest
from PIL import Image

from vaeflow import data


def test_grey_and_coloured_images_become_brightness(tmp_path):
    grey = np.array([[0, 51], [255, 102], [0, 0]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    result = data.read_grey_image(str(tmp_path / "grey.png"))
    np.testing.assert_allclose(result, grey / 255, rtol=1e-6)
    assert result.dtype == np.float32
    coloured = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    Image.fromarray(coloured).save(tmp_path / "coloured.png")
    result = data.read_grey_image(str(tmp_path / "coloured.png"))
    np.testing.assert_allclose(result, [[0.299, 0.587, 0.114]], rtol=1e-6)


def test_a_photograph_is_embedded():
    result = data.read_grey_image("embedded:camera")
    assert result.shape == (512, 512)
    # The sky, in the upper corner, is brighter than the coat.
    assert result[50, 50] > 0.6 > 0.2 > result[300, 200]


def test_missing_and_broken_files_raise(tmp_path):
    with pytest.raises(ValueError, match=r"there\.png is missing"):
        data.read_grey_image("there.png")
    with pytest.raises(ValueError, match="is missing"):
        data.read_grey_image(str(tmp_path))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png can't be read: "):
        data.read_grey_image(str(broken))
