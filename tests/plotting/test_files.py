"""Saving figures."""

import pathlib

import numpy as np
import PIL.Image
import pytest

from vaeflow import plotting


def a_figure():
    return plotting.image_grid(np.zeros((1, 10, 7, 3), np.uint8))


def test_figures_are_saved_at_their_own_size_into_new_folders(tmp_path):
    path = tmp_path / "figures" / "step_1" / "grid.png"
    plotting.save_figure(path, a_figure())
    with PIL.Image.open(path) as image:
        assert image.size == (7 * 8 + 8, 10 * 8 + 8)
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]


def test_a_failed_write_keeps_the_old_figure(tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    plotting.save_figure(path, a_figure())
    before = path.read_bytes()

    def fail(source, target):
        assert source.parent == tmp_path
        raise OSError("disk full")

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        plotting.save_figure(path, plotting.image_grid(np.ones((2, 5, 5, 1), np.uint8)))
    assert path.read_bytes() == before


def test_an_unknown_format_raises(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in one of .*'png'.*grid\.bmpx"):
        plotting.save_figure(tmp_path / "grid.bmpx", a_figure())
