"""Files appear whole or not at all, under the name they were given."""

from __future__ import annotations

import os
import pathlib
import sys

import numpy as np
import pytest

import vaeflow as vf
from vaeflow._util import files


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model"
    vf.save(path, {"width": 3}, {"kernel": np.arange(12, dtype=np.float32)})
    return path, path.read_bytes()


def test_failed_write_keeps_the_old_file(saved, monkeypatch):
    path, content = saved

    def fails(*arguments):
        raise OSError("no space left")

    for module, name in ((os, "fsync"), (pathlib.Path, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fails)
            with pytest.raises(OSError, match="no space left"):
                vf.save(path, {}, {"a": np.ones(3)})
        assert path.read_bytes() == content
        assert [file.name for file in path.parent.iterdir()] == ["model"]
    vf.save(path, {}, {})
    assert vf.load(path) == ({}, {})


def test_content_is_synced_before_the_rename(saved, monkeypatch):
    path, _ = saved
    events = []
    fsync, replace = os.fsync, pathlib.Path.replace

    def noted_fsync(descriptor):
        events.append("sync")
        fsync(descriptor)

    def noted_replace(source, target):
        assert source.parent == target.parent
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(pathlib.Path, "replace", noted_replace)
    vf.save(path, {}, {})
    assert events == ["sync", "rename", "sync"]


def test_links_stay_links_and_home_expands(saved, monkeypatch):
    path, _ = saved
    link = path.with_name("link")
    link.symlink_to(path)
    vf.save(link, {"new": 1}, {})
    assert link.is_symlink()
    assert vf.load(path)[0] == {"new": 1}
    monkeypatch.setenv("HOME", str(path.parent))
    assert vf.load("~/model")[0] == {"new": 1}


def test_remote_paths_go_through_epath(tmp_path, monkeypatch):
    from etils import epath

    seen = []

    def path_of(text):
        seen.append(text)
        return real(tmp_path / text.partition("://")[2])

    real = epath.Path
    monkeypatch.setattr(epath, "Path", path_of)
    vf.save("gs://model", {"a": 1}, {"b": np.ones(2, np.float32)})
    config, variables = vf.load("gs://model")
    assert config == {"a": 1}
    np.testing.assert_array_equal(variables["b"], [1, 1])
    assert seen == ["gs://model"] * 2
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    monkeypatch.setitem(sys.modules, "etils", None)
    with pytest.raises(ValueError, match="path gs://model isn't local, which needs a package: pip"):
        files.local_or_remote("gs://model")
